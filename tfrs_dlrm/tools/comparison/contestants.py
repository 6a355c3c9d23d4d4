"""What is compared: recipes that differ from a common one in the model, and in what else is said."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from tfrs_dlrm.config import RunConfig, as_model
from tfrs_dlrm.config.field_checks import unknown_field

_SECTIONS = ("model", "optimizer", "train")


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One of those that are compared.

    Attributes:
      label: what it is called.
      config: its recipe.
    """

    label: str
    config: RunConfig

    @property
    def directory(self) -> str:
        """Its label as the name of a directory."""
        return "".join(c if c.isalnum() or c in "-_.=" else "-" for c in self.label)


def contestants(base: RunConfig, texts: Sequence[str]) -> list[Contestant]:
    """Reads what a user writes.

    Args:
      base: the recipe in common.
      texts: `[LABEL@]NAME[:SECTION.FIELD=VALUE]...` each, as `dcn` or
        `low rank@dcn:model.cross_rank=16:optimizer.embedding_l2=1e-4`; a tuple is written `64-32-1`. Without a label
        it is called by the whole text.

    Raises:
      ValueError: one is written twice, a field or value is none, or they do not fit together.
    """
    found = [_contestant(base, text.strip()) for text in texts]
    if not found:
        raise ValueError("no model is given; --models=logistic_regression,dlrm compares two")
    names = [c.directory for c in found]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{found[i].label!r} is given twice; once is enough, seeds repeat it")
    return found


def set_field(config: RunConfig, path: str, value: str) -> None:
    """Sets `SECTION.FIELD` to what a user wrote.

    Raises:
      ValueError: there is no such field, or the value is of another type.
    """
    section, _, name = path.partition(".")
    if section not in _SECTIONS:
        raise ValueError(f"{path}={value}: {path!r} is none of {', '.join(f'{s}.FIELD' for s in _SECTIONS)}")
    holder = getattr(config, section)
    fields = {f.name: getattr(holder, f.name) for f in dataclasses.fields(holder) if f.init}
    if name not in fields:
        raise ValueError(f"{path}={value}: {unknown_field(section, holder, name)}")
    try:
        setattr(holder, name, _converted(value, fields[name]))
    except ValueError as e:
        kind = "numbers with - between" if isinstance(fields[name], tuple) else type(fields[name]).__name__
        raise ValueError(f"{path}={value}: {kind} needed, as {fields[name]!r} is") from e


def _contestant(base: RunConfig, text: str) -> Contestant:
    label, at, recipe = text.partition("@")
    name, *changes = (recipe if at else text).split(":")
    config = copy.deepcopy(base)
    try:
        config.model = as_model(config.model, name)
        for change in changes:
            path, equals, value = change.partition("=")
            if not equals:
                raise ValueError(f"{change!r} is not of the form SECTION.FIELD=VALUE")
            set_field(config, path, value)
        config.check()
    except ValueError as e:
        raise ValueError(f"{text!r}: {e}") from e
    return Contestant(label if at else text, config)


def _converted(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(like, tuple):
        return tuple(int(part) for part in text.split("-") if part)
    return type(like)(text)
