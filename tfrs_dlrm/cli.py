"""What the programs in train/ and export/ share: errors of the user end in one line, not in a traceback."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

# Before TensorFlow is loaded: its notes on CPU features and missing GPUs are not about what the user asked for.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging
from ml_collections import config_flags

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.distribute.placement import STRATEGIES
from tfrs_dlrm.schema.suggestions import did_you_mean

_DEFAULT_CONFIG: list[str] = []
# What to do once the flags are parsed and before TensorFlow is loaded.
_BEFORE_TENSORFLOW: list[Callable[[], None]] = []


def define_config(default: str) -> flags.FlagHolder:
    """Defines --config, a recipe in Python, and --config.SECTION.FIELD=VALUE, which changes one field of it."""
    # As the flag's own default it would be read here, where errors in --config.* cannot be reported properly.
    _DEFAULT_CONFIG.append(default)
    text = f"A recipe (default: {os.path.relpath(default)}). --config.SECTION.FIELD=VALUE changes one field of it."
    return config_flags.DEFINE_config_file("config", None, text)


def config_name() -> str:
    """The name of the recipe: its file name without the ending."""
    return os.path.basename(config_flags.get_config_filename(flags.FLAGS["config"])).removesuffix(".py")


def define_strategy() -> Callable[[], Any]:
    """Defines --strategy, --devices and --tpu; returns what makes the strategy that they name.

    `run` then ends with a message where there is no TPU, before TensorFlow is loaded, which might crash; and in a
    worker or parameter server of a cluster it serves, and calls no `main`.
    """
    strategy = flags.DEFINE_enum("strategy", "one_device", STRATEGIES, "Where to compute; see docs/strategies.md.")
    devices = flags.DEFINE_integer("devices", 0, "Of mirrored: so many GPUs (0: all), or logical CPUs.", lower_bound=0)
    tpu = flags.DEFINE_string("tpu", "local", "Of tpu: local, the NAME of a Cloud TPU, or grpc://HOST:PORT.")

    def look_around() -> None:
        if strategy.value == "tpu":
            from tfrs_dlrm.tools.doctor import check_tpu

            check_tpu(tpu.value)
        if strategy.value == "parameter_server":
            from tfrs_dlrm.distribute import cluster

            own = cluster.task()
            if own and own[0] in ("worker", "ps"):
                cluster.serve()

    _BEFORE_TENSORFLOW.append(look_around)

    def make() -> Any:
        from tfrs_dlrm.distribute import cluster
        from tfrs_dlrm.distribute.strategies import make_strategy

        if strategy.value == "parameter_server" and cluster.task():
            cluster.wait_for_others(lambda line: print(line, file=sys.stderr, flush=True))
        with quiet():
            return make_strategy(strategy.value, devices.value, tpu.value)

    return make


def run(
    main: Callable[[list[str]], None],
    tensorflow: bool = True,
    arguments: bool = False,
    before: Callable[[], None] | None = None,
) -> None:
    """Parses flags, calls `main`, and turns its errors into `error: MESSAGE` on standard error and exit code 1.

    `--verbosity=1` shows the traceback as well.

    Args:
      main: takes the arguments that are no flags.
      tensorflow: whether it needs TensorFlow, which takes seconds to load.
      arguments: whether it takes arguments that are no flags.
      before: called once the flags are parsed, before TensorFlow is loaded; its errors end the program likewise.
    """

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1 and not arguments:
            raise app.UsageError(f"unknown argument {argv[1]!r}; arguments look like --name=value")
        try:
            for step in [before, *_BEFORE_TENSORFLOW]:
                if step:
                    step()
            if tensorflow:
                with quiet():
                    _load_tensorflow()
            main(argv)
        except (ValueError, OSError, ArithmeticError, ImportError) as e:
            _fail(str(e), e)
        except Exception as e:
            if not type(e).__module__.startswith(("tensorflow", "duckdb", "_duckdb")):
                raise
            # An error in the input pipeline comes wrapped: its own message is the first line.
            _fail(str(e).split("\n", 1)[0], e)

    app.run(guarded, flags_parser=_parse_flags)


def leave(code: int) -> NoReturn:
    """Ends the process at once, without the goodbyes of TensorFlow's threads, which wait for what is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _parse_flags(argv: list[str]) -> list[str]:
    if _DEFAULT_CONFIG and not any(a == "--config" or a.startswith("--config=") for a in argv):
        argv = [argv[0], f"--config={_DEFAULT_CONFIG[0]}", *argv[1:]]
    try:
        rest = flags.FLAGS(argv)
        verbosity = flags.FLAGS["verbosity"]
        if verbosity.using_default_value:
            verbosity.value = logging.WARNING
            verbosity.using_default_value = False  # or absl raises it to INFO
        return rest
    except flags.Error as e:
        message = f"{e}; --help lists the flags"
    except Exception as e:  # config_flags lets through whatever a recipe or a conversion raises
        message = _unknown_field(argv) or f"--config: {str(e).strip()}"
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _unknown_field(argv: Sequence[str]) -> str:
    """Names the first --config.SECTION.FIELD that does not exist, and what does."""
    for argument in argv:
        if not argument.startswith("--config."):
            continue
        path, holder = argument.removeprefix("--config.").split("=")[0].split("."), RunConfig
        for depth, name in enumerate(path):
            known = {f.name: f.type for f in dataclasses.fields(holder)} if dataclasses.is_dataclass(holder) else {}
            if name not in known:
                where = ".".join(["config", *path[:depth]])
                hint = " ".join(filter(None, [did_you_mean(name, known, 1), f"It has {', '.join(known) or 'none'}"]))
                return f"{where} has no field {name!r}; {hint}"
            holder = known[name]  # type: ignore[assignment]
    return ""


# What TensorFlow says on every machine without a GPU, and of its own number formats, while it is loaded.
_NOISE = (
    b"oneDNN custom operations",
    b"cudart_stub",
    b"All log messages before absl",
    b"cuda_platform",
    b"cpu_feature",
)


def _load_tensorflow() -> None:
    import tensorflow as tf

    import tfrs_dlrm.models  # noqa: F401

    if not _BEFORE_TENSORFLOW:  # a strategy still has a say in what the devices are
        tf.config.list_logical_devices()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leaves the lines of `_NOISE` out of what is written to standard error inside, on a machine with no GPU."""
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
            rest = [line for line in captured if not any(noise in line for noise in _NOISE)]
            sys.stderr.write(b"".join(rest).decode("utf-8", "replace"))


def _fail(message: str, error: Exception) -> None:
    if logging.get_verbosity() >= logging.DEBUG:
        raise error
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
