"""Raw inputs: the values of a log and of a serving request by name, and the features that read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

from tfrs_dlrm.schema.features import CategoricalFeature, DenseFeature
from tfrs_dlrm.schema.times import Time

InputType = Literal["float32", "string", "int64"]


@dataclasses.dataclass(frozen=True)
class FeatureInput:
    """One raw value of an example.

    Attributes:
      name: its name in `Encoder.signature`, requests and samples.
      column: the column of the log.
      dtype: `float32` for numbers, NaN where missing; `string`, "" where missing; or `int64`, -1 where missing.
      is_list: whether it is a list of values of the type.
      separator: the text between several values in one text.
      time: how it is written, if it is a time; the parts are of no account.
      weights_of: the name of the input whose values it weighs; empty if it holds values.
      needed: whether a missing value is an error: a dense feature that reads it has no `fill_value`.
      features: the names of the features that read it, in the order of the schema.
    """

    name: str
    column: str
    dtype: InputType
    is_list: bool = False
    separator: str | None = None
    time: Time | None = None
    weights_of: str = ""
    needed: bool = False
    features: tuple[str, ...] = ()

    def joined(self, other: FeatureInput) -> FeatureInput:
        """Returns the input with the features of both.

        Raises:
          ValueError: they are not the same value of the log.
        """
        same = {"needed": False, "features": ()}
        if dataclasses.replace(self, **same) != dataclasses.replace(other, **same):  # type: ignore[arg-type]
            first, second = self.features[0], other.features[0]
            raise ValueError(
                f"features {first!r} and {second!r} both take the input {self.name!r} but read it in two ways"
                f" ({_described(self)}, and {_described(other)}); rename one, or set its input to another name"
            )
        return dataclasses.replace(self, needed=self.needed or other.needed, features=self.features + other.features)


def _described(given: FeatureInput) -> str:
    kind = (
        f"a time as {given.time.format}" if given.time else f"lists of {given.dtype}" if given.is_list else given.dtype
    )
    return f"column {given.column!r} as {kind}"


def collect_inputs(
    dense: Iterable[DenseFeature], categorical: Iterable[CategoricalFeature]
) -> tuple[FeatureInput, ...]:
    """Returns the inputs of features, each once: of dense features, then of the categorical ones.

    Raises:
      ValueError: two features read an input in two ways.
    """
    found: dict[str, FeatureInput] = {}
    for one in (*map(_of_dense, dense), *(i for f in categorical for i in _of_categorical(f))):
        found[one.name] = found[one.name].joined(one) if one.name in found else one
    return tuple(found.values())


def _of_dense(f: DenseFeature) -> FeatureInput:
    dtype: InputType = "float32" if f.time is None else "int64" if f.time.is_epoch else "string"
    needed = f.fill_value is None
    return FeatureInput(f.input_name, f.column, dtype, time=_written(f.time), needed=needed, features=(f.name,))


def _of_categorical(f: CategoricalFeature) -> list[FeatureInput]:
    if f.cross:
        return []
    is_list = f.multi_valued and f.separator is None
    dtype: InputType = "float32" if f.reads_number else "string" if f.separator is not None else f.dtype
    values = FeatureInput(f.input_name, f.column, dtype, is_list, f.separator, _written(f.time), features=(f.name,))
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
