"""Ctrl-C and SIGTERM end a program: what it does is undone on the way out, and one line says what to do next."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Signals:
    """The signals that asked a program to end.

    Attributes:
      number: of the last one; 0 if none came.
    """

    def __init__(self) -> None:
        self.number = 0

    @property
    def exit_code(self) -> int:
        """The exit code of a process that ends for them, as shells report it."""
        return 128 + (self.number or signal.SIGINT)

    @property
    def name(self) -> str:
        """What asked the program to end."""
        return _NAMES.get(signal.Signals(self.number or signal.SIGINT), "a signal")

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Ends what the main thread does.

        Raises:
          KeyboardInterrupt: always.
        """
        del frame
        self.number = number
        raise KeyboardInterrupt


@contextlib.contextmanager
def ends_by_signal() -> Iterator[Signals]:
    """Raises KeyboardInterrupt in the main thread at Ctrl-C and SIGTERM; parts of a program may listen too."""
    found = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {number: signal.signal(number, found.receive) for number in _NAMES}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
