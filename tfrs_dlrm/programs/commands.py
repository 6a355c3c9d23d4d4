"""The programs by name, and how to type a command that starts one of them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

# In the order of the data: the name of each subcommand, and the script that starts it in a checkout.
SCRIPTS = {
    "synthesize": "train/synthesize.py",
    "infer": "train/infer_schema.py",
    "prepare": "train/prepare.py",
    "profile": "train/profile.py",
    "plan": "train/plan.py",
    "train": "train/main.py",
    "update": "train/update.py",
    "backtest": "train/backtest.py",
    "evaluate": "train/evaluate.py",
    "calibrate": "train/calibrate.py",
    "explain": "train/explain.py",
    "report": "train/report.py",
    "compare": "train/compare.py",
    "cluster": "train/local_cluster.py",
    "input-service": "train/input_service.py",
    "export": "export/main.py",
    "verify": "export/verify.py",
    "serve": "export/serve.py",
    "join-labels": "export/join_labels.py",
    "doctor": "train/doctor.py",
    "kernels": "train/build_kernels.py",
}
_COMMAND = re.compile(rf"\btfrs-dlrm ({'|'.join(SCRIPTS)})\b(?!-)")


def module_name(program: str) -> str:
    """Returns the module of a program."""
    return f"tfrs_dlrm.programs.{program.replace('-', '_')}"


def command(program: str, *arguments: str) -> str:
    """Returns a line for a shell that starts a program the way this process was started.

    That is `python train/main.py ...` after a script of a checkout, and `tfrs-dlrm train ...` otherwise. Arguments are
    quoted where the shell needs it.
    """
    return " ".join([_start(program), *map(shlex.quote, arguments)])


def in_this_form(text: str) -> str:
    """Returns a message with each `tfrs-dlrm NAME` in it replaced by what starts NAME here; see `command`."""
    return _COMMAND.sub(lambda match: _start(match[1]), text)


def process(program: str) -> list[str]:
    """Returns the arguments of a new process that runs a program, by the interpreter and script of this process."""
    root = _checkout()
    if root is None:
        return [sys.executable, "-m", "tfrs_dlrm.cli", program]
    return [sys.executable, os.path.abspath(os.path.join(root, SCRIPTS[program]))]


def _start(program: str) -> str:
    root = _checkout()
    if root is not None:
        return f"{_typed('python', sys.executable)} {shlex.quote(os.path.join(root, SCRIPTS[program]))}"
    if os.path.basename(sys.argv[0]) == "tfrs-dlrm":
        return f"{_typed('tfrs-dlrm', sys.argv[0])} {program}"
    return f"tfrs-dlrm {program}"


def _checkout() -> str | None:
    """The folder of the script that started this process, as the user wrote it; None where no script did."""
    given, full = sys.argv[0], os.path.abspath(sys.argv[0])
    for script in SCRIPTS.values():
        if full.endswith(os.sep + script) and os.path.isfile(full):
            typed = given.removesuffix(script)
            return typed if typed != given else os.path.relpath(full.removesuffix(script))
    return None


def _typed(name: str, path: str) -> str:
    """Returns the name of a program if the shell finds it, else its path, relative where that is short."""
    found = shutil.which(name)
    if found and os.path.samefile(os.path.dirname(found), os.path.dirname(os.path.abspath(path))):
        return name
    here = Path.cwd()
    full = Path(os.path.abspath(path))
    return shlex.quote(str(full.relative_to(here) if full.is_relative_to(here) else full))
