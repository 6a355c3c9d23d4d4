"""Checks of configuration fields. Each error names the field, its value, and the expected values."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from tfrs_dlrm.messages import did_you_mean


def refuse(field: str, value: object, wanted: str) -> NoReturn:
    """Raises ValueError for a field such as `train.epochs`."""
    raise ValueError(f"config.{field}={value!r}: {wanted}")


def check_at_least(section: str, config: object, **bounds: float) -> None:
    """Checks that each named field of a section is a finite number of at least its bound."""
    for name, bound in bounds.items():
        value = getattr(config, name)
        if not math.isfinite(value) or value < bound:
            refuse(f"{section}.{name}", value, f"at least {bound} is needed")


def check_choice(field: str, value: str, choices: Iterable[str]) -> None:
    """Checks that a field is one of the choices."""
    if value not in choices:
        wanted = f"choose one of {', '.join(choices)}"
        hint = did_you_mean(value, choices, 1)
        refuse(field, value, f"{wanted}; {hint}" if hint else wanted)


def unknown_field(section: str, config: Any, name: str) -> str:
    """Returns the message for a field that a section does not have; for a model, it names the model."""
    known = [f.name for f in dataclasses.fields(config)]
    owner = f"{section} ({config.name})" if "name" in known else section
    hint = did_you_mean(name, known, 1)
    return " ".join(filter(None, [f"{owner} has no field {name!r};", hint, f"It has {', '.join(known)}"]))
