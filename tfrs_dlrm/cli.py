"""What the programs in train/ and export/ share: errors of the user end in one line, not in a traceback."""

from __future__ import annotations

import dataclasses
import difflib
import glob
import os
import sys
import tempfile
from collections.abc import Callable, Sequence

# Before TensorFlow is loaded: its notes on CPU features and missing GPUs are not about what the user asked for.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging
from ml_collections import config_flags

from tfrs_dlrm.config import RunConfig

_DEFAULT_CONFIG: list[str] = []


def define_config(default: str) -> flags.FlagHolder:
    """Defines --config, a recipe in Python, and --config.SECTION.FIELD=VALUE, which changes one field of it."""
    # As the flag's own default it would be read here, where errors in --config.* cannot be reported properly.
    _DEFAULT_CONFIG.append(default)
    text = f"A recipe (default: {os.path.relpath(default)}). --config.SECTION.FIELD=VALUE changes one field of it."
    return config_flags.DEFINE_config_file("config", None, text)


def config_name() -> str:
    """The name of the recipe: its file name without the ending."""
    return os.path.basename(config_flags.get_config_filename(flags.FLAGS["config"])).removesuffix(".py")


def run(main: Callable[[list[str]], None], tensorflow: bool = True, arguments: bool = False) -> None:
    """Parses flags, calls `main`, and turns its errors into `error: MESSAGE` on standard error and exit code 1.

    `--verbosity=1` shows the traceback as well.

    Args:
      main: takes the arguments that are no flags.
      tensorflow: whether it needs TensorFlow, which takes seconds to load.
      arguments: whether it takes arguments that are no flags.
    """

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1 and not arguments:
            raise app.UsageError(f"unknown argument {argv[1]!r}; arguments look like --name=value")
        if tensorflow:
            _load_tensorflow()
        try:
            main(argv)
        except (ValueError, OSError, ArithmeticError) as e:
            _fail(str(e), e)
        except Exception as e:
            if not type(e).__module__.startswith(("tensorflow", "duckdb", "_duckdb")):
                raise
            # An error in the input pipeline comes wrapped: its own message is the first line.
            _fail(str(e).split("\n", 1)[0], e)

    app.run(guarded, flags_parser=_parse_flags)


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
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                return f"{where} has no field {name!r}; {hint}It has {', '.join(known) or 'none'}"
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
    """Imports TensorFlow and finds the devices, without the lines of `_NOISE` on a machine with no GPU."""
    if glob.glob("/dev/nvidia*"):
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            import tensorflow as tf

            import tfrs_dlrm.models  # noqa: F401

            tf.config.list_logical_devices()
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
