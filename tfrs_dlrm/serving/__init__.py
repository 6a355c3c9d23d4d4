"""From a trained run to served scores: bundles, a server, and a client for it and for TF Serving.

The client never loads TensorFlow's Python.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfrs_dlrm.serving.client.serving_client import ServingClient

_PUBLIC = {"ServingClient": "tfrs_dlrm.serving.client.serving_client"}

__all__ = ["ServingClient"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
