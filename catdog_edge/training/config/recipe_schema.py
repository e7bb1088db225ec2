"""Check plain values, as YAML gives them, against annotations."""

from __future__ import annotations

import contextlib
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
    """Make a dataclass that calls `check_fields` from plain values by the names of its fields.

    Raises `CatdogError` for unknown and missing names, and see `check_fields`.
    """
    fields = {one.name: one.default for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    noun = kind.__name__.lower()
    for name in values:
        if name not in fields:
            raise CatdogError(f"a {noun} has no {_shorten(name)}; it has: {', '.join(fields)}")
    required = [name for name, default in fields.items() if default is dataclasses.MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise CatdogError(f"the {noun} lacks {', '.join(missing)}")
    return kind(**values)


def check_fields(instance: Any) -> None:
    """Check and convert a frozen dataclass's fields, for its `__post_init__`, see `check_value`."""
    for name, kind in typing.get_type_hints(type(instance), include_extras=True).items():
        object.__setattr__(instance, name, check_value(kind, getattr(instance, name), name))


def check_value(kind: Any, value: Any, name: str) -> Any:
    """Check and convert a plain value; raises `CatdogError` where it has another kind.

    Kinds are `int`, `float`, `bool`, `str`, `dict`, a `Literal`, a tuple of one kind, a dataclass
    that calls `check_fields`, `Annotated` with `Bounds`, and one of these or `None`.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if type(None) in args:
        return None if value is None else check_value(args[0], value, name)
    if origin is typing.Annotated:
        plain, bounds = args
        value = check_value(plain, value, name)
        if not bounds.low <= value <= bounds.high:
            raise bad_value(name, value, f"give {bounds.low:g} to {bounds.high:g}")
        return value
    wanted = _WANTED.get(kind, "")
    if origin is Literal:
        if value in args:
            return value
        wanted = f"choose one of: {', '.join(args)}"
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(check_value(args[0], one, name) for one in value)
        wanted = "expected a list"
    elif dataclasses.is_dataclass(kind):
        if isinstance(value, typing.cast("type[Any]", kind)):
            return value
        if isinstance(value, dict):
            return build(typing.cast("type[Any]", kind), value)
        names = ", ".join(field.name for field in dataclasses.fields(kind))
        wanted = f"expected a table with {names}"
    elif kind is float:
        # YAML 1.1 reads 1e-3 as text, people write it.
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            with contextlib.suppress(ValueError, OverflowError):
                if math.isfinite(number := float(value)):
                    return number
    elif type(value) is kind:
        return value
    raise bad_value(name, value, wanted)


_WANTED = {
    int: "expected a whole number", float: "expected a finite number",
    bool: "expected true or false", str: "expected text", dict: "expected a table",
}  # fmt: skip


def bad_value(name: str, value: Any, remedy: str) -> CatdogError:
    """Make the error for a value that is refused; it shows 60 characters of it."""
    return CatdogError(f"{name} is {_shorten(value)}; {remedy}")


def _shorten(value: Any) -> str:
    try:
        return repr(value)[:60]
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
