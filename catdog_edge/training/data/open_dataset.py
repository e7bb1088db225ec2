"""Open a data set: images, labels, splits, and decoded pixels."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from catdog_edge.errors import CatdogError, DataError
from catdog_edge.spec import NEITHER, ResizeStep
from catdog_edge.training.array_types import Labels, Pixels
from catdog_edge.training.data.csv_labels import from_split_csv
from catdog_edge.training.data.dataset import (
    SPLITS,
    Candidate,
    Dataset,
    FileLayout,
    Item,
    Split,
    sorted_names,
    write_csv,
)
from catdog_edge.training.data.decode_cache import Cache, Decoder
from catdog_edge.training.data.folder_or_zip import Skipped, Source, open_source
from catdog_edge.training.data.layouts import find_layout
from catdog_edge.training.data.source_names import told_apart
from catdog_edge.training.data.splits import Splitter, read_subset, shares_of, split_folders

NEGATIVES_SPLIT = (0.7, 0.15, 0.15)  # train, val and test of images of none of the classes
MAX_SKIPPED = 0.05  # the share of files that may be unreadable; more is an error


def open_dataset(
    source: str | os.PathLike[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    split: Sequence[float] = (80, 10, 10),
    limit: int | None = None,
    seed: int = 0,
    split_csv: str | os.PathLike[str] | None = None,
    steps: Sequence[ResizeStep] | None = None,
    required: Sequence[Split] | None = None,
    keep_damaged: bool = False,
) -> Dataset:
    """Open a data set and assign its images to splits.

    The first time, every image is decoded for its digest; later only new or changed files.

    Args:
        source: A folder, a `.zip`, `sample`, or `oxford-pets` (downloaded); `None` is
            `$CATDOG_DATA` or else `sample`.
        labels: Class names in index order; see `layouts.find_layout`.
        split: Shares of train, val and test. A share of 0 means that there is none.
        limit: Use at most this many images, as many of each class, in the shares of the splits
            (one of each at least); the same ones every time, and mostly the same when files are
            added.
        seed: Seed of the selection by `limit`.
        split_csv: A file with the columns file, label and split: only the images in it are
            used.
        steps: The resize rule of the model. With it, the first decoding also fills the cache
            that `pixels` opens, so that nothing is decoded twice.
        required: The splits that must have every class; `None`: all that have a share. Empty:
            the set may even lack a class.
        keep_damaged: Also use images that the decoder reports as damaged.

    Raises:
        DataError: There is no such source, no layout fits, fewer than two classes, more than
            5 % of the files cannot be read, or a split lacks a class.

    Examples:
        >>> dataset = open_dataset("sample", limit=60)
        >>> dataset.counts()["val"]
        {'cat': 3, 'dog': 3}
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
        layout, limit = from_split_csv(Path(split_csv), opened, layout, labels, limit), None
    splitter = Splitter(shares, layout.candidates, complete=split_csv is not None)
    # Damaged images that a run has taken stay in it.
    keep = keep_damaged or split_csv is not None
    dataset = _read(opened, layout, splitter, (limit, seed), steps, keep)
    given = [name for name, share in zip(SPLITS, shares) if share > 0]
    _check_classes(dataset, given if required is None else required)
    return dataset


def count_training(
    sources: Sequence[str | None],
    labels: Sequence[str] | None,
    split: Sequence[float],
    limit: int | None,
) -> int:
    """Estimate the number of training images by the names of files alone: nothing is decoded.

    `limit` is that of each source; see `open_dataset`.
    """
    count = 0.0
    for source in sources:
        layout = find_layout(open_source(source), labels)
        labels = layout.labels
        files = len(layout.candidates)
        share = Splitter(shares_of(split), layout.candidates).expected()["train"]
        count += share * (files if limit is None else min(files, limit))
    return round(count)


