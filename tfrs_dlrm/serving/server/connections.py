"""A listening socket whose open connections are bounded, below the limit of file descriptors.

asyncio accepts whatever comes. Without descriptors left, it logs a traceback for each of 2,048 attempts, and nobody is
answered. Here the connection that has waited longest for its client makes room for a new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import socket
from typing import Any

from absl import logging

from tfrs_dlrm.messages.log_rate import LogRate

_MOST_CLOSING = 64  # connections that were told to close and still have their descriptors
_SPARE = 256  # descriptors for files, TensorFlow and gRPC's own
_MOST = 2000  # each connection takes memory as well


def most_connections() -> int:
    """Returns how many connections each of REST and gRPC may have, by the process's limit of descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(16, min(_MOST, (soft - _SPARE) // 2))


class Connections:
    """The open connections of one listening socket, by descriptor.

    Args:
      most: of them.
    """

    def __init__(self, most: int):
        self.most = most
        self._open: dict[int, _Connection] = {}
        self._waiting: dict[int, _Connection] = {}  # for their clients; the longest first
        self._closing: set[int] = set()

    def __len__(self) -> int:
        """Returns how many are open."""
        return len(self._open)

    def busy(self, descriptor: int) -> None:
        """Says that the server works on an answer: the connection stays."""
        self._waiting.pop(descriptor, None)

    def waiting(self, descriptor: int) -> None:
        """Says that the client has to do something: the connection may be closed for others."""
        if descriptor in self._open and descriptor not in self._closing:
            self._waiting.setdefault(descriptor, self._open[descriptor])

    def crowded(self) -> bool:
        """Returns whether many connections were told to close, which takes a turn of the event loop."""
        return len(self._closing) >= _MOST_CLOSING

    def make_room(self) -> bool:
        """Returns whether a further connection may be opened; closes one for it if need be."""
        if len(self._open) - len(self._closing) < self.most:
            return True
        if not self._waiting:
            return False
        descriptor = next(iter(self._waiting))
        self._closing.add(descriptor)
        with contextlib.suppress(OSError):
            self._waiting.pop(descriptor).shutdown(socket.SHUT_RDWR)  # asyncio closes it once it reads the end
        return True

    def opened(self, connection: _Connection) -> None:
        """Counts a connection."""
        self._open[connection.fileno()] = connection
        self.waiting(connection.fileno())

    def closed(self, descriptor: int) -> None:
        """Counts a connection no more."""
        self._open.pop(descriptor, None)
        self._waiting.pop(descriptor, None)
        self._closing.discard(descriptor)


class BoundedListener(socket.socket):
    """A listening socket.

    Args:
      listening: that is taken over.
      connections: that it counts.
    """

    def __init__(self, listening: socket.socket, connections: Connections):
        super().__init__(listening.family, listening.type, listening.proto, fileno=listening.detach())
        self._connections = connections
        self._reserve = os.open(os.devnull, os.O_RDONLY)
        self._full, self._without_descriptors = LogRate(60), LogRate(60)

    def accept(self) -> tuple[socket.socket, Any]:
        """Returns a new connection and its address.

        Raises:
          BlockingIOError: there is none, or it was refused, or others have to be closed first.
        """
        if self._connections.crowded():
            raise BlockingIOError  # asyncio asks again in its next turn
        try:
            accepted, address = super().accept()
        except OSError as e:
            if e.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._refuse_without_descriptors()
            raise BlockingIOError from e
        if not self._connections.make_room():
            accepted.close()
            self._warn(
                self._full, f"{self._connections.most} connections are being answered; a further one was refused"
            )
            raise BlockingIOError
        return _Connection(accepted, self._connections), address

    def has_waiting(self) -> bool:
        """Returns whether a connection waits to be accepted."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Stops listening."""
        super().close()
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def _refuse_without_descriptors(self) -> None:
        """Takes the connection that waits with the reserved descriptor and closes it; the loop would spin otherwise."""
        os.close(self._reserve)
        with contextlib.suppress(OSError):
            super().accept()[0].close()
        self._reserve = os.open(os.devnull, os.O_RDONLY)
        why = "no file descriptor is left, so a connection was refused; lower --max_connections or raise `ulimit -n`"
        self._warn(self._without_descriptors, why)

    def _warn(self, rate: LogRate, text: str) -> None:
        if rate.due():
            logging.warning("%s (further ones in the next minute are not logged)", text)


class _Connection(socket.socket):
    def __init__(self, accepted: socket.socket, connections: Connections):
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._connections, self._number = connections, self.fileno()
        connections.opened(self)

    def close(self) -> None:
        """Closes it, and makes room for another."""
        if self.fileno() >= 0:
            self._connections.closed(self._number)
        super().close()
