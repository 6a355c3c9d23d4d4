"""Starts a program: parses its flags, runs its `main`, and reports errors of the user in one line."""

from __future__ import annotations

import codecs
import contextlib
import glob
import importlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

# Before TensorFlow is loaded: its notes on CPU features and missing GPUs do not concern the user.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags, logging

from tfrs_dlrm.distribute.placement import STRATEGIES
from tfrs_dlrm.distribute.tf_config import JOBS, unused_cluster
from tfrs_dlrm.messages import cause
from tfrs_dlrm.programs.commands import command, in_this_form, module_name
from tfrs_dlrm.programs.program_flags import ProgramFlags, UsageError, wants_help
from tfrs_dlrm.programs.signals import Signals, ends_by_signal

# The exit code of `update` if the new model is worse than the current one, which stays.
EXIT_REJECTED = 3


class Leave(SystemExit):
    """Ends the process at once, without waiting for TensorFlow's threads, which may wait for a lost server."""


def run(program: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a program and ends the process with its exit code; see `call`.

    Args:
      program: the name of a subcommand of `tfrs-dlrm`.
      arguments: its command line without the first word; by default the one of this process.
    """
    _in_utf8()
    try:
        code = _execute(program, sys.argv[1:] if arguments is None else arguments, alone=True)
    except Leave as e:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(e.code or 0))
    sys.exit(code)


def _in_utf8() -> None:
    """Lets this process take and print all texts; in an ASCII locale it starts again, in Python's UTF-8 mode.

    File names are UTF-8 nearly everywhere, and TensorFlow takes no others. For LC_ALL=C, Python itself chooses UTF-8
    unless PYTHONUTF8=0 forbids it.
    """
    if codecs.lookup(sys.getfilesystemencoding()).name == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, "PYTHONUTF8": "1"})
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def call(program: str, arguments: Sequence[str] = ()) -> int:
    """Runs a program in this process and returns its exit code: 0, 1 after an error, 2 for a wrong command line.

    After Ctrl-C it is 130, and after SIGTERM 143; 75 if a parameter server was lost, and 3 (`EXIT_REJECTED`) if
    `update` leaves the new model out.

    Each program keeps its flags in its module, apart from absl's global flags. A call resets them to their defaults,
    reads the recipe again and restores the verbosity of the log, so that calls do not influence each other. State of
    TensorFlow (devices, random seeds) is shared. `serve` and `input-service` return only after a signal.
    """
    verbosity = logging.get_verbosity()
    try:
        return _execute(program, arguments)
    except Leave as e:
        return int(e.code or 0)
    finally:
        logging.set_verbosity(verbosity)


def define_strategy(program: ProgramFlags, trains: bool = False) -> Callable[[], Any]:
    """Defines --strategy, --devices and --tpu; returns a function that makes the strategy that they name.

    If `--strategy=tpu` finds no TPU, or TF_CONFIG does not fit the strategy, the program ends before TensorFlow is
    loaded, which might crash or wait. A worker or parameter server of a cluster serves and does not call `main`.

    Args:
      program: the flags.
      trains: whether processes that do not know of each other would spoil the output.
    """
    strategy = program.enum("strategy", "one_device", STRATEGIES, "Where to train; see docs/guides/strategies.md.")
    devices = program.integer("devices", 0, "For mirrored: how many GPUs (0: all) or logical CPUs.", least=0)
    tpu = program.string("tpu", "local", "For tpu: local, the NAME of a Cloud TPU, or grpc://HOST:PORT.")

    def look_around() -> None:
        if strategy.value == "tpu":
            from tfrs_dlrm.tools.doctor import check_tpu

            check_tpu(tpu.value)
        if strategy.value in JOBS:
            from tfrs_dlrm.distribute import cluster

            job = cluster.job_in_tf_config(strategy.value)
            if strategy.value == "parameter_server" and job != "chief":
                cluster.serve()
        elif trains and strategy.value in ("one_device", "mirrored"):
            unused = unused_cluster(os.environ.get("TF_CONFIG", ""), strategy.value)
            if unused:
                raise ValueError(unused)

    def make() -> Any:
        from tfrs_dlrm.distribute import cluster
        from tfrs_dlrm.distribute.strategies import make_strategy

        if strategy.value == "parameter_server":
            cluster.wait_for_others(lambda line: print(line, file=sys.stderr, flush=True))
        with quiet():
            return make_strategy(strategy.value, devices.value, tpu.value)

    program.before.append(look_around)
    program.chooses_devices = True
    return make


def _execute(name: str, arguments: Sequence[str], alone: bool = False) -> int:
    """Returns the exit code of a program, which may have the process for itself."""
    program = importlib.import_module(module_name(name))
    defined: ProgramFlags = program.FLAGS
    if wants_help(arguments):
        print(in_this_form(defined.help(command(name))))
        return 0
    try:
        given = defined.parse([name, *arguments])
    except UsageError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # absl's log warns otherwise
    logging.use_absl_handler()
    logging.set_verbosity(defined.verbosity.value)

    def say(signals: Signals) -> None:
        print(f"Stopped by {signals.name}. {in_this_form(defined.stopped())}".rstrip(), file=sys.stderr, flush=True)

    def stuck(signals: Signals) -> None:
        say(signals)
        os._exit(signals.exit_code)

    with ends_by_signal(stuck) as signals:
        try:
            for step in defined.before:
                step()
            if defined.tensorflow:
                _load_tensorflow(defined, alone)
            program.main(*([given] if defined.arguments else []))
            return 0
        except Leave:
            raise
        except SystemExit as e:
            return int(e.code or 0)
        except (Exception, KeyboardInterrupt) as e:
            # Libraries in which the signal arrives may make an error of their own of it.
            if not signals.number and not isinstance(e, KeyboardInterrupt):
                return _exit_code(e)
            say(signals)
            raise Leave(signals.exit_code) from None  # without waiting for threads in the middle of something


def _exit_code(error: Exception) -> int:
    """Reports an error of the user in one line; raises all others."""
    known = (ValueError, OSError, ArithmeticError, ImportError)
    if not isinstance(error, known) and not type(error).__module__.startswith(("tensorflow", "duckdb", "_duckdb")):
        raise error
    return _failed(cause(error), error)


def _failed(message: str, error: Exception) -> int:
    if logging.get_verbosity() >= logging.DEBUG:
        raise error
    print(f"error: {in_this_form(message)}", file=sys.stderr)
    return 1


def _load_tensorflow(program: ProgramFlags, alone: bool) -> None:
    if "tensorflow" in sys.modules:
        return
    with quiet():
        with _without_scipy() if alone else contextlib.nullcontext():
            import tensorflow as tf

            import tfrs_dlrm.models  # noqa: F401

        if not program.chooses_devices:
            tf.config.list_logical_devices()


@contextlib.contextmanager
def _without_scipy() -> Iterator[None]:
    """Makes imports of SciPy fail, as if it was not installed, unless it is loaded already.

    Keras imports it while it loads, only to turn and shear images, which no program does. It takes 0.25 s.
    """
    if "scipy" in sys.modules:
        yield
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["scipy"]


# What TensorFlow reports while it is loaded on every machine without a GPU.
_NOISE = (
    b"oneDNN custom operations",
    b"cudart_stub",
    b"All log messages before absl",
    b"cuda_platform",
    b"cpu_feature",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Removes the lines of `_NOISE` from standard error, on a machine without a GPU."""
    if glob.glob("/dev/nvidia*"):
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            captured.seek(0)
            kept = [line for line in captured if not any(noise in line for noise in _NOISE)]
            sys.stderr.write(b"".join(kept).decode("utf-8", "replace"))
