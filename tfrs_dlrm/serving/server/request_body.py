"""Reads the body of a REST request: each part is counted as it arrives, and slow bodies are cut."""

from __future__ import annotations

import asyncio
import zlib

from starlette.requests import ClientDisconnect, Request

from tfrs_dlrm.serving.protocol import InvalidRequest, ServingError, TooLarge
from tfrs_dlrm.serving.server.admission import Call

_MOST_PER_BYTE = 1032  # deflate's best ratio
_PART = 1 << 16  # bytes that are decoded in one go
_MOST_MEMBERS = 1000  # of one gzip; zlib copies the rest of a part for each


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


def most_inflated(body: bytes | bytearray, most: int) -> int:
    """Returns the most bytes that decoding a body takes."""
    return min(most, _MOST_PER_BYTE * len(body))


def decode(body: bytes | bytearray, encoding: str, most: int) -> bytearray:
    """Returns a body whose Content-Encoding is gzip.

    Raises:
      InvalidRequest: the encoding is another one, or the body is damaged or has too many members.
      TooLarge: the decoded body has more than `most` bytes; no more are made.
    """
    if encoding.lower() != "gzip":
        raise InvalidRequest(f"Content-Encoding {encoding[:40]!r} is not supported; send gzip or none")
    decoded, member, members = bytearray(), None, 0
    for start in range(0, len(body), _PART):
        rest: bytes | memoryview = memoryview(body)[start : start + _PART]
        while rest:  # a file of gzip may have several members
            if member is None:
                member, members = zlib.decompressobj(wbits=31), members + 1
                if members > _MOST_MEMBERS:
                    raise InvalidRequest(f"the gzip of the body has more than {_MOST_MEMBERS} members; send one")
            try:
                decoded += member.decompress(rest, most - len(decoded) + 1)
            except zlib.error as e:
                raise InvalidRequest(f"the body is no gzip, as its Content-Encoding says: {e}") from e
            if len(decoded) > most:
                raise TooLarge(f"the decoded body has more than {most} bytes, which is the limit")
            rest = member.unused_data  # a copy, which the size of a part and the number of members bound
            member = None if member.eof else member
    if member is not None:
        raise InvalidRequest("the body is cut: its gzip does not end")
    return decoded
