"""From a trained run to served scores: bundles, a server, and the client that asks either server.

Its parts are loaded when first used, and the client never loads Python's TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfrs_dlrm.serving.client.client import Client

_PUBLIC = {"Client": "tfrs_dlrm.serving.client.client"}

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
