"""Compiles the kernels, and finds what was compiled for this machine, this TensorFlow and this source."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrs_dlrm.stores.cache import cache_directory

SWITCH = "TFRS_DLRM_KERNELS"
_SOURCE = Path(__file__).with_name("tables.cc")
# Without fast math: sums keep their order, and NaN stays NaN.
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-w", "-shared", "-fPIC")


def path() -> Path:
    """Returns where the kernels of this machine are kept, whether they were built or not.

    That is a file in `TFRS_DLRM_CACHE`, by default `~/.cache/tfrs_dlrm`, named after TensorFlow's version and a hash of
    the source, the processor's abilities and the flags of the compiler: kernels that would not run are not found.
    """
    parts = [
        _SOURCE.read_bytes(),
        _processor(),
        *(f.encode() for f in (*_FLAGS, *tf.sysconfig.get_compile_flags()[1:])),
    ]
    fingerprint = hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
    return Path(cache_directory()) / "kernels" / f"tables-{tf.__version__}-{fingerprint}.so"


def build(compiler: str | None = None) -> Path:
    """Compiles the kernels, which takes ten seconds, and returns their file. Models that are compiled later use them.

    Args:
      compiler: of C++17; by default the variable CXX or, if it is not set, `c++`.

    Raises:
      RuntimeError: there is no compiler, or it fails.
    """
    command = shlex.split(compiler or os.environ.get("CXX") or "c++")
    if shutil.which(command[0]) is None:
        raise RuntimeError(
            f"no C++ compiler {command[0]!r} is found; install one, such as the package g++, or name it in CXX. Without"
            " the kernels, training does the same in TensorFlow's operations"
        )
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = os.path.join(scratch, target.name)
        flags = [*_FLAGS, *tf.sysconfig.get_compile_flags()]
        arguments = [*command, *flags, str(_SOURCE), "-o", made, *tf.sysconfig.get_link_flags()]
        result = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(
                f"the compiler failed with exit code {result.returncode}: {shlex.join(arguments)}\n"
                f"{result.stderr.strip()[-2000:]}"
            )
        os.replace(made, target)
    return target


def find() -> Any:
    """Returns the module of the kernels' operations; None if they were not built, or TFRS_DLRM_KERNELS is 0."""
    switch = os.environ.get(SWITCH, "1")
    if switch not in ("0", "1"):
        raise ValueError(
            f"{SWITCH}={switch!r}: set it to 0, for TensorFlow's operations, or 1, for the kernels if built"
        )
    found = path()
    return _load(str(found)) if switch == "1" and found.is_file() else None


@functools.cache
def _load(file: str) -> Any:
    return tf.load_op_library(file)


@functools.cache
def _processor() -> bytes:
    """Returns what tells whether code for this processor runs on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    of_flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    of_model = next((line for line in lines if line.startswith("model name")), "")  # -march=native tunes for it
    return f"{platform.machine()} {of_model} {of_flags}".encode()
