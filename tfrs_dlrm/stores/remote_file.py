"""An object as a file that pyarrow reads."""

from __future__ import annotations

import io
from typing import Any

from tfrs_dlrm.stores.errors import StoreError
from tfrs_dlrm.stores.store import Store
from tfrs_dlrm.stores.urls import join, split_object

# Parquet asks for small pieces, such as a footer's length, and each request is slow.
_AT_LEAST = 1 << 20


class RemoteFile(io.RawIOBase):
    """A seekable, read-only file over an object. A piece that fails is read again alone.

    Args:
      address: the URL of the object.

    Raises:
      FileNotFoundError: the object does not exist.
      StoreError: the store cannot be reached or refuses, or the object changed while it was read.
    """

    def __init__(self, address: str):
        super().__init__()
        base, self._name = split_object(address)
        self._store = Store(base)
        found = self._store.find(self._name)
        if found is None:
            raise FileNotFoundError(f"{address}: the object does not exist")
        self._found, self._position = found, 0
        self._start, self._piece = 0, b""
        self._tag: tuple[int, Any] | None = None

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position, as with any file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._found.bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Reads the next bytes, fewer than `size` only at the end."""
        left = max(0, self._found.bytes - self._position)
        size = left if size < 0 else min(size, left)
        if size == 0:
            return b""
        begin = self._position - self._start
        if begin < 0 or begin + size > len(self._piece):
            wanted = min(max(size, _AT_LEAST), left)
            self._piece, tag = self._store.read_at(self._name, self._position, wanted)
            self._start, begin, self._tag = self._position, 0, self._tag or tag
            if tag != self._tag or tag[0] != self._found.bytes:
                where = join(self._store.address, self._name)
                raise StoreError(f"{where}: overwritten while it was read; run the same command again")
        self._position += size
        return self._piece[begin : begin + size]

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Reads into a buffer, as with any file."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
