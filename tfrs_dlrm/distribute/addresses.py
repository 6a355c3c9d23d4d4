"""Addresses of other processes, HOST:PORT."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

_ADDRESS = re.compile(r"[^\s:/]+:(\d{1,5})")
_SECONDS = 3.0  # to wait for an answer


def is_address(text: Any) -> bool:
    """Whether it is HOST:PORT."""
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    return match is not None and 0 < int(match[1]) < 65536


def unreachable(addresses: Sequence[str]) -> dict[str, str]:
    """Those of the addresses HOST:PORT to which no connection can be made within 3 seconds, each with the reason."""
    reasons = dict.fromkeys(addresses, f"nothing in {_SECONDS:.0f} seconds")

    def connect(address: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_SECONDS).close()
            reasons[address] = ""
        except OSError as e:
            reasons[address] = str(e)

    # In threads, since looking up a name knows no time limit; as daemons, since Python's end waits for others.
    threads = [threading.Thread(target=connect, args=(a,), daemon=True) for a in addresses]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return {address: why for address, why in reasons.items() if why}
