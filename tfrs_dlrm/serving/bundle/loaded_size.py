"""How much memory a version takes once it is loaded, as far as its files tell."""

from __future__ import annotations

import os

# Measured in TensorFlow's C++ runtime: variables take their bytes. An entry of a lookup table takes 66 bytes with its
# text, which is stored apart, twice at worst, if it is longer than 22 bytes.
_PER_LINE, _INLINE_TEXT, _PER_BYTE_OF_LONG_TEXT = 66, 22, 2
_RUNTIME = 64 << 20  # the graph, the session, and what runs need
_CHUNK_BYTES = 1 << 22


def bytes_when_loaded(path: str) -> int:
    """Returns about how many bytes a server takes for the version at `path`, in addition to what it has.

    Raises:
      OSError: a file cannot be read.
    """
    variables = sum(os.path.getsize(file) for file in _files(os.path.join(path, "variables")))
    return _RUNTIME + variables + sum(map(_lookup_bytes, _files(os.path.join(path, "assets"))))


def megabytes(size: int) -> str:
    """Returns a size as `1,234 MB`, rounded up."""
    return f"{-(-size // 10**6):,} MB"


def _files(directory: str) -> list[str]:
    return [os.path.join(folder, name) for folder, _, names in os.walk(directory) for name in names]


def _lookup_bytes(vocabulary: str) -> int:
    size, lines = os.path.getsize(vocabulary), 0
    with open(vocabulary, "rb") as f:
        while chunk := f.read(_CHUNK_BYTES):
            lines += chunk.count(b"\n")
    long_text = size - lines > lines * _INLINE_TEXT
    return lines * _PER_LINE + (_PER_BYTE_OF_LONG_TEXT * size if long_text else 0)
