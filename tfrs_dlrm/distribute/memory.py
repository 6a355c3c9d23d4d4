"""The free memory of a machine, or of its container."""

from __future__ import annotations

from collections.abc import Callable

_GROUP = "/sys/fs/cgroup/"  # in a container, that of the container


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return ""


def available_memory(read: Callable[[str], str] = _read) -> int | None:
    """Returns the bytes that programs can still take; None if the system does not say so, as outside of Linux.

    Args:
      read: returns the content of a file of the machine, empty if the file is missing.
    """
    machine = _numbers(read("/proc/meminfo")).get("MemAvailable:")
    if machine is None:
        return None
    limit = read(_GROUP + "memory.max").strip()
    if not limit.isdecimal():  # no limit: the file is missing, or says "max"
        return machine * 1024
    used = _numbers(read(_GROUP + "memory.stat"))
    # Without cached files, which give way.
    left = int(limit) - used.get("anon", 0) - used.get("shmem", 0) - used.get("kernel", 0)
    return max(0, min(machine * 1024, left))


def memory_of_host(host: str) -> int:
    """Returns the bytes that programs on a host can still take; 0 if it does not say so.

    Args:
      host: a CPU by TensorFlow's name, perhaps of another machine.
    """
    import tensorflow as tf  # here: programs that load no TensorFlow ask for the memory of their machine

    def read(path: str) -> str:
        try:
            with tf.device(host):  # the ops run on that machine, and read its file
                if tf.size(tf.io.matching_files(path)):  # for a missing file TensorFlow would print a warning
                    return tf.io.read_file(path).numpy().decode()
                return ""
        except tf.errors.OpError:
            return ""

    return available_memory(read) or 0


def _numbers(text: str) -> dict[str, int]:
    lines = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}
