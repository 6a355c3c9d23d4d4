"""TF_CONFIG: who is in a cluster, and which of them this process is."""

from __future__ import annotations

import json
from typing import Any

from tfrs_dlrm.distribute.addresses import is_address

# The jobs that a strategy's TF_CONFIG has to have.
JOBS = {"multi_worker": ("worker",), "parameter_server": ("chief", "worker", "ps")}
_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


def tf_config_problems(text: str, strategy: str = "") -> list[str]:
    """What is wrong with the value of TF_CONFIG, each in a sentence; nothing where it is right.

    Args:
      text: of the environment variable.
      strategy: `multi_worker` or `parameter_server`, whose jobs must then be there; without it only the form counts.
    """
    try:
        config = json.loads(text)
    except json.JSONDecodeError as e:
        return [f"TF_CONFIG is not valid JSON: {e}"]
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not cluster:
        return [f"TF_CONFIG has no cluster; it looks like {_EXAMPLE}"]
    problems = [problem for job, addresses in cluster.items() for problem in _address_problems(job, addresses)]
    if not problems:
        every = [address for addresses in cluster.values() for address in addresses]
        problems = [f"TF_CONFIG names {a} more than once" for a in sorted(set(every)) if every.count(a) > 1]
    for job in JOBS.get(strategy, ()):
        if not cluster.get(job):
            problems.append(f"TF_CONFIG's cluster has no {job}, which {strategy} needs; it has {', '.join(cluster)}")
    if strategy == "multi_worker" and "chief" in cluster:
        problems.append("TF_CONFIG's cluster has a chief; make it the first worker, which does what a chief does")
    return problems + _task_problems(config.get("task"), cluster)


def _address_problems(job: str, addresses: Any) -> list[str]:
    if not isinstance(addresses, list) or not addresses:
        return [f"TF_CONFIG's cluster has {job}={addresses!r}; a list of HOST:PORT is needed"]
    return [
        f"TF_CONFIG's cluster has {job} {address!r}; HOST:PORT is needed, with a port of 1 to 65535"
        for address in addresses
        if not is_address(address)
    ]


def _task_problems(task: Any, cluster: dict[str, Any]) -> list[str]:
    if not isinstance(task, dict) or "type" not in task or "index" not in task:
        return [f"TF_CONFIG has task={task!r}; this process' type and index are needed, as in {_EXAMPLE}"]
    job, index = task["type"], task["index"]
    if job == "evaluator":  # stands outside the cluster
        return []
    if not isinstance(job, str) or job not in cluster:
        return [f"TF_CONFIG's task is of type {job!r}; the cluster has {', '.join(cluster)}"]
    count = len(cluster[job]) if isinstance(cluster[job], list) else 0
    if count and (not str(index).isdigit() or int(index) >= count):
        return [f"TF_CONFIG's task has index {index!r}; there are {count} of type {job}, counted from 0"]
    return []
