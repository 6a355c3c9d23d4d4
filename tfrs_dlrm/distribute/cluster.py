"""Clusters: several processes that train one model, and how each of them learns who the others are.

The environment variable TF_CONFIG tells them; see `tf_config`.

Under `parameter_server` the chief is the coordinator, which runs the program; workers compute steps and servers (`ps`)
hold the weights. Under `multi_worker` all processes are workers, and each runs the program.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence

from tfrs_dlrm.distribute.tf_config import tf_config_problems

# The exit code of a coordinator that lost a server: restarted, it resumes from the last checkpoint.
EXIT_SERVER_LOST = 75

# In seconds: how long to wait for an answer, and between two lines about a cluster that is not complete.
_ANSWER_WITHIN = 3.0
_TELL_AFTER = 15.0


class ServerLost(RuntimeError):
    """A parameter server is gone, and with it part of the weights; the last checkpoint has all of them."""


def task(strategy: str = "") -> tuple[str, int] | None:
    """Returns the job and the number of this process in TF_CONFIG; None without TF_CONFIG.

    Args:
      strategy: whose jobs TF_CONFIG must name; without it only the form is checked.

    Raises:
      ValueError: TF_CONFIG is wrong.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    problems = tf_config_problems(text, strategy)
    if problems:
        raise ValueError("; ".join(problems))
    config = json.loads(text)
    return config["task"]["type"], int(config["task"]["index"])


def wait_for_others(say: Callable[[str], None]) -> None:
    """Returns once every worker and server that TF_CONFIG names can be reached; says which it waits for.

    Raises:
      ValueError: TF_CONFIG is missing or names no cluster of `parameter_server`.
    """
    job_in_tf_config("parameter_server")
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
    found = task("parameter_server")
    if found is None or found[0] == "chief":
        what = "names the chief" if found else "is not set"
        raise ValueError(f"TF_CONFIG {what}, and only a worker or a ps serves; train in the chief, or change its task")
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    server = tf.distribute.Server(
        resolver.cluster_spec(),
        job_name=found[0],
        task_index=found[1],
        protocol=resolver.rpc_layer or "grpc",
        start=True,
    )
    # It waits outside of Python, where no handler of Python would be called.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
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
