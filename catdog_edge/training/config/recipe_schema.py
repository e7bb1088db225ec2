"""Check plain values, as YAML gives them, against the annotations of a dataclass."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from catdog_edge.errors import CatdogError

T = TypeVar("T")


class Bounds(NamedTuple):
    """Limits of a number, both included: `Annotated[float, Bounds(0, 1)]`."""

    low: float
    high: float


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass from plain values.

    Args:
        kind: A dataclass that calls `check_fields`.
        values: By the names of its fields; those with a default may be missing.

    Raises:
        CatdogError: A name is unknown, a required one is missing, or see `check_fields`.
    """
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    noun, names = kind.__name__.lower(), [field.name for field in fields]
    unknown = [shorten(name) for name in values if name not in names]
    if unknown:
        raise CatdogError(f"a {noun} has no {unknown[0]}; it has: {', '.join(names)}")
    required = [field.name for field in fields if field.default is dataclasses.MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise CatdogError(f"the {noun} lacks {', '.join(missing)}")
    return kind(**values)


def check_fields(instance: Any) -> None:
    """Check and convert the fields of a frozen dataclass; for its `__post_init__`.

    Raises:
        CatdogError: A value has another type or is out of bounds.
    """
    for name, kind in typing.get_type_hints(type(instance), include_extras=True).items():
        object.__setattr__(instance, name, _checked(kind, getattr(instance, name), name))


def _checked(kind: Any, value: Any, name: str) -> Any:
    """A value as its annotation has it: a `Literal`, a number, text, a tuple, a dataclass."""
    wanted: str
    if typing.get_origin(kind) is typing.Annotated:
        plain, bounds = typing.get_args(kind)
        value = _checked(plain, value, name)
        if not bounds.low <= value <= bounds.high:
            raise CatdogError(f"{name} is {value}; give {bounds.low:g} to {bounds.high:g}")
        return value
    if typing.get_origin(kind) is Literal:
        if value in typing.get_args(kind):
            return value
        wanted = f"choose one of: {', '.join(typing.get_args(kind))}"
    elif typing.get_origin(kind) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_checked(typing.get_args(kind)[0], one, name) for one in value)
        wanted = "a list is wanted"
    elif dataclasses.is_dataclass(kind):
        if isinstance(value, dict):
            return build(typing.cast("type[Any]", kind), value)
        if isinstance(value, typing.cast("type[Any]", kind)):
            return value
        names = ", ".join(field.name for field in dataclasses.fields(kind))
        wanted = f"a table with {names} is wanted"
    elif kind is float:
        number = _number(value)
        if number is not None:
            return number
        wanted = "a finite number is wanted"
    else:
        if type(value) is kind:
            return value
        wanted = {int: "a whole number", bool: "true or false", str: "text"}[kind] + " is wanted"
    raise CatdogError(f"{name} is {shorten(value)}; {wanted}")


def _number(value: Any) -> float | None:
    """A finite number; YAML 1.1 reads 1e-3 as text, people write it."""
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def shorten(value: Any) -> str:
    """A value for a message, in at most 60 characters."""
    try:
        return repr(value)[:60]
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
