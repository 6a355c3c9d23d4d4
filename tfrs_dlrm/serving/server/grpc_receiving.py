"""Receives the message of a gRPC call: few at once, so that their bytes are bounded, and slow ones are cut.

A unary method of gRPC is called once its whole message is in memory, and the message may take as long as it likes. So
the methods are served as streams of which one message is read; clients see no difference. HTTP/2 holds a sender back
after some 64 KiB until its message is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tfrs_dlrm.serving.protocol import InvalidRequest, Overloaded, ServingError

_SECONDS_IF_OTHERS_WAIT = 2.0


class MessageReceiver:
    """Receives messages.

    Args:
      at_once: how many messages may be on their way at once; further ones wait for their turn.
      seconds: within which a message must arrive, once it is its turn.
    """

    def __init__(self, at_once: int, seconds: float):
        self._turns, self._seconds = asyncio.Semaphore(at_once), seconds
        self._waiting = 0

    async def receive(self, messages: AsyncIterator[bytes]) -> bytes:
        """Returns the first message of a stream.

        Raises:
          Overloaded: it is slow and others wait.
          ServingError: it does not arrive in time.
          InvalidRequest: there is none.
        """
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._first(messages)
        finally:
            self._turns.release()

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
