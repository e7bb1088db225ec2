"""Assign images to the training, validation and test splits.

The digest of an image is a number between 0 and 1; below 0.8 it is for training, below 0.9 for
validation, the rest for testing. So copies are in one split, regardless of names and order. If a
class would be missing in a split, its image with the digest nearest to that split moves there. If
its share of val or test is at most one image, it has exactly one there. Splits that are assigned,
as folders or in a table, take precedence over digests.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice, product
from pathlib import PurePosixPath
from typing import Any

from catdog_edge.errors import DataError
from catdog_edge.system.console import progress_bar
from catdog_edge.training.data.dataset import SPLITS, Candidate, Decoded, FileLayout, Split

DEFAULT_SPLIT = (80, 10, 10)  # percent for training, validation and test

_SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout"), "test"),
}
_FILLER = re.compile(
    "(data)?sets?|data|splits?|images?|imgs?|pictures?|photos?|pics?|files?|folder|labels?|masks?|"
    "annotations?|class(es)?|list|csv|folds?|parts?|batch|chunk|shard|unlabell?ed|unsorted|"
    "originals?|augmented|cropped|resized|preprocessed"
)
# `Xtrain` beside `Xtest`.
_GLUED = re.compile(r"(.+?)[\W_]*(train|training|val|valid|validation|test|testing)", re.IGNORECASE)


def split_names(names: Iterable[str], labels: Sequence[str] | None = None) -> dict[str, Split]:
    """Find the names of splits among sibling names.

    If all `labels` are among the names, they are classes, not splits.

    Examples:
        >>> split_names(["training_set", "test_set"])
        {'training_set': 'train', 'test_set': 'test'}
        >>> split_names(["seg_train", "seg_test", "notes"])
        {'seg_train': 'train', 'seg_test': 'test'}
        >>> split_names(["steam train", "bus"])
        {}
        >>> split_names(["Xtrain", "Xtest"])
        {'Xtrain': 'train', 'Xtest': 'test'}
    """
    parsed = {name: _parse(name) for name in names}
    for name, (split, _) in parsed.items():
        if split is None and (match := _GLUED.fullmatch(name)):
            parsed[name] = _SPLIT_WORDS[match[2].lower()], f"{match[1].lower()} ..."
    if labels is not None and {one.casefold() for one in labels} <= {n.casefold() for n in parsed}:
        return {}
    # `seg_train` is a split beside `seg_test`: the rest of the name is the same.
    splits = defaultdict(set)
    for split, rest in parsed.values():
        splits[rest].add(split)
    found = {
        name: split
        for name, (split, rest) in parsed.items()
        if split is not None and (not rest or len(splits[rest] - {None}) > 1)
    }
    if len(set(found.values())) > 1:  # `train_large` beside `train_small` and `test_small`
        found |= {name: split for name, (split, _) in parsed.items() if split is not None}
    return {name: found[name] for name in parsed if name in found}


def says_no_class(name: str) -> bool:
    """Check whether a name is generic: `images_2`, `fold 1`, `train`; not `class 1`."""
    if re.fullmatch(r"class[\W_]*\d+", name.casefold()):
        return False
    return _parse(name)[1] == "" and any(character.isalpha() for character in name)


def split_folders(files: Iterable[str]) -> tuple[int, dict[str, Split]]:
    """Find folders that are splits, with one to train on, and nothing else, below a common one.

    Returns:
        The number of folders above them, and the split of each; empty if there are none.

    Examples:
        >>> split_folders(["out/train/hall/1.jpg", "out/test/2.jpg"])
        (1, {'test': 'test', 'train': 'train'})
        >>> split_folders(["train/1.jpg", "bus/2.jpg"])
        (0, {})
    """
    folders = {posixpath.dirname(file) for file in files}
    depth = len(PurePosixPath(posixpath.commonpath(folders or {""})).parts)
    below = [PurePosixPath(folder).parts[depth:] for folder in folders]
    names = {parts[0] if parts else "" for parts in below}
    found = split_names(sorted(names))
    every = len(names) > 1 and names == set(found) and "train" in found.values()
    return depth, found if every else {}


def split_word(name: str) -> Split | None:
    """Return the split named by a word in a name, such as `train-clean`."""
    return _parse(name)[0]


def _parse(name: str) -> tuple[Split | None, str]:
    """Return the split named by a word in a name, and its other words."""
    name = re.sub(r"(?i)hold[\W_]*out", "holdout", name)
    name = re.sub(r"(?i)cross[\W_]*(?=validation)", "", name)
    words = [word.lower() for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+", name)]
    # `trainset`, `testdata`
    words = [re.sub(r"^(train|val|test)(set|data|images)$", r"\1", word) for word in words]
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    rest = " ".join(
        word for word in words if word not in _SPLIT_WORDS and not _FILLER.fullmatch(word)
    )
    if found == {"train", "val"}:  # `train_val`: validation is cut out of it
        return "train", rest
    return (found.pop() if len(found) == 1 else None), rest


def split_of(trained_on: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the shares that a model was trained with, from its `trained_on`; else the default."""
    split = trained_on.get("split", DEFAULT_SPLIT)
    numbers = isinstance(split, list | tuple) and all(type(one) is int for one in split)
    return tuple(split) if numbers and len(split) == 3 and sum(split) == 100 else DEFAULT_SPLIT


