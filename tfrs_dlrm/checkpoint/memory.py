"""Whether a copy of tables and slots fits beside them."""

from __future__ import annotations

import tensorflow as tf

_GROUP = "/sys/fs/cgroup/"  # of a container, its own


def available(host: str) -> int:
    """The bytes that programs on a host can still take; 0 where it does not say so, as outside of Linux.

    Args:
      host: a CPU by TensorFlow's name, perhaps of another machine.
    """
    machine = _numbers(host, "/proc/meminfo").get("MemAvailable:", 0) * 1024
    limit = _read(host, _GROUP + "memory.max").strip()
    if not limit.isdecimal():  # there is none, or it is "max"
        return machine
    used = _numbers(host, _GROUP + "memory.stat")
    # Not the files that its programs have read or written: they give way.
    return max(0, min(machine, int(limit) - used.get("anon", 0) - used.get("shmem", 0) - used.get("kernel", 0)))


def _numbers(host: str, path: str) -> dict[str, int]:
    lines = (line.split() for line in _read(host, path).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdecimal()}


def _read(host: str, path: str) -> str:
    try:
        with tf.device(host):  # there the op runs, and reads that machine's file
            return tf.io.read_file(path).numpy().decode()
    except tf.errors.OpError:
        return ""
