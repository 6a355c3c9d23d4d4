"""Checks arguments and fields against their annotations, where they are given and not deep inside.

Checked are str (or a path), int, float, bool, None, dataclasses, numbers with a least value, and tuples, sequences and
mappings of them. The values that a Literal allows, and other classes, are left to whoever uses them, who can say more.
"""

from __future__ import annotations

import builtins
import collections.abc
import contextlib
import dataclasses
import functools
import inspect
import numbers
import os
import sys
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)
_PLAIN = (str, int, float, bool)
_OF_CLASSES: dict[type, dict[str, Any]] = {}
_SEQUENCES = (tuple, list, collections.abc.Sequence)


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """The least value of an argument, for `Annotated`."""

    value: int


Count = Annotated[int, AtLeast(1)]
Size = Annotated[int, AtLeast(0)]


def checked(function: F) -> F:
    """Decorates a function whose arguments are checked against its annotations.

    Raises:
      ValueError: when it is called: an argument is of another type; the message names it.
    """
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not hints:
            hints.update(_hints(function.__annotations__, function.__module__))
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # Python says what is wrong
        for name, value in given.items():
            check_argument(function.__name__, name, value, hints.get(name, Any))
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def with_checked_arguments(kind: C) -> C:
    """Decorates a class whose constructor checks its arguments against its annotations.

    Arguments that it hands on to base classes, in `**kwargs`, are checked against the annotations of these.

    Raises:
      ValueError: when an object is made: an argument is of another type; the message names it.
    """
    constructor = kind.__init__  # type: ignore[misc]
    signature = inspect.signature(constructor)
    hints: dict[str, Any] = {}

    @functools.wraps(constructor)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if not hints:
            hints.update(_constructor_hints(kind))
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            given = {}  # Python says what is wrong
        for name, value in (given | given.get("kwargs", {})).items():
            check_argument(kind.__name__, name, value, hints.get(name, Any))
        constructor(self, *args, **kwargs)

    __init__.__signature__ = signature  # type: ignore[attr-defined]  # Keras asks for it without following wrappers
    kind.__init__ = __init__  # type: ignore[misc, method-assign]
    return kind


def _constructor_hints(kind: type) -> dict[str, Any]:
    """Returns the types of the arguments of a constructor, and of those that get its `**kwargs`."""
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            constructor = inspect.unwrap(vars(base)["__init__"])
            found = _hints(inspect.get_annotations(constructor), constructor.__module__) | found
            if "kwargs" not in inspect.signature(constructor).parameters:
                break
    # Of a schema, `check_schema` says more.
    return {name: hint for name, hint in found.items() if name != "return" and not dataclasses.is_dataclass(hint)}


def check_fields(instance: Any) -> None:
    """Checks the fields of a dataclass against their annotations; call it in `__post_init__`.

    Raises:
      ValueError: a field is of another type; the message names it.
    """
    kind = type(instance)
    if kind not in _OF_CLASSES:
        _OF_CLASSES[kind] = _class_hints(kind)
    hints = _OF_CLASSES[kind]
    for name, hint in hints.items():
        check_argument(type(instance).__name__, name, getattr(instance, name), hint)


def _class_hints(kind: type) -> dict[str, Any]:
    """Returns the types of the fields of a dataclass, also of those that it inherits."""
    fields = {field.name for field in dataclasses.fields(kind)}
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        own = {name: hint for name, hint in inspect.get_annotations(base).items() if name in fields}
        found |= _hints(own, base.__module__)
    return found


class _Names(dict[str, Any]):
    """The names of a module; one that is imported for type checkers only may be anything."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


def _hints(annotations: dict[str, Any], module: str) -> dict[str, Any]:
    """Evaluates the annotations of a module; those with an attribute of an unknown name are left out."""
    names, found = _Names(vars(sys.modules[module])), dict[str, Any]()
    for name, hint in annotations.items():
        with contextlib.suppress(AttributeError, TypeError):  # such as tf.Tensor without tf
            one = types.SimpleNamespace(__annotations__={name: hint})
            found |= get_type_hints(one, names, names, include_extras=True)
    return found


def check_argument(where: str, name: str, value: Any, hint: Any) -> None:
    """Checks one argument of `where` against its annotation.

    Raises:
      ValueError: it is of another type.
    """
    if _fits(value, hint) is False:
        plain = all(isinstance(x, _PLAIN) for x in (value if isinstance(value, (list, tuple)) else [value]))
        shown = f"the {type(value).__name__} {value!r}" if plain else _kind(value)
        raise ValueError(f"{where}: {name} is {shown[:200]}; {_wanted(hint)} is needed")


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    what = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
    if isinstance(value, (list, tuple)):
        wrong = next((x for x in value if not isinstance(x, str)), None)
        return f"{what} with a {type(wrong).__name__}" if value and wrong is not None else what
    return what


def _fits(value: Any, hint: Any) -> bool | None:
    """Whether a value is of a type; None if that cannot be said."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        answers = [_fits(value, option) for option in arguments]
        return True if True in answers else None if None in answers else False
    if origin is Annotated:
        plain, *bounds = arguments
        return _fits(value, plain) and all(value >= bound.value for bound in bounds if isinstance(bound, AtLeast))
    if origin is Literal:
        return any(isinstance(value, type(option)) for option in arguments)
    if origin in _SEQUENCES:
        if not isinstance(value, (tuple, list)):
            iterable = hasattr(value, "__iter__") and not isinstance(value, (*_PLAIN, bytes, type))
            frame = hasattr(value, "__dataframe__") or isinstance(value, collections.abc.Mapping)
            scalar = getattr(value, "ndim", 1) == 0  # a tensor of no dimension, which has nothing to iterate over
            return None if iterable and not frame and not scalar and origin is not tuple else False
        if origin is tuple and Ellipsis not in arguments:
            each = zip(value, arguments, strict=False)
            return len(value) == len(arguments) and all(_fits(item, one) is not False for item, one in each)
        return all(_fits(item, arguments[0]) is not False for item in value)
    if origin is collections.abc.Mapping or origin is dict:
        return isinstance(value, collections.abc.Mapping)
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if hint in (int, float):
        wanted = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, wanted) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, (str, os.PathLike))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return isinstance(value, hint)
    return None


def _wanted(hint: Any) -> str:
    """Names a type for a message."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_wanted, arguments)))
    if origin is Annotated:
        plain, *bounds = arguments
        return " ".join([_wanted(plain), *(f"of at least {b.value}" for b in bounds if isinstance(b, AtLeast))])
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}: {', '.join(map(_wanted, arguments))}"
    if origin in _SEQUENCES:
        return f"a list of {_wanted(arguments[0])}"
    if hint in (None, type(None)):
        return "None"
    if origin is not None:
        return "a mapping" if origin in (dict, collections.abc.Mapping) else str(hint)
    return str(getattr(hint, "__name__", hint))