def shares_of(split: Sequence[float]) -> tuple[float, ...]:
    """Scale shares of train, val and test to a sum of 1; `DataError` if they are invalid."""
    shares = tuple(float(share) for share in split)
    if len(shares) != 3 or min(shares) < 0 or not 0 < sum(shares) < float("inf"):
        raise DataError(
            f"--split takes three shares, train, val and test, such as 80/10/10; got "
            f"{'/'.join(f'{share:g}' for share in shares)}"
        )
    return tuple(share / sum(shares) for share in shares)


class Splitter:
    """Assigns images to splits.

    Where some candidates have a split, those without are for training, and a split that none has
    is cut out of the training images, in its share; if `complete`, nothing is cut.

    Attributes:
        key: Digest of the shares and of the assigned splits.
        moved: Digest and split of the images that `assign` has moved from their digest's split.
    """

    def __init__(
        self, shares: Sequence[float], candidates: Sequence[Candidate], complete: bool = False
    ) -> None:
        self.moved: dict[str, Split] = {}
        self._laid_down = Counter(candidate.split for candidate in candidates)
        self.follows_names = set(self._laid_down) != {None}
        pool = {
            split: share
            for split, share in zip(SPLITS, shares)
            if share > 0 and not complete and (split == "train" or not self._laid_down[split])
        }
        self.key = str(pool)
        # Each split's part of the numbers 0..1 that a digest can be.
        self._parts: dict[Split, tuple[float, float]] = {}
        start = 0.0
        for split, share in pool.items():
            end = start + share / sum(pool.values())
            self._parts[split] = start, end
            start = end

    def _is_free(self, candidate: Candidate) -> bool:
        return candidate.split in (None, "train") and bool(self._parts)

    def by_digest(self, candidate: Candidate, digest: str) -> Split:
        """Return the split of an image, from its assigned split or its digest."""
        if not self._is_free(candidate):
            return candidate.split or "train"
        *others, last = self._parts
        place = _place(digest)
        return next((split for split in others if place < self._parts[split][1]), last)

    def assign(self, found: Sequence[Decoded], whole: Collection[str] | None = None) -> list[Split]:
        """Assign all images to splits: by their digests, but of every class in its share.

        Only images of the classes in `whole` move; `None`: of all classes.
        """
        free: dict[str, Split] = {}
        labels_of: dict[str, set[str]] = defaultdict(set)
        members: dict[str, dict[Split, set[str]]] = defaultdict(lambda: defaultdict(set))
        for one in found:
            split = self.by_digest(one.candidate, one.digest)
            members[one.candidate.label][split].add(one.digest)
            labels_of[one.digest].add(one.candidate.label)
            if self._is_free(one.candidate):
                free[one.digest] = split
        self.moved = {}

        def move(digest: str, split: Split) -> None:
            for name in labels_of[digest]:
                members[name][free[digest]].discard(digest)
                members[name][split].add(digest)
            free[digest] = self.moved[digest] = split

        movable = sorted(members if whole is None else members.keys() & whole)
        for label, split in product(movable, self._parts):
            if members[label][split]:
                continue
            spare = [
                digest
                for digest in set().union(*members[label].values()) & free.keys()
                if all(len(members[name][free[digest]]) > 1 for name in labels_of[digest])
            ]
            if spare:
                move(min(spare, key=lambda one: (self._distance(one, split), one)), split)
        for label, split in product(movable, self._parts if "train" in self._parts else ()):
            start, end = self._parts[split]
            total = sum(len(digests & free.keys()) for digests in members[label].values())
            if split != "train" and (end - start) * total <= 1:
                for digest in sorted(members[label][split] & free.keys(), key=_place)[1:]:
                    if all(len(members[name][split]) > 1 for name in labels_of[digest]):
                        move(digest, "train")
        return [
            free[one.digest] if self._is_free(one.candidate) else self.by_digest(one.candidate, "")
            for one in found
        ]

    def _distance(self, digest: str, split: Split) -> float:
        (start, end), place = self._parts[split], _place(digest)
        return max(start - place, place - end, 0.0)

    def expected(self) -> dict[Split, float]:
        """Return the share of the images that each split will get."""
        total = self._laid_down.total()
        found = {split: self._laid_down[split] / total for split in SPLITS}
        rest = found["train"] + self._laid_down[None] / total
        parts = self._parts or {"train": (0.0, 1.0)}
        return found | {split: rest * (end - start) for split, (start, end) in parts.items()}


