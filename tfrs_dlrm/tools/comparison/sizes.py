"""Recipes of one model in several sizes, to see what its tables have to take."""

from __future__ import annotations

import dataclasses

from tfrs_dlrm.config import ModelConfig, RunConfig, as_model

_DIMS = (2, 4, 8, 16, 32)
_TEMPERATURES = (0.3, 0.6)
_REMAINDERS = (16, 256)
_SHARED_ROWS = (4_096, 32_768)


def sizes(name: str, base: RunConfig) -> list[str]:
    """What `contestants` takes: dimensions, mixed ones, quotients and remainders, rows shared by hashing.

    The recipe's own dimension comes first: the others are compared with it.

    Args:
      name: of the model.
      base: the recipe, whose `model.embedding_dim` is a power of 2.

    Raises:
      ValueError: it is none.
    """
    model = as_model(base.model, name)
    own = model.embedding_dim
    if own < 1 or own & (own - 1):
        raise ValueError(f"model.embedding_dim={own}: a power of 2 is needed, to vary it")
    found = [_text(model, f"dim {dim}", dim) for dim in (own, *(d for d in _DIMS if d != own))]
    for temperature in _TEMPERATURES:
        found.append(_text(model, f"mixed {temperature}", own, f"model.mixed_dim_temperature={temperature}"))
    for remainders in _REMAINDERS:
        found.append(_text(model, f"quotient-remainder {remainders}", own, f"model.remainders={remainders}"))
    for rows in _SHARED_ROWS:
        found.append(_text(model, f"{rows} shared rows", own, f"model.shared_rows={rows}"))
    return found


def _text(model: ModelConfig, label: str, dim: int, *changes: str) -> str:
    before, after = dataclasses.asdict(model), dataclasses.asdict(model.with_embedding_dim(dim))
    resized = [f"model.{name}={_written(value)}" for name, value in after.items() if value != before[name]]
    return ":".join([f"{label}@{model.name}", *resized, *changes])


def _written(value: int | tuple[int, ...]) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
