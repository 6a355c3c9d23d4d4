"""The command `tfrs-dlrm`: one program of `tfrs_dlrm/programs` per subcommand."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.programs import launch
from tfrs_dlrm.programs.commands import SCRIPTS, module_name

_HELP = """\
Trains ranking models on logs, and exports them for TF Serving.

Usage: tfrs-dlrm NAME [flags]

{programs}

Without data, begin with: tfrs-dlrm train
With a log, begin with:   tfrs-dlrm infer --input=LOG --output=SCHEMA.json
Each program ends with the command that comes next. `tfrs-dlrm NAME --help` lists the flags of a program."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the program that the first argument names, and ends the process with its exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--help", "-h", "help"):
        print(_HELP.format(programs=_programs()))
        sys.exit(0)
    if name not in SCRIPTS:
        hint = did_you_mean(name, SCRIPTS, 1) or "tfrs-dlrm --help lists the programs"
        print(f"error: tfrs-dlrm has no program {name!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    launch.run(name, rest)


def _programs() -> str:
    width = max(map(len, SCRIPTS))
    lines = []
    for name in SCRIPTS:
        text = importlib.import_module(module_name(name)).FLAGS.text
        lines.append(f"  {name:{width}}  {text.splitlines()[0]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
