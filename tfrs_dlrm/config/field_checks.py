"""Checks of configuration fields. Each error names the field, its value, and the expected values."""

import dataclasses
import math
import numbers as numbers_lib
from collections.abc import Iterable
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

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


def check_types(section: str, config: object, kind: type) -> None:
    """Checks that a section is of a class, and each of its fields of its type; whole numbers may stand for floats."""
    if not isinstance(config, kind) or not dataclasses.is_dataclass(config):
        refuse(section, config, f"a {kind.__name__} is needed")
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, hint, value = field.name, hints[field.name], getattr(config, field.name)
        if get_origin(hint) is tuple:
            items = value if isinstance(value, (tuple, list)) else None
            if items is None or not all(_is(item, get_args(hint)[0]) for item in items):
                refuse(f"{section}.{name}", value, f"a tuple of {get_args(hint)[0].__name__} is needed")
        elif isinstance(hint, type) and not _is(value, hint):
            refuse(f"{section}.{name}", value, f"a value of type {hint.__name__} is needed")


def _is(value: object, kind: type) -> bool:
    if kind in (int, float):  # of Python or NumPy; bool is an int to Python
        numbers = numbers_lib.Integral if kind is int else numbers_lib.Real
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, kind)


def unknown_field(section: str, config: Any, name: str) -> str:
    """Returns the message for a field that a section does not have; for a model, it names the model."""
    known = [f.name for f in dataclasses.fields(config)]
    owner = f"{section} ({config.name})" if "name" in known else section
    hint = did_you_mean(name, known, 1)
    return " ".join(filter(None, [f"{owner} has no field {name!r};", hint, f"It has {', '.join(known)}"]))
