"""Find a recipe by its name, or read it from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from catdog_edge.errors import CatdogError
from catdog_edge.training.config.recipes import RECIPES, Recipe
from catdog_edge.training.config.schema import build

RENAMED = {"others": "negatives"}
"""Names of attributes in files of earlier versions."""


def recipe(name: str) -> Recipe:
    """Look a recipe up, or read it from a file.

    Args:
        name: One of `RECIPES`, or the path of a `.yaml` file.

    Raises:
        CatdogError: There is none of that name; the file cannot be read, or see `from_dict`.

    Example:
        >>> recipe("classic").lr
        0.001
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
        raise CatdogError(f"{path} is not YAML ({reason}); correct it") from error
    if not isinstance(document, dict):
        raise CatdogError(f"{path} is not a recipe; lines like `lr: 0.01` are wanted")
    return from_dict({**document, "name": path.stem}, str(path))


def from_dict(document: Mapping[str, Any], source: str) -> Recipe:
    """Make a recipe from plain values.

    Args:
        document: Attributes of `Recipe` by name; those with a default may be missing.
        source: The file they come from, for messages.

    Raises:
        CatdogError: See `schema.build`.
    """
    try:
        return build(Recipe, {RENAMED.get(name, name): value for name, value in document.items()})
    except CatdogError as error:
        raise CatdogError(f"{source}: {error}") from error


def parse_yaml(text: str) -> Any:
    """Parse a YAML document into tables, lists, numbers and text.

    Raises:
        ValueError: It is not YAML, or a value in it cannot be read.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    # PyYAML lets errors of its constructors through: a date of month 13, an `!!int` that is
    # none, a number of thousands of digits, brackets as deep as its stack.
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"a value in it cannot be read: {error}") from error
