"""Trains on a cluster of processes on this machine: for trials of what runs on many machines.

python train/local_cluster.py --strategy=parameter_server --workers=2 --servers=2 -- --config=... --workdir=...

What stands behind `--` is passed on to train/main.py. The parameter servers and workers write their logs to files. Any
process may be killed: it is started again, and a coordinator goes on from its last checkpoint.
"""

import os
import sys

from absl import flags

from tfrs_dlrm import cli

_STRATEGY = flags.DEFINE_enum("strategy", "parameter_server", ["parameter_server", "multi_worker"], "Of the cluster.")
_WORKERS = flags.DEFINE_integer("workers", 2, "How many.", lower_bound=1)
_SERVERS = flags.DEFINE_integer("servers", 2, "How many, of parameter_server.", lower_bound=1)
_LOGS = flags.DEFINE_string("logs", "runs/cluster-logs", "Where the processes in the background write theirs.")


def main(arguments: list[str]) -> None:
    """Runs what the flags say."""
    from tfrs_dlrm.distribute.local_cluster import LocalCluster

    strategy = _STRATEGY.value
    train = os.path.join(os.path.dirname(os.path.abspath(__file__)), "main.py")
    program = [sys.executable, train, f"--strategy={strategy}", *arguments[1:]]
    cluster = LocalCluster(strategy, _WORKERS.value, _SERVERS.value, program, _LOGS.value)
    for each in cluster.tasks:
        print(f"{each.name}: {'this terminal' if each is cluster.main else f'{_LOGS.value}/{each.name}.log'}")
    sys.exit(cluster.run(lambda line: print(line, file=sys.stderr)))


if __name__ == "__main__":
    cli.run(main, tensorflow=False, arguments=True)
