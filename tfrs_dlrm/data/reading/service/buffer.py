"""Puts blocks in order, which arrive in any order, and may be late, repeated or lost."""

from __future__ import annotations

import threading
import time

from tfrs_dlrm.data.reading.service.worker_graph import LOST, REFUSED, WindowBlock

# Bytes of all blocks that wait for their turn: a dozen windows of Criteo rows.
CAPACITY = 1 << 30
# After a worker falls silent, the next windows are given up sooner: for this multiple of the patience.
_REMEMBER = 6


class ReorderBuffer:
    """A buffer between the thread that receives blocks and the thread that takes them in order.

    Each worker sends its items in ascending order, and the blocks of each item in ascending order.

    Args:
      first: the first item that will come.
      patience: seconds to wait for a block before its window counts as lost.
      capacity: bytes at which `put` waits, except with the block that is needed next.
    """

    def __init__(self, first: int, patience: float, capacity: int = CAPACITY):
        self._first, self._patience, self._capacity = first, patience, capacity
        self._changed = threading.Condition()
        self._blocks: dict[tuple[int, int], bytes] = {}
        self._bytes = 0
        self._needed = (first, 0)
        self._sent: dict[str, int] = {}  # by worker, the last item of which something came
        self._heard = self._heard_needed = self._fell_silent = 0.0  # when
        self._hasty_until = 0.0
        self._unread: dict[int, str] = {}
        self._refused = self._over = ""
        self._silent = self._closed = False
        self._reason = ""
        self.late = 0

    @property
    def reason(self) -> str:
        """The reason why the last `take` returned nothing."""
        return self._reason

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def away(self) -> bool:
        """Whether the service seems to be gone."""
        return self._silent or bool(self._over)

    @property
    def useless(self) -> bool:
        """Whether blocks that still come are no longer needed, so that the service should be asked again."""
        return bool(self._over) or (self._silent and self._heard > self._fell_silent)

    def put(self, block: WindowBlock) -> bool:
        """Adds a block unless it is late or repeated; returns False if no more are wanted."""
        key = (block.item, block.number)
        with self._changed:
            self._heard = time.monotonic()
            self._sent[block.worker] = block.item
            if block.item == self._needed[0]:
                self._heard_needed = self._heard
            if block.number == REFUSED:
                self._refused = f"input worker {block.worker}: {block.data.decode(errors='replace')}"
                self._changed.notify_all()
                return False
            elif block.number == LOST:
                self._unread[block.item] = f"input worker {block.worker}: {block.data.decode(errors='replace')}"
            else:
                while self._full and key > self._needed and not self._closed:
                    self._changed.wait()
                if key < self._needed or key in self._blocks:
                    self.late += 1
                elif not self._closed:
                    self._blocks[key] = block.data
                    self._bytes += len(block.data)
                    self._silent = False
            self._changed.notify_all()
            return not self._closed

    def end(self, reason: str) -> None:
        """Tells that no more blocks will come, and why."""
        with self._changed:
            self._over = reason
            self._changed.notify_all()

    def close(self) -> None:
        """Tells that no more blocks will be taken."""
        with self._changed:
            self._closed = True
            self._blocks.clear()
            self._changed.notify_all()

    def take(self, item: int, number: int) -> bytes | None:
        """Waits for a block and returns it; None if it seems to be lost. Ask for blocks in ascending order.

        Raises:
          ValueError: a worker refuses the request.
        """
        with self._changed:
            self._forget_before((item, number))
            begun = time.monotonic()
            while (item, number) not in self._blocks:
                if self._closed:
                    return None
                if self._refused:
                    raise ValueError(self._refused)
                self._reason = self._why_lost(item, begun)
                if self._reason:
                    return None
                self._changed.wait(min(0.1, self._patience))
            data = self._blocks.pop((item, number))
            self._bytes -= len(data)
            self._needed = (item, number + 1)
            self._changed.notify_all()
            return data

    @property
    def _full(self) -> bool:
        return self._bytes >= self._capacity

    def _forget_before(self, key: tuple[int, int]) -> None:
        self._needed = key
        for old in [k for k in self._blocks if k < key]:
            self._bytes -= len(self._blocks.pop(old))
            self.late += 1
        self._unread = {item: why for item, why in self._unread.items() if item >= key[0]}
        self._changed.notify_all()

    def _why_lost(self, item: int, begun: float) -> str:
        now = time.monotonic()
        if self._over:
            return self._over
        if item < self._first:
            return "the service was asked for later windows only"
        if item in self._unread:
            return self._unread[item]
        if self._silent:
            return "no input worker sends anything"
        if self._full:
            return f"{self._bytes >> 20} MiB of other blocks arrived first"
        if now < self._hasty_until and self._sent and min(self._sent.values()) > item:
            return "all remaining input workers have passed it"
        if now - max(begun, self._heard_needed) < self._patience:
            return ""
        # A worker that sent nothing all this time may be dead: do not wait as long for its other items.
        self._silent, self._fell_silent = self._heard < begun, now
        self._hasty_until = now + _REMEMBER * self._patience
        self._sent = {} if self._silent else {w: i for w, i in self._sent.items() if i > item}
        return f"it did not come within {self._patience:g} seconds"
