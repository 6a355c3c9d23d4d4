"""Which requests a server takes at once, by their number and by the memory that they need."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tfrs_dlrm.serving.protocol import Overloaded, TooLarge, Unavailable

# The most memory of one request, as a multiple of the bytes that it may have: JSON takes more as Python's objects.
_MEMORY_PER_BYTE = 24


class Admission:
    """Counts the requests of a server and their memory; only the event loop changes it.

    Args:
      most_requests: that are answered at once.
      most_bytes: of memory that all requests take together: as received, as parsed, and as tensors.
      most_request_bytes: of one request as received.

    Attributes:
      under_way: requests that arrived and are not answered.
      calls: requests whose headers arrived and that are not answered.
      memory: bytes that all requests take.
      closed: whether all further requests are refused, since the server ends.
    """

    def __init__(self, most_requests: int, most_bytes: int, most_request_bytes: int):
        self._most_requests, self._most_bytes = most_requests, most_bytes
        self._most_each = min(most_bytes, _MEMORY_PER_BYTE * most_request_bytes)
        self.calls = self.under_way = self.memory = 0
        self.closed = False

    def call(self) -> contextlib.AbstractContextManager[Call]:
        """Admits a request that is neither counted nor logged; see `admitted`."""
        return self.admitted(Call(self))

    @contextlib.contextmanager
    def admitted(self, call: Call) -> Iterator[Call]:
        """Counts a request whose headers arrived until the end of the block, and yields its account.

        Raises:
          Overloaded: too many requests are under way.
          Unavailable: the server ends.
        """
        if self.closed:
            raise Unavailable("the server is ending; ask another, or ask again once it has restarted")
        self._check_room()
        self.calls += 1
        try:
            yield call
        finally:
            self.calls -= 1
            call.end()

    def begin(self) -> None:
        """Counts a request that arrived, until `end`; raises Overloaded if too many are under way."""
        self._check_room()
        self.under_way += 1

    def end(self) -> None:
        """Counts a request as answered."""
        self.under_way -= 1

    def take(self, size: int, of_the_request: int) -> None:
        """Counts memory that a request takes.

        Args:
          size: bytes that it takes from now on.
          of_the_request: bytes that it took before.

        Raises:
          TooLarge: the request alone takes too much.
          Overloaded: all requests together take too much.
        """
        if of_the_request + size > self._most_each:
            raise TooLarge(
                f"the request takes {of_the_request + size} bytes of memory, larger than max ({self._most_each}): send"
                " fewer or shorter values, or start the server with a higher --max_request_bytes and --max_memory_bytes"
            )
        if self.memory + size > self._most_bytes:
            raise Overloaded(
                f"all requests take {self.memory} bytes of memory and this one needs {size} more; at most"
                f" {self._most_bytes} are allowed, so try again later"
            )
        self.memory += size

    def _check_room(self) -> None:
        if self.under_way >= self._most_requests:
            raise Overloaded(f"{self.under_way} requests are under way, as many as are allowed; try again later")


class Call:
    """One request, from its headers to its answer.

    Args:
      admission: that counts it.
      api: `grpc` or `rest`.
      method: as `predict`.

    Attributes:
      api: as given.
      method: as given.
      code: of the answer, as `OK`.
      seconds: from the complete request to its answer.
      identity: the id of the request; a request without one is not logged.
      model: its name, if it is served.
      version: that answers; None as long as none is chosen.
      signature: its name, if the model has it.
      rows: of the request, once they are counted.
      traceparent: the trace context, which is passed on.
      peer: the address of the client.
      started: `time.perf_counter()` when the whole request was there.
    """

    def __init__(self, admission: Admission, api: str = "", method: str = ""):
        self.api, self.method, self.code, self.seconds = api, method, "OK", 0.0
        self._admission, self._taken, self._counted = admission, 0, False
        self.identity = self.model = self.signature = self.traceparent = self.peer = ""
        self.version: int | None = None
        self.rows: int | None = None
        self.started = time.perf_counter()

    def take(self, size: int) -> None:
        """Counts memory until the request is answered; raises TooLarge or Overloaded if it is not to be had."""
        self._admission.take(size, self._taken)
        self._taken += size

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Counts memory during a block; raises TooLarge or Overloaded if it is not to be had."""
        self.take(size)
        try:
            yield
        finally:
            self._give_back(size)

    def begin(self) -> None:
        """Says that the whole request is there; raises Overloaded if too many are under way."""
        self._admission.begin()
        self._counted, self.started = True, time.perf_counter()

    def end(self) -> None:
        """Gives everything back."""
        self._give_back(self._taken)
        if self._counted:
            self._admission.end()
            self._counted = False

    def _give_back(self, size: int) -> None:
        self._taken -= size
        self._admission.memory -= size
