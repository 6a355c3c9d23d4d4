"""Raw inputs: the values of a log and of a serving request by name, and the features that read them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Literal

from tfrs_dlrm.schema.features import CategoricalFeature, DenseFeature
from tfrs_dlrm.schema.times import Time

InputType = Literal["float32", "string", "int64"]


@dataclasses.dataclass(frozen=True)
class FeatureInput:
    """One raw value of an example.

    Attributes:
      name: its name in `Encoder.signature`, samples and, unless it is `training_only`, requests.
      column: the column of the log.
      dtype: `float32` for numbers, NaN where missing; `string`, "" where missing; or `int64`, -1 where missing.
      is_list: whether it is a list of values of the type.
      separator: the text between several values in one text; of vectors only in the log.
      time: how it is written, if it is a time; the parts are of no account.
      weights_of: the name of the input whose values it weighs; empty if it holds values.
      parallel_to: the name of the input whose lists have as many values, as those of parallel histories; else empty.
      needed: whether a missing value is an error: a dense feature that reads it has no `fill_value`.
      training_only: whether requests lack it; an exported model computes with `serving_value`.
      serving_value: with `training_only`, the value for requests; None is a missing value.
      features: the names of the features that read it, in the order of the schema.
      size: the length of each list, of vectors; None if lists have any length.
    """

    name: str
    column: str
    dtype: InputType
    is_list: bool = False
    separator: str | None = None
    time: Time | None = None
    weights_of: str = ""
    parallel_to: str = ""
    needed: bool = False
    training_only: bool = False
    serving_value: float | str | None = None
    features: tuple[str, ...] = ()
    size: int | None = None

    @property
    def value_for_requests(self) -> float | int | str:
        """With `training_only`, the value for requests in the form of the dtype."""
        missing: dict[InputType, float | int | str] = {"string": "", "int64": -1, "float32": math.nan}
        if self.serving_value is None:
            return missing[self.dtype]
        return int(self.serving_value) if self.dtype == "int64" else self.serving_value

    def joined(self, other: FeatureInput) -> FeatureInput:
        """Returns the input with the features of both.

        Raises:
          ValueError: they are not the same value of the log.
        """
        same = {"needed": False, "features": ()}
        self._check_serving(other)
        if dataclasses.replace(self, **same) != dataclasses.replace(other, **same):  # type: ignore[arg-type]
            first, second = self.features[0], other.features[0]
            raise ValueError(
                f"features {first!r} and {second!r} both take the input {self.name!r} but read it in two ways"
                f" ({_described(self)}, and {_described(other)}); rename one, or set its input to another name"
            )
        return dataclasses.replace(self, needed=self.needed or other.needed, features=self.features + other.features)

    def _check_serving(self, other: FeatureInput) -> None:
        """Raises ValueError if the features say different things of requests."""
        mine, its = ((x.training_only, x.serving_value) for x in (self, other))
        if mine != its:
            first, second = self.features[0], other.features[0]
            raise ValueError(
                f"features {first!r} and {second!r} read one value of column {self.column!r}, with training_only="
                f"{_shown(*mine)} and training_only={_shown(*its)}; set both to the same"
            )


def _shown(training_only: bool, value: float | str | None) -> str:
    return f"true, serving_value={'null' if value is None else repr(value)}" if training_only else "false"


def _described(given: FeatureInput) -> str:
    if given.time:
        kind = f"a time as {given.time.format}"
    elif given.size:
        kind = f"vectors of {given.size} numbers"
    else:
        kind = f"lists of {given.dtype}" if given.is_list else given.dtype
    return f"column {given.column!r} as {kind}"


def collect_inputs(
    dense: Iterable[DenseFeature], categorical: Iterable[CategoricalFeature]
) -> tuple[FeatureInput, ...]:
    """Returns the inputs of features, each once: of dense features, then of the categorical ones.

    Raises:
      ValueError: two features read an input in two ways.
    """
    found: dict[str, FeatureInput] = {}
    values = list(categorical)
    mains = {f.name: f.input_name for f in values}
    for one in (*map(_of_dense, dense), *(i for f in values for i in _of_categorical(f, mains))):
        found[one.name] = found[one.name].joined(one) if one.name in found else one
    return tuple(found.values())


def _of_dense(f: DenseFeature) -> FeatureInput:
    dtype: InputType = "float32" if f.time is None else "int64" if f.time.is_epoch else "string"
    return FeatureInput(
        f.input_name,
        f.column,
        dtype,
        is_list=f.size is not None,
        separator=f.separator,
        time=_written(f.time),
        needed=f.fill_value is None,
        training_only=f.training_only,
        serving_value=f.serving_value,
        features=(f.name,),
        size=f.size,
    )


def _of_categorical(f: CategoricalFeature, mains: Mapping[str, str]) -> list[FeatureInput]:
    if f.cross:
        return []
    is_list = f.multi_valued and f.separator is None
    dtype: InputType = "float32" if f.reads_number else "string" if f.separator is not None else f.dtype
    values = FeatureInput(
        f.input_name,
        f.column,
        dtype,
        is_list,
        f.separator,
        _written(f.time),
        parallel_to=mains.get(f.parallel_to, ""),
        training_only=f.training_only,
        serving_value=f.serving_value,
        features=(f.name,),
    )
    if not f.weights:
        return [values]
    kind: InputType = "float32" if is_list else "string"
    weights = FeatureInput(
        f.weights_name, f.weights, kind, is_list, f.separator, weights_of=f.input_name, features=(f.name,)
    )
    return [values, weights]


def _written(time: Time | None) -> Time | None:
    """Returns only how times are written."""
    return None if time is None else Time(("hour",), time.format)
