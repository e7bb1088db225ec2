"""The words for what a listing of files says: candidates, their labels, and splits.

Types alone; how they are found is in `layouts` and `tables`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""The names of folders, and words in a split.csv, that mean a split."""


@dataclass(frozen=True)
class Candidate:
    """A file that should be a picture, with its label and, where it is laid down, its split."""

    file: str
    label: str
    split: Split | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that is left out, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Layout:
    """What the names say.

    Attributes:
        kind: The layout in words.
        candidates: In the order of names.
        labels: The classes, in index order.
        skipped: Files that the layout names or holds but that cannot be used.
        notes: What a person should know, one line each.
    """

    kind: str
    candidates: tuple[Candidate, ...]
    labels: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Names in the order of the alphabet, upper and lower case alike."""
    return tuple(sorted(names, key=lambda name: (name.casefold(), name)))
