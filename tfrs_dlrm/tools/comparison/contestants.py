"""Contestants: recipes that differ from a common recipe in the model and in further fields."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Generic, get_type_hints

from tfrs_dlrm.config import ModelConfig, RunConfig, SearchConfig, as_model
from tfrs_dlrm.config.field_checks import unknown_field
from tfrs_dlrm.tools.comparison import trees
from tfrs_dlrm.tools.comparison.trees import Recipe, TreesConfig

_SECTIONS = ("model", "optimizer", "train")
# What `sizes` varies.
_DIMS = (2, 4, 8, 16, 32)
_TEMPERATURES = (0.3, 0.6)
_REMAINDERS = (16, 256)
_SHARED_ROWS = (4_096, 32_768)


@dataclasses.dataclass(frozen=True)
class Contestant(Generic[Recipe]):
    """A recipe under a label.

    Attributes:
      label: its name in reports.
      config: the recipe, of a network or of LightGBM.
    """

    label: str
    config: Recipe

    @property
    def directory(self) -> str:
        """The label as the name of a directory."""
        return "".join(c if c.isalnum() or c in "-_.=" else "-" for c in self.label)


def contestants(base: RunConfig, texts: Sequence[str]) -> list[Contestant[Any]]:
    """Parses contestants.

    Args:
      base: the common recipe; its candidates are not those of a contestant.
      texts: a text `[LABEL@]NAME[:SECTION.FIELD=VALUE]...` per contestant, for example `dcn`, `lightgbm` or
        `low rank@dcn:model.cross_rank=16:optimizer.embedding_l2=1e-4`; a tuple is written `64-32-1`, or
        `user-item`. Without a label, the whole text is the label.

    Raises:
      ImportError: LightGBM is a contestant, and not installed.
      ValueError: a contestant is given twice, a field or value is wrong, or fields do not fit together.
    """
    found = [_contestant(base, text.strip()) for text in texts]
    if not found:
        raise ValueError("no model is given; --models=logistic_regression,dlrm compares two")
    names = [c.directory for c in found]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"{found[i].label!r} is given twice; once is enough, seeds repeat it")
    return found


def contestant_name(text: str) -> str:
    """Returns the name of the model in a text for `contestants`."""
    label, at, recipe = text.strip().partition("@")
    return (recipe if at else label).partition(":")[0]


def set_field(config: RunConfig | TreesConfig, path: str, value: str) -> None:
    """Sets the field `SECTION.FIELD` from text.

    Raises:
      ValueError: the field does not exist, or the value is of another type.
    """
    section, _, name = path.partition(".")
    sections = _SECTIONS if isinstance(config, RunConfig) else ("trees",)
    if section not in sections:
        raise ValueError(
            f"{path}={value}: {path!r} is unknown; name one of {', '.join(f'{s}.FIELD' for s in sections)}"
        )
    holder = getattr(config, section)
    fields = {f.name: getattr(holder, f.name) for f in dataclasses.fields(holder) if f.init}
    if name not in fields:
        raise ValueError(f"{path}={value}: {unknown_field(section, holder, name)}")
    hint = get_type_hints(type(holder))[name]
    if hint is float:  # where a recipe may have a whole number
        fields[name] = float(fields[name])
    try:
        names = hint == tuple[str, ...]
        setattr(holder, name, tuple(value.split("-")) if names else _converted(value, fields[name]))
    except ValueError as e:
        kind = "numbers with - between" if isinstance(fields[name], tuple) else type(fields[name]).__name__
        raise ValueError(f"{path}={value}: {kind} needed, as {fields[name]!r} is") from e


def _contestant(base: RunConfig, text: str) -> Contestant[Any]:
    label, at, recipe = text.partition("@")
    name, changes = contestant_name(text), (recipe if at else text).split(":")[1:]
    config: RunConfig | TreesConfig
    try:
        config = TreesConfig.of(base) if name == trees.NAME else _network(base, name)
        for change in changes:
            path, equals, value = change.partition("=")
            if not equals:
                raise ValueError(f"{change!r} is not of the form SECTION.FIELD=VALUE")
            set_field(config, path, value)
        config.check()
    except ValueError as e:
        raise ValueError(f"{text!r}: {e}") from e
    return Contestant(label if at else text, config)


def _network(base: RunConfig, name: str) -> RunConfig:
    config = copy.deepcopy(base)
    config.search = SearchConfig()
    config.model = as_model(config.model, name)
    return config


def _converted(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if isinstance(like, tuple):
        return tuple(int(part) for part in text.split("-") if part)
    return type(like)(text)


def sizes(name: str, base: RunConfig) -> list[str]:
    """Returns texts for `contestants`: one model with tables of several sizes.

    They have other dimensions, mixed dimensions, quotients and remainders, or rows shared by hashing. The recipe's
    dimension comes first, since the others are compared with it.

    Args:
      name: of the model.
      base: the recipe, whose `model.embedding_dim` is a power of 2.

    Raises:
      ValueError: `model.embedding_dim` is not a power of 2.
    """
    model = as_model(base.model, name)
    base_dim = model.embedding_dim
    if base_dim < 1 or base_dim & (base_dim - 1):
        raise ValueError(f"model.embedding_dim={base_dim}: a power of 2 is needed, to vary it")
    found = [_text(model, f"dim {dim}", dim) for dim in (base_dim, *(d for d in _DIMS if d != base_dim))]
    for temperature in _TEMPERATURES:
        found.append(_text(model, f"mixed {temperature}", base_dim, f"model.mixed_dim_temperature={temperature}"))
    for remainders in _REMAINDERS:
        found.append(_text(model, f"quotient-remainder {remainders}", base_dim, f"model.remainders={remainders}"))
    for rows in _SHARED_ROWS:
        found.append(_text(model, f"{rows} shared rows", base_dim, f"model.shared_rows={rows}"))
    return found


def _text(model: ModelConfig, label: str, dim: int, *changes: str) -> str:
    before, after = dataclasses.asdict(model), dataclasses.asdict(model.with_embedding_dim(dim))
    resized = [f"model.{name}={_written(value)}" for name, value in after.items() if value != before[name]]
    return ":".join([f"{label}@{model.name}", *resized, *changes])


def _written(value: int | tuple[int, ...]) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
