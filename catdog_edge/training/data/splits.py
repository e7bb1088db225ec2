"""Which picture is for training, for validation, for the test.

Splits go by content. The digest of a picture is a number between 0 and 1; under 0.8 it is for
training, under 0.9 for validation, the rest for the test. So a copy under another name is on
the same side, and neither order nor machine nor files that are added later move a picture.
80/10/10 is therefore what is expected, not an exact count: of 21,000 pictures about 2,100 are
in the test split, give or take 43 (one standard deviation).

Splits that people have laid down, as folders or in a `split.csv`, win over digests.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from catdog_edge.errors import DataError, PictureError
from catdog_edge.images.read import read_bytes
from catdog_edge.training.data.dataset import SPLIT_NAMES, SPLITS, Candidate, Layout, Split
from catdog_edge.training.data.sources import Skipped, Source

Assign = Callable[[Candidate, str], Split]
"""From a file and the digest of its picture to its split."""


DEFAULT_SPLIT = (80, 10, 10)
"""Percent for training, validation and test."""


def split_of(trained_on: Mapping[str, Any]) -> tuple[float, ...]:
    """The shares that a model was trained with, by its spec.

    Args:
        trained_on: Of the spec; it may come from anywhere.

    Returns:
        Those of `--split`; the default where the spec names none that make sense.
    """
    split = trained_on.get("split", DEFAULT_SPLIT)
    numbers = isinstance(split, list | tuple) and all(type(one) is int for one in split)
    return tuple(split) if numbers and len(split) == 3 and sum(split) == 100 else DEFAULT_SPLIT


def shares_of(split: Sequence[float]) -> tuple[float, ...]:
    """Shares of train, val and test that add up to 1.

    Raises:
        DataError: They are not three, or negative, or all 0.
    """
    shares = tuple(float(share) for share in split)
    if len(shares) != 3 or min(shares) < 0 or not 0 < sum(shares) < float("inf"):
        raise DataError(
            f"--split takes three shares, train, val and test, such as 80,10,10; got "
            f"{','.join(f'{share:g}' for share in shares)}"
        )
    return tuple(share / sum(shares) for share in shares)


def assignment(shares: Sequence[float], fixed: Iterable[Split | None]) -> Assign:
    """Who decides a picture's split: its folder or split.csv, or else its digest.

    Where folders name some splits but not all, the missing ones are cut out of the training
    pictures, in their share.
    """
    given = set(fixed)
    missing = [s for s, share in zip(SPLITS, shares) if share > 0 and s != "train"]
    missing = [s for s in missing if s not in given]
    share_of = dict(zip(SPLITS, shares))

    def assign(candidate: Candidate, digest: str) -> Split:
        if candidate.split is not None and (candidate.split != "train" or not missing):
            return candidate.split
        pool: tuple[Split, ...] = SPLITS if candidate.split is None else ("train", *missing)
        total = sum(share_of[split] for split in pool)
        place = int(digest[:16], 16) / 2**64 * total
        for split in pool:
            place -= share_of[split]
            if place < 0:
                return split
        return max(pool, key=lambda split: share_of[split])

    return assign


def expected_shares(candidates: Sequence[Candidate], shares: Sequence[float]) -> tuple[float, ...]:
    """The share of the pictures that each split will get, where `assignment` assigns them."""
    laid = Counter(candidate.split for candidate in candidates)
    if None in laid:
        return tuple(shares)
    wanted = dict(zip(SPLITS, shares))
    found = {split: laid[split] / len(candidates) for split in SPLITS}
    cut: list[Split] = ["train", *(split for split in SPLITS if not laid[split])]
    whole = found["train"]
    for split in cut:
        found[split] = whole * wanted[split] / max(1e-9, sum(wanted[name] for name in cut))
    return tuple(found.values())


def from_split_csv(
    path: Path,
    source: Source,
    layout: Layout,
    labels: Sequence[str] | None,
    limit: int | None = None,
) -> Layout:
    """The pictures, labels and splits that a `split.csv` names, whatever the layout says.

    Args:
        path: The file.
        source: Where the pictures are.
        layout: What the names say.
        labels: The classes in index order, where somebody has named them.
        limit: How many pictures the run was to take: those that it left out are no news.

    Raises:
        DataError: The file cannot be read, lacks a column, or contradicts itself.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig", errors="surrogateescape")
    except PictureError as error:
        raise DataError(f"{path}: {error}") from error
    # Line breaks as they are: one inside quotes belongs to the name of a file.
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns = set(reader.fieldnames or ())
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"{path} is no CSV that can be read ({error})") from error
    if not {"file", "label", "split"} <= columns:
        raise DataError(f"{path} must have the columns file, label and split")
    candidates: dict[str, Candidate] = {}
    skipped = []
    for row in rows:
        split = SPLIT_NAMES.get(str(row["split"]).strip().lower())
        if split is None:
            raise DataError(
                f"{path}: {row['file']} has the split {row['split']!r}; use train, val or test"
            )
        if row["file"] not in source.entries:
            skipped.append(Skipped(row["file"], f"listed in {path.name}, but no longer there"))
        elif candidates.setdefault(
            row["file"], Candidate(row["file"], row["label"], split)
        ) != Candidate(row["file"], row["label"], split):
            raise DataError(f"{path}: {row['file']} is listed twice, differently")
    named = {candidate.label for candidate in candidates.values()}
    order = tuple(labels) if labels is not None else layout.labels
    unknown = sorted(named - set(order))
    if unknown:
        if labels is not None:
            raise DataError(f"{path} has the class {unknown[0]!r}, --labels does not")
        order = tuple(sorted(named))
    new = len(layout.candidates) - sum(c.file in candidates for c in layout.candidates)
    notes = (
        (f"{new:,} pictures are not in {path.name} and are left out",)
        if new > 0 and limit is None
        else ()
    )
    return Layout(
        f"splits from {path.name}",
        tuple(sorted(candidates.values(), key=lambda candidate: candidate.file)),
        order,
        tuple(skipped),
        (*layout.notes, *notes),
    )
