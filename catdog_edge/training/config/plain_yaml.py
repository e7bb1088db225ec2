"""Plain values from YAML that people write or edit, whatever nonsense is in it.

Knows nothing of what the values mean.
"""

from __future__ import annotations

from typing import Any

import yaml


def plain_values(text: str) -> Any:
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


def shown(value: Any) -> str:
    """A value as a message shows it, in at most 60 characters."""
    try:
        return repr(value)[:60]
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
