"""Recipes by name, and recipes from YAML files, checked value by value.

Knows the form of a recipe, nothing of what it does.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from catdog_edge.errors import CatdogError
from catdog_edge.training.config.recipes import RECIPES, Recipe, Stage

RENAMED = {"others": "negatives"}
"""Names of attributes in files of earlier versions."""


def recipe(name: str) -> Recipe:
    """Look a recipe up, or read it from a file.

    Args:
        name: One of `RECIPES`, or the path of a `.yaml` file.

    Raises:
        CatdogError: There is none of that name; the file cannot be read, or see `from_dict`.
    """
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise CatdogError(
            f"there is no recipe {name!r}; choose one of: {', '.join(RECIPES)}; or name a "
            ".yaml file (one to start from: catdog-edge train --show-recipe)"
        )
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatdogError(
            f"cannot read the recipe {path}: {error.strerror}; make one to start from with: "
            f"catdog-edge train --show-recipe > {path.name}"
        ) from error
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise CatdogError(f"{path} is not YAML ({reason}); mend it") from error
    if not isinstance(document, dict):
        raise CatdogError(f"{path} is not a recipe; lines like `lr: 0.01` are wanted")
    return from_dict({**document, "name": path.stem}, str(path))


def from_dict(document: Mapping[str, Any], source: str) -> Recipe:
    """A recipe from plain values.

    Args:
        document: Names of attributes and their values; those that have a default may
            be absent.
        source: Where it comes from, for messages.

    Raises:
        CatdogError: A name is unknown, a value is of another kind or out of bounds, or
            something is missing.
    """
    known = typing.get_type_hints(Recipe)
    document = {RENAMED.get(name, name): value for name, value in document.items()}
    unknown = [shorten(name) for name in document if name not in known]
    if unknown:
        raise CatdogError(f"{source}: a recipe has no {unknown[0]}; it has: {', '.join(known)}")
    required = [
        field.name for field in dataclasses.fields(Recipe) if field.default is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in document]
    if missing:
        raise CatdogError(f"{source}: the recipe lacks {', '.join(missing)}")
    values = {
        name: _value(known[name], value, f"{source}: {name}") for name, value in document.items()
    }
    return Recipe(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    """A plain value, checked against the annotation of its attribute."""
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise CatdogError(f"{where} is {shorten(value)}; choose one of: {', '.join(choices)}")
        return value
    if kind is float and isinstance(value, str):
        # YAML 1.1 reads 1e-3 as text; people write it.
        try:
            value = float(value)
        except ValueError:
            raise CatdogError(f"{where} is {shorten(value)}; a number is wanted") from None
    if isinstance(value, int) and value.bit_length() > 63:
        raise CatdogError(f"{where} is {shorten(value)}; a smaller number is wanted")
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise CatdogError(f"{where} is {value}; a finite number is wanted")
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    if kind == tuple[Stage, ...] and isinstance(value, list):
        return tuple(_stage(one, where) for one in value)
    wanted = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    expected = wanted.get(kind, "a list of stages")
    raise CatdogError(f"{where} is {shorten(value)}; {expected} is wanted")


def _stage(document: Any, where: str) -> Stage:
    form = "a stage is written as {until: 0.8, scales: [0.5, 1]}"
    if not isinstance(document, dict) or set(document) != {"until", "scales"}:
        raise CatdogError(f"{where}: {form}, not as {shorten(document)}")
    scales = document["scales"]
    if not isinstance(scales, list):
        raise CatdogError(f"{where}: {form}, not as {shorten(document)}")
    until = _value(float, document["until"], f"{where}: until")
    drawn = tuple(_value(float, scale, f"{where}: scales") for scale in scales)
    try:
        return Stage(until, drawn)
    except CatdogError as error:
        raise CatdogError(f"{where}: {error}") from error


def parse_yaml(text: str) -> Any:
    """What a YAML document says: tables, lists, numbers, text.

    Raises:
        ValueError: It is no YAML, or a value in it is not what it claims to be.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    # PyYAML lets through what its own constructors run into: a date of month 13, an `!!int`
    # that is none, a number of thousands of digits, brackets as deep as its stack.
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"a value in it cannot be read: {error}") from error


def shorten(value: Any) -> str:
    """A value as a message shows it, in at most 60 characters."""
    try:
        return repr(value)[:60]
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
