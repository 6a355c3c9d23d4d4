"""How much memory a machine, or its container, has left."""

from __future__ import annotations

from collections.abc import Callable

_GROUP = "/sys/fs/cgroup/"  # of a container, its own


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return ""


def available_memory(read: Callable[[str], str] = _read) -> int | None:
    """The bytes that programs can still take; None where the system does not say so, as outside of Linux.

    Args:
      read: the content of a file of the machine in question, empty where there is none.
    """
    machine = _numbers(read("/proc/meminfo")).get("MemAvailable:")
    if machine is None:
        return None
    limit = read(_GROUP + "memory.max").strip()
    if not limit.isdecimal():  # there is none, or it is "max"
        return machine * 1024
    used = _numbers(read(_GROUP + "memory.stat"))
    # Not the files that its programs have read or written: they give way.
    left = int(limit) - used.get("anon", 0) - used.get("shmem", 0) - used.get("kernel", 0)
    return max(0, min(machine * 1024, left))


def _numbers(text: str) -> dict[str, int]:
    lines = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}