def _place(digest: str) -> float:
    """Convert a digest to a number between 0 and 1."""
    return int(digest[:16], 16) / 2**64


def read_subset(
    layout: FileLayout,
    limit: int,
    seed: int,
    splitter: Splitter,
    read: Callable[[Sequence[Candidate]], list[Decoded]],
) -> tuple[list[Decoded], dict[str, Split]]:
    """Select a subset, stratified by class and split, decoding few other files.

    Files are ordered by a hash of their names; each is selected until its class and split is
    full, and no more of a full class are read. A class that is too small for its share of a split
    is read whole, since `Splitter.assign` moves its images. Returns all decoded files, and the
    splits of the selected ones.
    """
    if limit < 1:
        raise DataError(f"--limit must be at least 1, got {limit}")

    def place(one: Candidate) -> bytes:
        return hashlib.sha256(f"{seed}\0{one.file}".encode("utf-8", "surrogateescape")).digest()

    order = sorted(layout.candidates, key=place)
    each = limit // len(layout.labels)
    shares = {split: share for split, share in splitter.expected().items() if share > 0}
    size = {split: max(1, round(each * share)) for split, share in shares.items()}
    # What rounding has added comes off the largest split, so that limit is not exceeded.
    largest = max(size, key=lambda split: size[split])
    size[largest] = max(1, size[largest] - max(0, sum(size.values()) - each))
    places = Counter({(name, split): n for name in layout.labels for split, n in size.items()})
    in_class = Counter(one.label for one in order)
    large = {name for name, n in in_class.items() if n * min(shares.values()) > 1}
    room, total, lacking = places.copy(), places.total(), set(layout.labels)
    queue = (one for one in order if one.label in lacking)
    read_all: list[Decoded] = []
    count = progress_bar("reading images", total)
    while batch := list(islice(queue, 64)):
        decoded = read(batch)
        read_all += decoded
        found = [one for one in decoded if one.digest]
        _take(found, [splitter.by_digest(one.candidate, one.digest) for one in found], room)
        lacking -= {name for name in large if not any(room[name, split] for split in size)}
        count(total - room.total())
    count(total)
    seen = Counter(one.candidate.label for one in read_all)
    whole = {name for name, n in in_class.items() if seen[name] == n}
    found = [one for one in read_all if one.digest]
    return read_all, _take(found, splitter.assign(found, whole), places)


def _take(
    found: Sequence[Decoded], splits: Sequence[Split], room: Counter[tuple[str, Split]]
) -> dict[str, Split]:
    """Select the first images for which there is room, and take their places from it."""
    taken: dict[str, Split] = {}
    for one, split in zip(found, splits):
        place = one.candidate.label, split
        if room[place] > 0:
            room[place] -= 1
            taken[one.candidate.file] = split
    return taken
