"""How much memory this machine has left."""

from __future__ import annotations

_MEMINFO = "/proc/meminfo"


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        with open(_MEMINFO, encoding="ascii") as f:
            lines = dict(line.split(":", 1) for line in f)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
