"""The environment variable TF_CONFIG: checked in full before a process waits for others.

It tells each process of a cluster who the others are and which of them it is:

    {"cluster": {"chief": ["host0:2222"], "worker": ["host1:2222", "host2:2222"], "ps": ["host3:2222"]},
     "task": {"type": "worker", "index": 0}}
"""

from __future__ import annotations

import json
import re
from typing import Any

# The jobs of a strategy's cluster, all of which TF_CONFIG must name, and no others.
JOBS = {"parameter_server": ("chief", "worker", "ps"), "multi_worker": ("worker",)}
_EXAMPLES = {
    "": '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}',
    "parameter_server": '{"cluster": {"chief": ["host0:2222"], "worker": ["host1:2222"], "ps": ["host2:2222"]},'
    ' "task": {"type": "chief", "index": 0}}',
}
_HOST_PORT = re.compile(r"[^\s:/]+:([0-9]{1,5})")


def tf_config_problems(text: str, strategy: str = "") -> list[str]:
    """Describes the mistakes in the value of TF_CONFIG, with what to do; empty if it is right.

    Args:
      text: of the environment variable.
      strategy: `multi_worker` or `parameter_server`, whose jobs it must name; without it only the form is checked.
    """
    try:
        config = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as e:
        return [f"TF_CONFIG is not valid JSON: {e}; it looks like {_example(strategy)}"]
    cluster = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not cluster:
        return [f"TF_CONFIG has no cluster; it looks like {_example(strategy)}"]
    problems = [problem for job, addresses in cluster.items() for problem in _address_problems(job, addresses)]
    if not problems:
        every = [address for addresses in cluster.values() for address in addresses]
        problems = [
            f"TF_CONFIG names {a} more than once; give each process an address of its own"
            for a in sorted(set(every))
            if every.count(a) > 1
        ]
    if config.get("rpc_layer") not in (None, "", "grpc"):
        problems.append(f"TF_CONFIG has rpc_layer={config['rpc_layer']!r}; TensorFlow has grpc only, so leave it out")
    problems += _task_problems(config.get("task"), cluster, strategy)
    if strategy:
        problems += _job_problems(config, cluster, strategy, sound=not problems)
    return problems


def unused_cluster(text: str, strategy: str) -> str:
    """Says what to do if TF_CONFIG names several processes, and the strategy is of one process; otherwise empty.

    Each process would train alone, all in one directory.
    """
    if strategy in JOBS or tf_config_problems(text):
        return ""
    cluster = json.loads(text)["cluster"]
    count = sum(map(len, cluster.values()))
    if count < 2:
        return ""
    jobs = ", ".join(f"{len(addresses)} {job}" for job, addresses in cluster.items())
    fitting = [f"give --strategy={name}, or " for name in JOBS if not tf_config_problems(text, name)]
    return (
        f"TF_CONFIG names {count} processes ({jobs}), and --strategy={strategy} is of one, so that each would train"
        f" alone; {''.join(fitting)}start one process only, with TF_CONFIG unset"
    )


def is_host_port(text: Any) -> bool:
    """Whether a text is HOST:PORT."""
    match = _HOST_PORT.fullmatch(text) if isinstance(text, str) else None
    return match is not None and 0 < int(match[1]) < 65536


def _example(strategy: str) -> str:
    return _EXAMPLES.get(strategy, _EXAMPLES[""])


def _address_problems(job: str, addresses: Any) -> list[str]:
    if not isinstance(addresses, list) or not addresses:
        return [f"TF_CONFIG's cluster has {job}={addresses!r}; a list of HOST:PORT is needed"]
    return [
        f"TF_CONFIG's cluster has {job} {address!r}; HOST:PORT is needed, with a port of 1 to 65535"
        for address in addresses
        if not is_host_port(address)
    ]


