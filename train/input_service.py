"""Input workers: processes that read, decode and shuffle training data for a trainer; see docs/input-service.md.

python train/input_service.py --workers=2                                          # one on this machine, for a trial
python train/input_service.py --role=dispatcher --port=5050                        # on one host of a cluster
python train/input_service.py --role=worker --dispatcher=HOST:5050 --host=NAME     # on each of the others
"""

import os
import sys

from absl import flags

from tfrs_dlrm import cli
from tfrs_dlrm.distribute.cluster import is_host_port

_ROLE = flags.DEFINE_enum(
    "role", "local", ["local", "dispatcher", "worker"], "All on this machine, or one of a cluster."
)
_WORKERS = flags.DEFINE_integer("workers", 2, "Of local: how many.", lower_bound=1)
_PORT = flags.DEFINE_integer("port", 0, "To listen at; 0 for one that is free.", lower_bound=0, upper_bound=65535)
_DISPATCHER = flags.DEFINE_string("dispatcher", "", "Of worker: HOST:PORT of the dispatcher.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Of worker: the name under which trainers reach this machine.")
_PARENT = flags.DEFINE_integer("parent", 0, "The process with which a dispatcher or worker ends; 0 for none.")


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


def local() -> int:
    """A dispatcher and workers on this machine, until they are told to end."""
    from tfrs_dlrm.data.reading.service.local import LocalService

    program = [sys.executable, os.path.abspath(__file__)]
    service = LocalService(_WORKERS.value, _PORT.value, program, lambda line: print(line, file=sys.stderr, flush=True))
    say(f"Input service with {_WORKERS.value} workers at grpc://{service.address} (Ctrl-C ends it). Next:")
    say(f"  python train/main.py --config.data.service=grpc://{service.address}")
    return service.run()


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    if _ROLE.value == "local":
        sys.exit(local())
    if _ROLE.value == "worker" and not is_host_port(_DISPATCHER.value):
        raise ValueError(f"--dispatcher={_DISPATCHER.value}: HOST:PORT of the dispatcher is needed")
    with cli.quiet():
        import tensorflow as tf

        from tfrs_dlrm.data.reading.service.server import run_dispatcher, run_worker

        tf.config.list_logical_devices()
    if _ROLE.value == "dispatcher":
        server = run_dispatcher(_PORT.value, say, _PARENT.value)
    else:
        server = run_worker(_DISPATCHER.value, _HOST.value, _PORT.value, say, _PARENT.value)
    cli.leave(0 if server else 1)


if __name__ == "__main__":
    cli.run(main, tensorflow=False)
