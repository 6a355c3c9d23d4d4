"""The processes that a program has started."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable

_SECONDS = 5.0


def end_all(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ends those that run, by SIGTERM, and by SIGKILL where that takes more than 5 seconds."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _SECONDS
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
