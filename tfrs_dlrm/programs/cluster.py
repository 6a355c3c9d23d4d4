"""Trains on a cluster of processes on this machine, to try what runs on many machines.

    tfrs-dlrm cluster --strategy=parameter_server --workers=2 --servers=2 -- --config=... --workdir=...

Arguments after `--` go to `train`. Parameter servers and workers write their logs to files. A process that is killed is
started again, and a coordinator resumes from its last checkpoint.
"""

import sys

from tfrs_dlrm.distribute.tf_config import JOBS
from tfrs_dlrm.programs.commands import process
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__, tensorflow=False, arguments="-- [flags of train]")
_STRATEGY = FLAGS.enum("strategy", "parameter_server", [*JOBS], "The strategy of the cluster.")
_WORKERS = FLAGS.integer("workers", 2, "How many workers.", least=1)
_SERVERS = FLAGS.integer("servers", 2, "For parameter_server: how many servers.", least=1)
_LOGS = FLAGS.string("logs", "runs/cluster-logs", "The directory for the logs of the processes in the background.")


def main(arguments: list[str]) -> None:
    """Starts the processes, and waits for them."""
    from tfrs_dlrm.distribute.local_cluster import LocalCluster

    strategy = _STRATEGY.value
    program = [*process("train"), f"--strategy={strategy}", *arguments]
    cluster = LocalCluster(strategy, _WORKERS.value, _SERVERS.value, program, _LOGS.value)
    for task in cluster.tasks:
        print(f"{task.name}: {'this terminal' if task is cluster.main else f'{_LOGS.value}/{task.name}.log'}")
    sys.exit(cluster.run(lambda line: print(line, file=sys.stderr)))
