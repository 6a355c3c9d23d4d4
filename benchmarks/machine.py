"""What the numbers were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess

_PACKAGES = ["numpy", "tensorflow", "tf-keras", "tensorflow-recommenders", "torch"]
_PACKAGES += ["fbgemm-gpu-cpu", "keras", "keras-rs", "pyarrow"]


def machine() -> dict:
    """The processor, memory, load by others (where this is called before any work), versions and commit."""
    with open("/proc/cpuinfo") as f:
        lines = f.read().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    with open("/proc/meminfo") as f:
        total = int(f.readline().split()[1]) * 1024
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "simd": [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags],
        "memory_bytes": total,
        "load": os.getloadavg()[0],
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        here = os.path.dirname(os.path.abspath(__file__))
        shown = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
        return shown.stdout.strip() or None
    except OSError:
        return None


def describe(m: dict) -> str:
    """One line."""
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in m["packages"].items())
    simd = f" ({', '.join(m['simd'])})" if m["simd"] else ""
    memory = m["memory_bytes"] / 2**30
    return f"{m['cpu']}{simd}, {m['cores']} cores, {memory:.0f} GiB; Python {m['python']}, {versions}; {m['commit']}"
