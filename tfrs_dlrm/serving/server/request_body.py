"""Reads the body of a REST request: each part is counted as it arrives, and slow bodies are cut."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from tfrs_dlrm.serving.protocol import ServingError, TooLarge
from tfrs_dlrm.serving.server.admission import Call


async def read_body(request: Request, call: Call, most: int, seconds: float) -> bytearray:
    """Returns the body of a request, whose memory is counted until the request is answered.

    Args:
      request: whose headers are there.
      call: its account.
      most: bytes of the body.
      seconds: within which it must be there.

    Raises:
      TooLarge: the body has more bytes, or says so.
      Overloaded: all requests together take too much memory.
      ServingError: the body does not arrive in time (408), or the client hangs up (499).
    """
    announced = request.headers.get("content-length", "0")
    if int(announced) > most:
        raise TooLarge(f"the request has {announced} bytes; the limit is {most}")
    with call.holding(int(announced)):  # refuses what does not fit now, before any of it is read
        pass
    try:
        return await asyncio.wait_for(_read(request, call, most), seconds)
    except asyncio.TimeoutError as e:
        raise ServingError(f"the body did not arrive within {seconds:g} s", "CANCELLED", 408) from e
    except ClientDisconnect as e:
        raise ServingError("the client hung up before the whole body was there", "CANCELLED", 499) from e


async def _read(request: Request, call: Call, most: int) -> bytearray:
    body = bytearray()
    async for part in request.stream():
        if len(body) + len(part) > most:
            raise TooLarge(f"the request has more than {most} bytes, which is the limit")
        call.take(len(part))
        body += part
    return body
