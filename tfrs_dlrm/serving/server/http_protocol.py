"""Uvicorn's HTTP/1.1 protocol, with a limit of time for headers, and with connections that make room for others."""

from __future__ import annotations

import asyncio
import select
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tfrs_dlrm.serving.server.connections import Connections

_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedHttpProtocol(H11Protocol):
    """One connection.

    Args:
      connections: that it is one of.
      seconds: within which the headers of a request must be there, from their first byte on; for the first request,
        from the connection on.
      **arguments: of uvicorn's protocol.
    """

    def __init__(self, connections: Connections, seconds: float, **arguments: Any):
        super().__init__(**arguments)
        self._all, self._seconds = connections, seconds
        self._descriptor = -1
        self._headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expects the headers of a first request."""
        super().connection_made(transport)
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._forget_headers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what arrived."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Waits for a client that does not take its answer."""
        super().pause_writing()
        self._all.waiting(self._descriptor)

    def resume_writing(self) -> None:
        """Works on."""
        super().resume_writing()
        self._look()

    def shutdown(self) -> None:
        """Closes the connection, after the answer to a request that is under way or has just arrived."""
        if self._answered() and not self.transport.is_closing() and self._has_bytes():
            return  # read in a moment; its answer says `Connection: close`
        super().shutdown()

    def _answered(self) -> bool:
        """Returns whether no request waits for its answer."""
        return self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        if self.transport.is_closing():
            self._forget_headers()
        elif not self._answered():
            self._forget_headers()
            (self._all.waiting if self.cycle.more_body else self._all.busy)(self._descriptor)
        else:
            self._all.waiting(self._descriptor)
            # The rest of a body that was refused is limited as well.
            if self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]:
                self._expect_headers()
            elif self.cycle is not None:
                self._forget_headers()

    def _has_bytes(self) -> bool:
        """Returns whether bytes arrived that were not read."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def _expect_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self.loop.call_later(self._seconds, self._cut)

    def _forget_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _cut(self) -> None:
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self.transport.write(_TIMEOUT)
        self.transport.close()
