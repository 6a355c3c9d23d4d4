"""Ctrl-C and SIGTERM end a program: what it does is undone on the way out, and one line says what to do next."""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
# How long the main thread may stay in a library's call, which no signal interrupts.
SECONDS_IN_A_CALL = 3.0
_SECONDS_TO_REPEAT = 0.05
_BYTES = 4096  # each signal is one


class Signals:
    """The signals that asked a program to end.

    Attributes:
      number: of the last one; 0 if none came.
    """

    def __init__(self) -> None:
        self.number = 0
        self.noticed = threading.Event()

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
        self.noticed.set()
        raise KeyboardInterrupt

    def repeat(self) -> None:
        """Has the last signal arrive again a little later, if a handler listens then."""
        timer = threading.Timer(_SECONDS_TO_REPEAT, _thread.interrupt_main, (self.number,))
        timer.daemon = True
        timer.start()

    def watch(self, received: int, stuck: Callable[[Signals], None]) -> None:
        """Reads the numbers of signals from a file until it ends; calls `stuck` if the main thread notices none.

        Python calls handlers in the main thread only, and only between its own steps: a process that waits inside a
        library, as for another process of a cluster, would ignore SIGTERM.
        """
        with open(received, "rb", buffering=0) as file:
            while arrived := file.read(_BYTES):
                number = next((n for n in reversed(arrived) if n in _NAMES), 0)
                if not number or signal.getsignal(number) != self.receive:
                    continue  # another part of the program listens
                if not self.noticed.wait(SECONDS_IN_A_CALL):
                    self.number = number
                    stuck(self)
                # What came until now is noticed with it: Python calls a handler once for signals that came together.
                if select.select([file], [], [], 0)[0]:
                    file.read(_BYTES)
                self.noticed.clear()  # the next one has to be noticed by itself


@contextlib.contextmanager
def ends_by_signal(stuck: Callable[[Signals], None]) -> Iterator[Signals]:
    """Raises KeyboardInterrupt in the main thread at Ctrl-C and SIGTERM; parts of a program may listen too.

    Args:
      stuck: called in another thread if the main thread is inside a call that does not return; ends the process.
    """
    found = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    received, sent = os.pipe()
    os.set_blocking(sent, False)
    threading.Thread(target=found.watch, args=(received, stuck), daemon=True).start()
    before = {number: signal.signal(number, found.receive) for number in _NAMES}
    woken, report = signal.set_wakeup_fd(sent, warn_on_full_buffer=False), sys.unraisablehook

    def swallowed(ignored: sys.UnraisableHookArgs) -> None:
        # Python drops what is raised while it destroys objects, and a handler may be called then.
        if found.number and issubclass(ignored.exc_type, KeyboardInterrupt):
            found.repeat()
        else:
            report(ignored)

    sys.unraisablehook = swallowed
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        sys.unraisablehook = report
        os.close(sent)  # which ends the thread
