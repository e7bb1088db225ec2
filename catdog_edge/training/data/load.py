"""A data set: which pictures, which label, which split; and their pixels, decoded once.

Puts together where pictures are (`sources`), how labels are told (`layouts`), which picture is
for what (`splits`) and what is already decoded (`cache`); knows nothing of networks.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import CatdogError, DataError
from catdog_edge.images.read import is_picture
from catdog_edge.spec import NEITHER, ResizeStep
from catdog_edge.training.data.dataset import (
    SPLITS,
    Candidate,
    Dataset,
    Item,
    Layout,
    Split,
    changed,
    sorted_names,
    write_csv,
)
from catdog_edge.training.data.decode import Progress, Reading, decoded
from catdog_edge.training.data.layouts import find_layout
from catdog_edge.training.data.pixel_cache import Cache, PixelWriter
from catdog_edge.training.data.sources import Skipped, Source, open_source
from catdog_edge.training.data.splits import assignment, expected_shares, from_split_csv, shares_of

__all__ = [
    "SPLITS",
    "Dataset",
    "Item",
    "Skipped",
    "Split",
    "open_dataset",
    "open_negative_images",
    "pixels",
]

NEGATIVES_SPLIT = (0.4, 0.1, 0.5)
"""Of pictures that show none of the classes: to train on, to choose by, to report on."""

MAX_SKIPPED = 0.05
"""A set of which more than this share cannot be read is not the set that was meant."""


def open_dataset(
    source: str | os.PathLike[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    split: Sequence[float] = (80, 10, 10),
    limit: int | None = None,
    seed: int = 0,
    split_csv: str | os.PathLike[str] | None = None,
    steps: Sequence[ResizeStep] | None = None,
    progress: Progress | None = None,
    required: Sequence[Split] | None = None,
) -> Dataset:
    """Open a data set and decide which picture is for what.

    The first time, every picture is decoded for its digest; later only files that are new or
    changed.

    Args:
        source: A folder, a `.zip`, `sample`, or `oxford-pets` (fetched); `None` takes
            `$CATDOG_DATA` or else `sample`.
        labels: Class names in index order; see `layouts.find_layout`.
        split: Shares of train, val and test. A share of 0 means that there is none.
        limit: Take at most this many pictures, stratified by class and split (one of each at
            least); the same ones every time, and mostly the same when files are added.
        seed: Which ones `limit` takes; nothing else.
        split_csv: A file with the columns file, label and split. It wins over everything:
            only the pictures in it are taken.
        steps: The resize rule of the model. With it, the first decoding also fills the cache
            that `pixels` opens, so that nothing is decoded twice.
        progress: Called now and then with how many pictures are decoded, and of how many.
        required: The splits that must have every class; `None`: all that have a share.

    Raises:
        DataError: There is no such source, no layout fits, fewer than two classes, more than
            5 % of the files cannot be read, or a split lacks a class.
    """
    shares = shares_of(split)
    opened = open_source(source)
    layout = find_layout(opened, labels)
    if NEITHER in layout.labels:
        raise DataError(
            f"{opened.name}: a class cannot be called {NEITHER!r}, that is the answer when no "
            "class is seen; rename it"
        )
    if split_csv is not None:
        layout = from_split_csv(Path(split_csv), opened, layout, labels, limit)
    dataset = _read(opened, layout, shares, limit, seed, split_csv is not None, steps, progress)
    if required is None:
        wanted = [name for name, share in zip(SPLITS, shares) if share > 0]
        _check_classes(dataset, wanted, ", or give that split a larger share with --split")
    else:
        _check_classes(dataset, required)
    return dataset


def open_negative_images(
    source: str | os.PathLike[str],
    *,
    steps: Sequence[ResizeStep] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Open pictures that show none of the classes, as a data set whose one class is `neither`.

    Four tenths are for training, one for choosing the threshold, half for the test, by the
    digest of the picture: what is reported is measured on pictures that nothing was chosen by.

    Args:
        source: A folder or a `.zip`; every picture in it counts, whatever its name.
        steps: See `open_dataset`.
        progress: See `open_dataset`.

    Raises:
        DataError: There is no such source, it has no pictures, more than 5 % of the files
            cannot be read, or a split is left without a picture.
    """
    opened = open_source(source)
    pictures = sorted_names(name for name in opened.entries if is_picture(name))
    if not pictures:
        raise DataError(f"{opened.name} has no pictures in it (.jpg, .png, ...)")
    candidates = tuple(Candidate(name, NEITHER) for name in pictures)
    layout = Layout("pictures of none of the classes", candidates, (NEITHER,))
    dataset = _read(opened, layout, NEGATIVES_SPLIT, None, 0, False, steps, progress)
    _check_classes(dataset, SPLITS)
    return dataset


