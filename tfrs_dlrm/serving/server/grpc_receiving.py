"""Receives the message of a gRPC call: few at once, so that their bytes are bounded, and slow ones are cut.

A unary method of gRPC is called once its whole message is in memory, and the message may take as long as it likes. So
the methods are served as streams of which one message is read; clients see no difference. HTTP/2 holds a sender back
after some 64 KiB until its message is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tfrs_dlrm.serving.protocol import InvalidRequest, Overloaded, ServingError
from tfrs_dlrm.serving.server.admission import Call

_SECONDS_IF_OTHERS_WAIT = 2.0


class MessageReceiver:
    """Receives messages.

    Args:
      at_once: how many messages may be on their way at once; further ones wait for their turn.
      most_waiting: how many may wait for their turn; further ones are refused.
      seconds: within which it must be a message's turn, and within which it must arrive from then on.
      most_bytes: of one message, which a call takes of the server's memory while its message is on its way.
    """

    def __init__(self, at_once: int, most_waiting: int, seconds: float, most_bytes: int = 0):
        self._turns, self._most_waiting = asyncio.Semaphore(at_once), most_waiting
        self._seconds, self._most_bytes = seconds, most_bytes
        self._waiting = 0

    async def receive(self, messages: AsyncIterator[bytes], call: Call | None = None) -> bytes:
        """Returns the first message of a stream.

        Args:
          messages: of the stream.
          call: the account of the request, if there is one.

        Raises:
          Overloaded: too many wait, it does not get its turn in time, it is slow and others wait, or all requests
            together take too much memory.
          ServingError: it does not arrive in time.
          InvalidRequest: there is none.
        """
        await self._turn()
        try:
            with call.holding(self._most_bytes) if call else contextlib.nullcontext():
                return await self._first(messages)
        finally:
            self._turns.release()

    async def _turn(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()  # at once
            return
        if self._waiting >= self._most_waiting:
            raise Overloaded(f"{self._waiting} messages wait to be received, as many as are allowed; try again later")
        self._waiting += 1
        try:
            await asyncio.wait_for(self._turns.acquire(), self._seconds)
        except asyncio.TimeoutError as e:
            raise Overloaded(f"it was not the message's turn within {self._seconds:g} s; try again later") from e
        finally:
            self._waiting -= 1

    async def _first(self, messages: AsyncIterator[bytes]) -> bytes:
        arriving = asyncio.ensure_future(anext(messages))
        hurried = min(self._seconds, _SECONDS_IF_OTHERS_WAIT)
        try:
            passed = 0.0
            while not arriving.done() and passed < self._seconds:
                await asyncio.wait([arriving], timeout=hurried)
                passed += hurried
                if self._waiting and not arriving.done():
                    raise Overloaded(
                        f"the message did not arrive within {passed:g} s, and others wait; try again later"
                    )
            if arriving.done():
                return arriving.result()
        except StopAsyncIteration as e:
            raise InvalidRequest("the call has no message; one request is expected") from e
        finally:
            arriving.cancel()
        raise ServingError(f"the message did not arrive within {self._seconds:g} s", "CANCELLED", 408)
