"""Starts input workers: processes that read, decode and shuffle training data for a trainer.

    tfrs-dlrm input-service --workers=2                                       # all on this machine, for a trial
    tfrs-dlrm input-service --role=dispatcher --port=5050                     # on one host of a cluster
    tfrs-dlrm input-service --role=worker --dispatcher=HOST:5050 --host=NAME  # on each other host

See docs/guides/input-service.md.
"""

import sys

from tfrs_dlrm.distribute.tf_config import is_host_port
from tfrs_dlrm.programs.commands import command, process
from tfrs_dlrm.programs.launch import Leave, quiet
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__, tensorflow=False)
_ROLE = FLAGS.enum(
    "role", "local", ["local", "dispatcher", "worker"], "A service on this machine, or one process of a cluster."
)
_WORKERS = FLAGS.integer("workers", 2, "For local: how many workers.", least=1)
_PORT = FLAGS.integer("port", 0, "The port to listen on; 0 for a free one.", least=0, most=65535)
_DISPATCHER = FLAGS.string("dispatcher", "", "For worker: HOST:PORT of the dispatcher.")
_HOST = FLAGS.string("host", "127.0.0.1", "For worker: the name under which trainers reach this machine.")
_PARENT = FLAGS.integer("parent", 0, "The process with which a dispatcher or worker ends; 0 for none.")


def main() -> None:
    """Runs the service until it is told to end."""
    if _ROLE.value == "local":
        sys.exit(_run_local())
    if _ROLE.value == "worker" and not is_host_port(_DISPATCHER.value):
        raise ValueError(f"--dispatcher={_DISPATCHER.value}: HOST:PORT of the dispatcher is needed")
    with quiet():
        import tensorflow as tf

        from tfrs_dlrm.data.reading.service.server import run_dispatcher, run_worker

        tf.config.list_logical_devices()
    if _ROLE.value == "dispatcher":
        server = run_dispatcher(_PORT.value, _say, _PARENT.value)
    else:
        server = run_worker(_DISPATCHER.value, _HOST.value, _PORT.value, _say, _PARENT.value)
    raise Leave(0 if server else 1)


def _say(line: str) -> None:
    print(line, flush=True)


def _run_local() -> int:
    """Runs a dispatcher and workers on this machine until a signal; returns the exit code."""
    from tfrs_dlrm.data.reading.service.local import LocalService

    service = LocalService(
        _WORKERS.value, _PORT.value, process("input-service"), lambda line: print(line, file=sys.stderr, flush=True)
    )
    _say(f"Input service with {_WORKERS.value} workers at grpc://{service.address} (Ctrl-C ends it). Next:")
    _say(f"  {command('train', f'--config.data.service=grpc://{service.address}')}")
    return service.run()