def _read(
    opened: Source,
    layout: Layout,
    shares: tuple[float, ...],
    limit: int | None,
    seed: int,
    laid_down: bool,
    steps: Sequence[ResizeStep] | None,
    progress: Progress | None,
) -> Dataset:
    fixed = {candidate.split for candidate in layout.candidates} - {None}
    assign = assignment(shares, SPLITS if laid_down else fixed)
    cache = Cache(opened)
    reading = Reading(opened, cache, assign, progress)
    names = [candidate.file for candidate in layout.candidates]
    with contextlib.nullcontext() if cache.knows_all(names) else cache.turn():
        if limit is None or laid_down:
            reading.read(layout.candidates, steps)
        else:
            reading.read_some(layout, limit, seed, expected_shares(layout.candidates, shares))
        cache.save()
    skipped = (*opened.closed, *layout.skipped, *reading.skipped)
    _check_skipped(opened.name, skipped, len(reading.found), cache.folder)
    index = {label: number for number, label in enumerate(layout.labels)}
    items = [
        Item(candidate.file, index[candidate.label], assign(candidate, digest), digest)
        for candidate, digest in sorted(reading.found, key=lambda pair: pair[0].file)
    ]
    items, leaks = _without_leaks(items) if fixed else (items, [])
    return Dataset(
        source=opened.name,
        labels=layout.labels,
        items=tuple(items),
        skipped=(*skipped, *leaks),
        layout=layout.kind,
        notes=(*layout.notes, *_contradictions(items, layout.labels)),
        _source=opened,
        _cache=cache,
    )


def pixels(
    dataset: Dataset,
    split: Split,
    steps: Sequence[ResizeStep],
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[Item]]:
    """The pictures of a split at the model's size, decoded once and memory-mapped.

    Args:
        dataset: From `open_dataset`.
        split: Which one.
        steps: The resize rule of the model.
        progress: Called where pictures have to be decoded.

    Returns:
        `uint8 [n,S,S,3]` BGR, read-only; `int64 [n]`, the labels; the pictures themselves.

    Raises:
        DataError: A picture has changed since the set was opened, or the disk is full.
    """
    assert dataset._source is not None
    assert dataset._cache is not None
    source, cache = dataset._source, dataset._cache
    items = dataset.items_of(split)
    files = [item.file for item in items]
    targets = np.array([item.label for item in items], np.int64)
    if not items:
        return np.zeros((0, steps[-1].height, steps[-1].width, 3), np.uint8), targets, items
    found = cache.open_pixels(files, steps)
    if found is None:
        with cache.turn():
            found = cache.open_pixels(files, steps)  # another process may have written them
            if found is None:
                _write_pixels(dataset, cache, source, items, steps, progress)
                found = cache.open_pixels(files, steps)
    if found is None:
        raise DataError(f"the cache {cache.folder} was removed while it was written; run it again")
    return found, targets, items


def _write_pixels(
    dataset: Dataset,
    cache: Cache,
    source: Source,
    items: Sequence[Item],
    steps: Sequence[ResizeStep],
    progress: Progress | None,
) -> None:
    files = [item.file for item in items]
    cache.check_room(len(items), steps)
    cache.forget_unused()
    writer = PixelWriter(cache)
    try:
        frames = decoded(source, files, steps, progress)
        for item, (digest, reason, picture) in zip(items, frames, strict=True):
            if picture is None or digest != item.digest:
                raise changed(dataset.source, item.file, reason or "other pixels than before")
            writer.add(picture)
        writer.keep(files, steps)
    finally:
        writer.discard()


# ---- checks ----------------------------------------------------------------------------


def _without_leaks(items: Sequence[Item]) -> tuple[list[Item], list[Skipped]]:
    """Where people laid the splits down: leave out of train what is in val or test as well."""
    first: dict[str, Item] = {}
    for split in ("test", "val", "train"):
        for item in items:
            if item.split == split:
                first.setdefault(item.digest, item)
    kept = []
    leaks = []
    for item in items:
        other = first[item.digest]
        if other.split == item.split:
            kept.append(item)
        else:
            reason = f"the same picture is {other.file} in {other.split}"
            leaks.append(Skipped(item.file, reason))
    return kept, leaks


def _check_skipped(name: str, skipped: Sequence[Skipped], kept: int, folder: Path) -> None:
    total = len(skipped) + kept
    if total and len(skipped) > MAX_SKIPPED * total:
        where = ""
        with contextlib.suppress(CatdogError):  # a cache that cannot be written: only no list
            write_csv(folder / "skipped.csv", ("file", "reason"), map(astuple, skipped))
            where = f", all are listed in {folder / 'skipped.csv'}"
        listed = "; ".join(f"{entry.file}: {entry.reason}" for entry in skipped[:3])
        more = f"; and {len(skipped) - 3:,} more" if len(skipped) > 3 else ""
        raise DataError(
            f"{name}: {len(skipped):,} of {total:,} files cannot be used, more than "
            f"{MAX_SKIPPED:.0%} ({listed}{more}); mend these files or take them out of the data"
            f"{where}"
        )


def _check_classes(dataset: Dataset, wanted: Sequence[str], otherwise: str = "") -> None:
    counts = dataset.counts()
    for label in dataset.labels:
        if not any(counts[split][label] for split in SPLITS):
            raise DataError(f"{dataset.source}: the class {label!r} has no readable picture")
    for split in wanted:
        for label, count in counts[split].items():
            if not count:
                of = sum(counts[name][label] for name in SPLITS)
                raise DataError(
                    f"{dataset.source}: the {split} split has no {label!r} ({of:,} in all); "
                    f"add pictures{otherwise}"
                )


def _contradictions(items: Sequence[Item], labels: Sequence[str]) -> list[str]:
    by_digest: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_digest[item.digest].append(item)
    pairs = [same for same in by_digest.values() if len({item.label for item in same}) > 1]
    if not pairs:
        return []
    listed = " = ".join(f"{item.file} ({labels[item.label]})" for item in pairs[0])
    return [f"{len(pairs):,} pictures have two labels, each under another name: {listed}"]
