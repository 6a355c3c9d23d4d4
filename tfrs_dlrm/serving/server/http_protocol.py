"""Uvicorn's HTTP/1.1 protocol, with a limit of time for headers, and with connections that make room for others.

Plain requests to models are answered directly, see `direct_requests`; all others by the web framework.
"""

from __future__ import annotations

import asyncio
import select
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tfrs_dlrm.serving.server.connections import Connections
from tfrs_dlrm.serving.server.direct_requests import DirectRequest, DirectRequests, response
from tfrs_dlrm.serving.server.rest_models import Answer, to_json

_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_HOLDING_SECONDS = 0.002  # for the body of a request whose headers came alone: many clients send the two apart
_MOST_HELD = 1 << 16  # bytes of such a request
_ENDED = Answer(500, to_json({"error": "the server ended before the request was answered"}))
_IDLE = {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}


class BoundedHttpProtocol(H11Protocol):
    """One connection.

    Args:
      connections: that it is one of.
      seconds: within which the headers of a request must be there, from their first byte on; for the first request,
        from the connection on.
      direct: reads and answers plain requests.
      **arguments: of uvicorn's protocol.
    """

    def __init__(self, connections: Connections, seconds: float, direct: DirectRequests, **arguments: Any):
        super().__init__(**arguments)
        self._all, self._seconds, self._direct = connections, seconds, direct
        self._held, self._release_due = b"", cast("asyncio.TimerHandle | None", None)
        self._descriptor = -1
        self._headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expects the headers of a first request."""
        super().connection_made(transport)
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._release()
        self._forget_headers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what arrived."""
        held, self._held = self._held, b""
        if held:
            self._forget_release()
            data = held + data
        elif isinstance(self.cycle, _DirectCycle) and not self._answered():
            self.conn.receive_data(data)  # pipelined, and read after the answer
            self.flow.pause_reading()
            return
        request = self._direct.read(data) if self._is_between_requests() else None
        if isinstance(request, DirectRequest):
            self._begin(request)
        elif request is not None and not held and request > 0 and len(data) + request <= _MOST_HELD:
            self._unset_keepalive_if_required()
            self._held, self._release_due = data, self.loop.call_later(_HOLDING_SECONDS, self._release)
        else:
            self._receive(data)

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
        self._release()
        if self._answered() and not self.transport.is_closing() and self._has_bytes():
            return  # read in a moment; its answer says `Connection: close`
        super().shutdown()

    def _receive(self, data: bytes) -> None:
        """Passes bytes to the web framework."""
        super().data_received(data)
        self._look()

    def _release(self) -> None:
        """Passes a request that was held to the web framework, without its body."""
        held, self._held = self._held, b""
        self._forget_release()
        if held:
            self._receive(held)

    def _begin(self, request: DirectRequest) -> None:
        """Answers a plain request in a task."""
        self._unset_keepalive_if_required()
        self._forget_headers()
        self._all.busy(self._descriptor)
        self.conn.their_http_version = b"1.1"  # which h11 would have read, and which frames its errors
        cycle = _DirectCycle()
        self.cycle = cast(Any, cycle)
        task = self.loop.create_task(self._answer(request, cycle))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _answer(self, request: DirectRequest, cycle: _DirectCycle) -> None:
        try:
            answer = await self._direct.answer(request, self.client[0] if self.client else "")
        except asyncio.CancelledError:  # the server ends, and does not wait any longer
            answer, cycle.keep_alive = _ENDED, False
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        if cycle.disconnected:
            return
        cycle.keep_alive = cycle.keep_alive and not self._direct.draining()
        self.transport.write(response(answer, self.server_state.default_headers, not cycle.keep_alive))
        cycle.response_complete = True
        if not cycle.keep_alive:
            self.conn.send(h11.ConnectionClosed())
            self.transport.close()
        self.on_response_complete()
        if self.conn.trailing_data[0] and not self.transport.is_closing():
            self.handle_events()
            self._look()

    def _is_between_requests(self) -> bool:
        """Returns whether what arrives now begins a request."""
        return self._answered() and self.conn.states == _IDLE and not self.conn.trailing_data[0]

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

    def _forget_release(self) -> None:
        if self._release_due is not None:
            self._release_due.cancel()
            self._release_due = None

    def _cut(self) -> None:
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self.transport.write(_TIMEOUT)
        self.transport.close()


class _DirectCycle:
    """What uvicorn's protocol has to know of a request that is answered directly: its body is there."""

    more_body = False

    def __init__(self) -> None:
        self.response_complete = self.disconnected = False
        self.keep_alive = True
        self.message_event = asyncio.Event()
