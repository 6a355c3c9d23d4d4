"""Clusters: several processes that train one model, and how each of them learns who the others are.

The environment variable TF_CONFIG tells every process of a cluster who the others are and which of them it is:

    {"cluster": {"chief": ["host0:2222"], "worker": ["host1:2222", "host2:2222"], "ps": ["host3:2222"]},
     "task": {"type": "worker", "index": 0}}

Under `parameter_server` the chief is the coordinator, which runs the program; workers compute steps and servers (`ps`)
hold the weights. Under `multi_worker` all processes are workers, and each runs the program.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

# The exit code of a coordinator that lost a server: restarted, it resumes from the last checkpoint.
EXIT_SERVER_LOST = 75

# The jobs that a strategy's TF_CONFIG must name.
JOBS = {"parameter_server": ("chief", "worker", "ps"), "multi_worker": ("worker",)}
_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
_HOST_PORT = re.compile(r"[^\s:/]+:(\d{1,5})")
# In seconds: how long to wait for an answer, and between two lines about a cluster that is not complete.
_ANSWER_WITHIN = 3.0
_TELL_AFTER = 15.0


class ServerLost(RuntimeError):
    """A parameter server is gone, and with it part of the weights; the last checkpoint has all of them."""


def task() -> tuple[str, int] | None:
    """Returns the job and the number of this process in TF_CONFIG; None without TF_CONFIG.

    Raises:
      ValueError: it is not of the form above.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    problems = tf_config_problems(text)
    if problems:
        raise ValueError("; ".join(problems))
    config = json.loads(text)
    return config["task"]["type"], int(config["task"]["index"])


def wait_for_others(say: Callable[[str], None]) -> None:
    """Returns once every worker and server that TF_CONFIG names can be reached; says which it waits for."""
    cluster = json.loads(os.environ["TF_CONFIG"])["cluster"]
    names = {address: f"{job} {i} at {address}" for job in ("worker", "ps") for i, address in enumerate(cluster[job])}
    told = time.monotonic() - _TELL_AFTER
    while missing := unreachable(list(names)):
        if time.monotonic() - told > _TELL_AFTER:
            told = time.monotonic()
            say(f"waiting for {', '.join(names[address] for address in missing)}")
        time.sleep(0.5)


def serve() -> None:
    """Runs the worker or parameter server that TF_CONFIG names, until the process is ended.

    Raises:
      ValueError: TF_CONFIG names neither.
    """
    found = task()
    if found is None or found[0] not in ("worker", "ps"):
        raise ValueError(f"TF_CONFIG names {found}; only a worker or a ps serves")
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    server = tf.distribute.Server(
        resolver.cluster_spec(),
        job_name=found[0],
        task_index=found[1],
        protocol=resolver.rpc_layer or "grpc",
        start=True,
    )
    server.join()


def job_in_tf_config(strategy: str) -> str:
    """Returns the job of this process.

    Raises:
      ValueError: TF_CONFIG is missing or does not fit the strategy.
    """
    text = os.environ.get("TF_CONFIG", "")
    problems = tf_config_problems(text, strategy) if text else ["TF_CONFIG is not set"]
    if problems:
        raise ValueError(
            f"strategy {strategy}: {'; '.join(problems)}. docs/guides/strategies.md has an example; for a trial on this"
            f" machine: tfrs-dlrm cluster --strategy={strategy}"
        )
    return json.loads(text)["task"]["type"]


def tf_config_problems(text: str, strategy: str = "") -> list[str]:
    """Describes the mistakes in the value of TF_CONFIG, a sentence each; empty if it is right.

    Args:
      text: of the environment variable.
      strategy: `multi_worker` or `parameter_server`, whose jobs it must name; without it only the form is checked.
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
        if not is_host_port(address)
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
        return [f"TF_CONFIG's task has index {index!r}; TF_CONFIG lists {count} of type {job}, counted from 0"]
    return []


def is_host_port(text: Any) -> bool:
    """Whether a text is HOST:PORT."""
    match = _HOST_PORT.fullmatch(text) if isinstance(text, str) else None
    return match is not None and 0 < int(match[1]) < 65536


def unreachable(addresses: Sequence[str]) -> dict[str, str]:
    """Returns the addresses HOST:PORT that accept no connection within 3 seconds, each with the reason."""
    reasons = dict.fromkeys(addresses, f"nothing in {_ANSWER_WITHIN:.0f} seconds")

    def connect(address: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_ANSWER_WITHIN).close()
            reasons[address] = ""
        except OSError as e:
            reasons[address] = str(e)

    # In threads, since looking up a name has no time limit; as daemons, so that Python's end does not wait for them.
    threads = [threading.Thread(target=connect, args=(a,), daemon=True) for a in addresses]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _ANSWER_WITHIN
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return {address: why for address, why in reasons.items() if why}