def open_datasets(
    sources: Sequence[str | None],
    *,
    labels: Sequence[str] | None = None,
    split_csvs: Sequence[Path | None] = (),
    known: Sequence[str] = (),
    **settings: Any,
) -> tuple[Dataset, ...]:
    """Open several sources of the same classes; the first decides the labels and their order.

    The others need images in the training split only. Of several, those for which `split_csvs` has
    a file (one or `None` for each source) need no certain ones. See `open_dataset` and, for names
    that are `known`, `told_apart` for the arguments.
    """
    recorded = split_csvs or [None] * len(sources)
    if recorded[0] is not None and len(sources) > 1:  # copies in the others may have emptied it
        settings["required"] = ()
    first = open_dataset(sources[0], labels=labels, split_csv=recorded[0], **settings)
    settings["labels"] = first.labels
    more = []
    for source, split_csv in zip(sources[1:], recorded[1:], strict=True):
        settings["required"] = ("train",) if split_csv is None else ()
        more.append(open_dataset(source, split_csv=split_csv, **settings))
    return told_apart([first, *more], known)


def open_negative_images(
    source: str | os.PathLike[str],
    *,
    steps: Sequence[ResizeStep] | None = None,
    split: Sequence[float] = NEGATIVES_SPLIT,
    keep_damaged: bool = False,
) -> Dataset:
    """Open out-of-class images, as a data set whose one class is `neither`.

    Every image in a folder or a `.zip` counts, whatever its name. The shares for training, for
    choosing the threshold and for the test are those of folders that name splits, else they are
    drawn by the digest of the pixels. See `open_dataset` for the arguments.

    Raises:
        DataError: There is no such source, it has no images, more than 5 % of the files
            cannot be read, or a split is left without an image.
    """
    opened = open_source(source)
    files = sorted_names(opened.pictures)
    if not files:
        raise DataError(f"{opened.name} has no images in it (.jpg, .png, ...)")
    depth, splits = split_folders(files)
    candidates = tuple(
        Candidate(name, NEITHER, splits[PurePosixPath(name).parts[depth]] if splits else None)
        for name in files
    )
    layout = FileLayout("images of none of the classes", candidates, (NEITHER,))
    splitter = Splitter(tuple(split), candidates)
    dataset = _read(opened, layout, splitter, (None, 0), steps, keep_damaged)
    _check_classes(dataset, SPLITS)
    return dataset


def pixels(
    dataset: Dataset, split: Split, steps: Sequence[ResizeStep]
) -> tuple[Pixels, Labels, list[Item]]:
    """Open the images of a split at the model's size, decoded once and memory-mapped.

    Returns:
        `uint8 [n,S,S,3]` BGR, read-only; `int64 [n]`, the labels; the images' items.

    Raises:
        DataError: An image has changed since the set was opened, or the disk is full.
    """
    items = dataset.items_of(split)
    files = [item.file for item in items]
    targets = np.array([item.label for item in items], np.int64)
    if not items:
        return np.zeros((0, steps[-1].height, steps[-1].width, 3), np.uint8), targets, items
    cache = Cache(dataset.files)
    found = cache.open_pixels(files, steps)
    if found is None:
        with cache.exclusive():  # another process may have written them by then
            if cache.open_pixels(files, steps) is None:
                Decoder(dataset.files, cache, True).write_pixels(items, steps)
        found = cache.open_pixels(files, steps)
    if found is None:
        raise DataError(f"the cache {cache.folder} was removed while it was written; run it again")
    return found, targets, items


def _read(
    source: Source,
    layout: FileLayout,
    splitter: Splitter,
    subset: tuple[int | None, int],
    steps: Sequence[ResizeStep] | None,
    keep_damaged: bool,
) -> Dataset:
    """Read the digests of the images, all of them or a subset (limit, seed)."""
    limit, seed = subset
    cache = Cache(source, keep_damaged)
    decoder = Decoder(source, cache, keep_damaged, "reading images" if limit is None else "")
    known = all(cache.known(candidate.file) for candidate in layout.candidates)
    with contextlib.nullcontext() if known else cache.exclusive():
        before = cache.digests()
        if limit is not None:
            read, taken = read_subset(layout, limit, seed, splitter, decoder.read)
        else:
            read = decoder.read_and_keep(layout.candidates, steps, splitter)
            found = [one for one in read if one.digest]
            taken = dict(zip((one.candidate.file for one in found), splitter.assign(found)))
        notes = _moves(splitter, layout, cache, before) if limit is None else []
        cache.save()
    unreadable = [Skipped(one.candidate.file, one.reason) for one in read if not one.digest]
    skipped = (*source.closed, *layout.skipped, *unreadable)
    _check_skipped(source.name, skipped, len(taken), cache.folder)
    index = {label: number for number, label in enumerate(layout.labels)}
    items = [
        Item(candidate.file, index[candidate.label], taken[candidate.file], one.digest)
        for one in sorted(read, key=lambda one: one.candidate.file)
        if (candidate := one.candidate).file in taken
    ]
    items, leaks = _without_leaks(items) if splitter.follows_names else (items, [])
    return Dataset(
        source=source.name,
        labels=layout.labels,
        items=tuple(items),
        files=source,
        skipped=(*skipped, *leaks),
        layout=layout.kind,
        notes=(*source.notes, *layout.notes, *notes, *_contradictions(items, layout.labels)),
    )