def _task_problems(task: Any, cluster: dict[str, Any], strategy: str) -> list[str]:
    if not isinstance(task, dict) or "type" not in task or "index" not in task:
        return [f"TF_CONFIG has task={task!r}; this process' type and index are needed, as in {_example(strategy)}"]
    job, index = task["type"], task["index"]
    if job == "evaluator":  # may stand outside the cluster
        return []
    if not isinstance(job, str) or job not in cluster:
        return [f"TF_CONFIG's task is of type {job!r}; the cluster has {', '.join(cluster)}, so give one of these"]
    count = len(cluster[job]) if isinstance(cluster[job], list) else 0
    if count and not (_is_index(index) and int(index) < count):
        return [f"TF_CONFIG's task has index {index!r}; TF_CONFIG lists {count} of type {job}, counted from 0"]
    return []


def _is_index(index: Any) -> bool:
    # TensorFlow takes digits as text, which some schedulers write.
    digits = isinstance(index, str) and index.isascii() and index.isdecimal()
    return digits or (isinstance(index, int) and not isinstance(index, bool) and index >= 0)


def _job_problems(config: dict[str, Any], cluster: dict[str, Any], strategy: str, sound: bool) -> list[str]:
    """Compares the jobs of a cluster with those of the strategy; `sound` if nothing else is wrong."""
    jobs = JOBS[strategy]
    task = config.get("task")
    if isinstance(task, dict) and task.get("type") == "evaluator":
        first = "chief" if "chief" in jobs else "first worker"
        return [
            f"this process is an evaluator in TF_CONFIG, which {strategy} does not have: the {first} evaluates while it"
            " trains. Start no process for it, and name no evaluator in the cluster of the others; `tfrs-dlrm evaluate"
            " --workdir=WORKDIR` scores a checkpoint"
        ]
    other = next((name for name in JOBS if set(JOBS[name]) == set(cluster)), strategy)
    if other != strategy and len(JOBS[other]) > len(jobs):
        return [f"TF_CONFIG's cluster has {', '.join(cluster)}, which {other} needs; give --strategy={other}"]
    fixed = _corrected(config, strategy) if sound else None
    advice = f"as TF_CONFIG of this process, give {json.dumps(fixed)}" if fixed else ""
    problems = []
    for job in cluster:
        if job not in jobs:
            named = f"TF_CONFIG's cluster has {_a(job)}, and {strategy} has only {' and '.join(jobs)}"
            problems.append(f"{named}: {advice or _instead(job, cluster, strategy)}")
    missing = [job for job in jobs if not (fixed or config)["cluster"].get(job)]
    if missing:
        instead = f", or give --strategy={other}" if other != strategy else ""
        needed = " and ".join(f'"{job}": ["HOST:PORT"]' for job in missing)
        named = f"TF_CONFIG's cluster has no {' and no '.join(missing)}, which {strategy} needs"
        problems.append(f"{named}; it has {', '.join(cluster)}. Add {needed} in every process{instead}")
    chiefs = cluster.get("chief")
    if "chief" in jobs and isinstance(chiefs, list) and len(chiefs) > 1:
        problems.append(f"TF_CONFIG's cluster has {len(chiefs)} of type chief; leave one, and make the others workers")
    return problems


def _instead(job: str, cluster: dict[str, Any], strategy: str) -> str:
    if job == "master" and "chief" in cluster:
        return "take it out in every process, since there is a chief"
    if job in ("chief", "master"):
        return "name it chief" if strategy == "parameter_server" else "make it the first worker"
    return "take it out in every process, and do not start it"


def _a(job: str) -> str:
    return f"an {job}" if job[:1] in "aeiou" else f"a {job}"


def _corrected(config: dict[str, Any], strategy: str) -> dict[str, Any] | None:
    """Returns TF_CONFIG with the jobs of the strategy: without evaluators, with a chief or master under its other name.

    None if that does not make it right.
    """
    cluster, task = dict(config["cluster"]), dict(config["task"])
    cluster.pop("evaluator", None)
    for name in ("chief", "master"):
        if name in JOBS[strategy] or name not in cluster:
            continue
        leading, into = cluster.pop(name), JOBS[strategy][0]
        if task["type"] == into:
            task["index"] = int(task["index"]) + len(leading)
        elif task["type"] == name:
            task["type"] = into
        cluster = {into: [*leading, *cluster.pop(into, [])], **cluster}
    fixed = {**config, "cluster": cluster, "task": task}
    return None if cluster == config["cluster"] or tf_config_problems(json.dumps(fixed), strategy) else fixed
