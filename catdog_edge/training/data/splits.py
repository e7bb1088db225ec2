"""Which image is for training, for validation, for the test.

Splits go by content: the digest of an image is a number between 0 and 1; under 0.8 it is for
training, under 0.9 for validation, the rest for the test. So copies are in one split, and
neither names nor order nor files that are added later move an image. 80/10/10 is what is
expected, not an exact count: of 21,000 images about 2,100 are in the test split, give or take
43 (one standard deviation).

Splits that are laid down, as folders or in a `split.csv`, win over digests.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from catdog_edge.errors import DataError, PictureError
from catdog_edge.images.read import read_bytes
from catdog_edge.training.data.dataset import SPLIT_NAMES, SPLITS, Candidate, Layout, Split
from catdog_edge.training.data.decode import Decoded
from catdog_edge.training.data.sources import Skipped, Source

DEFAULT_SPLIT = (80, 10, 10)
"""Percent for training, validation and test."""


def split_of(trained_on: Mapping[str, Any]) -> tuple[float, ...]:
    """The shares that a model was trained with, by `ModelSpec.trained_on`.

    Returns:
        Those of `--split`; the default where the spec has none that make sense.
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


class Splitter:
    """Assigns images to splits.

    Args:
        shares: Of train, val and test; they add up to 1.
        candidates: All images. Where folders name some splits, the missing ones are cut out
            of the training images, in their share.
        complete: The splits of the candidates are complete, and nothing is cut.
    """

    def __init__(
        self, shares: Sequence[float], candidates: Sequence[Candidate], complete: bool = False
    ) -> None:
        self.shares = dict(zip(SPLITS, shares))
        self._laid_down = Counter(candidate.split for candidate in candidates)
        evaluated: tuple[Split, ...] = () if complete else ("val", "test")
        self._cut = [s for s in evaluated if self.shares[s] > 0 and not self._laid_down[s]]

    @property
    def follows_names(self) -> bool:
        """Whether names say the split of some images."""
        return set(self._laid_down) != {None}

    def by_digest(self, candidate: Candidate, digest: str) -> Split:
        """The split of an image: the one that its name says, or else by its digest."""
        if candidate.split is not None and (candidate.split != "train" or not self._cut):
            return candidate.split
        pool: tuple[Split, ...] = SPLITS if candidate.split is None else ("train", *self._cut)
        place = int(digest[:16], 16) / 2**64 * sum(self.shares[split] for split in pool)
        for split in pool:
            place -= self.shares[split]
            if place < 0:
                return split
        return max(pool, key=lambda split: self.shares[split])

    def expected(self) -> dict[Split, float]:
        """The share of the images that each split will get."""
        if None in self._laid_down:
            return dict(self.shares)
        found = {split: self._laid_down[split] / self._laid_down.total() for split in SPLITS}
        pool: list[Split] = ["train", *self._cut]
        whole, total = found["train"], sum(self.shares[split] for split in pool)
        return found | {split: whole * self.shares[split] / max(1e-9, total) for split in pool}


def read_some(
    layout: Layout,
    limit: int,
    seed: int,
    splitter: Splitter,
    read: Callable[[Sequence[Candidate]], list[Decoded]],
    progress: Callable[[int, int], None] | None,
) -> list[Decoded]:
    """Take a subset, stratified by class and split, decoding hardly more than it needs.

    Files come in the order of a hash of their names; each is taken while its class and split
    has room. So neither their order nor the machine matters.
    """
    if limit < 1:
        raise DataError(f"--limit must be at least 1, got {limit}")
    order = sorted(layout.candidates, key=lambda one: _hash(f"{seed}\0{one.file}"))
    each = limit // len(layout.labels)
    size = {s: max(1, round(each * share)) for s, share in splitter.expected().items() if share > 0}
    # What rounding has added comes off the largest split, so that limit is not exceeded.
    largest = max(size, key=lambda split: size[split])
    size[largest] = max(1, size[largest] - max(0, sum(size.values()) - each))
    room = Counter({(label, s): count for label in layout.labels for s, count in size.items()})
    wanted, taken = room.total(), []
    for start in range(0, len(order), 64):
        for one in read(order[start : start + 64]):
            place = one.candidate.label, splitter.by_digest(one.candidate, one.digest or "0")
            if one.digest and room[place] > 0:
                room[place] -= 1
                taken.append(one)
        if not room.total():
            break
        if progress is not None:
            progress(len(taken), wanted)
    if progress is not None:
        progress(len(taken), len(taken))
    return taken


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def from_split_csv(
    path: Path, source: Source, layout: Layout, labels: Sequence[str] | None, limit: int | None
) -> Layout:
    """The images, labels and splits of a `split.csv`, whatever the layout says.

    Args:
        path: The file.
        source: Where the images are.
        layout: What the names say.
        labels: The classes in index order, where somebody has named them.
        limit: Of the run: images that it left out need no note.

    Raises:
        DataError: The file cannot be read, lacks a column, or contradicts itself.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig", errors="surrogateescape")
        # Line breaks as they are: one inside quotes belongs to the name of a file.
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (PictureError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    if rows and not {"file", "label", "split"} <= set(rows[0]):
        raise DataError(f"{path} must have the columns file, label and split")
    candidates: dict[str, Candidate] = {}
    skipped = []
    for row in rows:
        file, word = row["file"], row["split"]
        split = SPLIT_NAMES.get(str(word).strip().lower())
        if split is None:
            raise DataError(f"{path}: {file} has the split {word!r}; use train, val or test")
        candidate = Candidate(file, row["label"], split)
        if file not in source.entries:
            skipped.append(Skipped(file, f"listed in {path.name}, but no longer there"))
        elif candidates.setdefault(file, candidate) != candidate:
            raise DataError(f"{path}: {file} is listed twice, differently")
    order = layout.labels if labels is None else tuple(labels)
    unknown = sorted({one.label for one in candidates.values()} - set(order))
    if unknown and labels is not None:
        raise DataError(f"{path} has the class {unknown[0]!r}, --labels does not")
    new = sum(one.file not in candidates for one in layout.candidates)
    note = f"{new:,} images are not in {path.name} and are left out"
    return replace(
        layout,
        kind=f"splits from {path.name}",
        candidates=tuple(sorted(candidates.values(), key=lambda one: one.file)),
        labels=tuple(sorted({one.label for one in candidates.values()})) if unknown else order,
        skipped=tuple(skipped),
        notes=(*layout.notes, note) if new and limit is None else layout.notes,
    )