def _moves(splitter: Splitter, layout: FileLayout, cache: Cache, before: set[str]) -> list[str]:
    """Describe images that moved, of those whose digests were known before and of all."""
    notes, moved = [], splitter.moved
    if moved:
        notes.append(
            f"{len(moved):,} images are in another split than their digest says, so that each "
            "split has its share of every class"
        )
    earlier = cache.exchange_moved(f"{splitter.key} {layout.labels}", moved)
    changed = [one for one in before if earlier is not None and earlier.get(one) != moved.get(one)]
    if changed:
        notes.append(
            f"{len(changed):,} images changed their split since the set was last opened, because "
            "files were added or removed"
        )
    return notes


def _without_leaks(items: Sequence[Item]) -> tuple[list[Item], list[Skipped]]:
    """Remove images from train that are also in val or test, if splits are assigned."""
    first: dict[str, Item] = {}
    for item in sorted(items, key=lambda item: -SPLITS.index(item.split)):
        first.setdefault(item.digest, item)
    pairs = [(item, first[item.digest]) for item in items]
    leaks = [
        Skipped(item.file, f"the same image is in {other.split}: {other.file}")
        for item, other in pairs
        if other.split != item.split
    ]
    return [item for item, other in pairs if other.split == item.split], leaks


def _check_skipped(name: str, skipped: Sequence[Skipped], kept: int, folder: Path) -> None:
    total = len(skipped) + kept
    if len(skipped) <= MAX_SKIPPED * total:
        return
    where = ""
    with contextlib.suppress(CatdogError):  # a cache that cannot be written: only no list
        write_csv(folder / "skipped.csv", ("file", "reason"), map(astuple, skipped))
        where = f", all are listed in {folder / 'skipped.csv'}"
    listed = "; ".join(f"{entry.file}: {entry.reason}" for entry in skipped[:3])
    more = f"; and {len(skipped) - 3:,} more" if len(skipped) > 3 else ""
    raise DataError(
        f"{name}: {len(skipped):,} of {total:,} files cannot be used, more than "
        f"{MAX_SKIPPED:.0%} ({listed}{more}); repair these files or take them out of the data"
        f"{where}"
    )


def _check_classes(dataset: Dataset, required: Sequence[Split]) -> None:
    counts, labels = dataset.counts(), dataset.labels
    total = {label: sum(counts[split][label] for split in SPLITS) for label in labels}
    for label in labels if required else ():
        if not total[label]:
            raise DataError(f"{dataset.source}: the class {label!r} has no readable image")
    missing = [(split, one) for split in required for one in labels if not counts[split][one]]
    if not missing:
        return
    split, label = missing[0]
    number = len({label for _, label in missing}) - 1
    others = f", nor {number:,} other classes" if number else ""
    twins = [one for one in labels if one.casefold() == label.casefold()]
    alike = f" ({' and '.join(twins)} are two classes)" if len(twins) > 1 else ""
    raise DataError(
        f"{dataset.source}: the {split} split has no {label!r} "
        f"({total[label]:,} in all){others}; add images: each class "
        "needs three or more that differ, and where folders or a table name the splits, one in "
        f"each{alike}"
    )


def _contradictions(items: Sequence[Item], labels: Sequence[str]) -> list[str]:
    by_digest: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_digest[item.digest].append(item)
    pairs = [same for same in by_digest.values() if len({item.label for item in same}) > 1]
    if not pairs:
        return []
    listed = " = ".join(f"{item.file} ({labels[item.label]})" for item in pairs[0])
    return [f"{len(pairs):,} images have two labels, each under another name: {listed}"]
