"""Group images by source, and negatives by kind; see `source_names`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np

from catdog_edge.errors import DataError
from catdog_edge.spec import ResizeStep
from catdog_edge.training.array_types import Float64, Labels, Pixels
from catdog_edge.training.data.dataset import SPLITS, Dataset, Split
from catdog_edge.training.data.folder_or_zip import Skipped
from catdog_edge.training.data.open_dataset import pixels
from catdog_edge.training.data.source_names import file_sources
from catdog_edge.training.data.splits import split_folders


def without_sources(dataset: Dataset, left_out: Sequence[str]) -> Dataset:
    """Return a data set without the images of some sources; unknown names change nothing."""
    if not left_out:
        return dataset
    sources = file_sources(dataset)
    return dataset.keep(item for item in dataset.items if sources[item.file] not in left_out)


def kept_apart(datasets: Sequence[Dataset], left_out: Sequence[str]) -> tuple[Dataset, ...]:
    """Return data sets without some sources, and without copies of what is measured on.

    An image leaves train if another one with the same pixels, in any of the sets, is in val or test
    or of a source that is left out; and val likewise, for test and these sources. `skipped` lists
    them.
    """
    if len(datasets) == 1 and not left_out:
        return tuple(datasets)  # `open_dataset` keeps the splits of one set apart
    last: dict[str, tuple[int, str]] = {}  # by digest: the last split that has it, and where
    for dataset in datasets:
        sources = file_sources(dataset)
        for item in dataset.whole.items:
            out = sources[item.file] in left_out
            place = SPLITS.index("test" if out else item.split)
            if place > last.get(item.digest, (-1, ""))[0]:
                where = f"of {sources[item.file]}, which is left out" if out else f"in {item.split}"
                last[item.digest] = place, f"{where}: {dataset.source}/{item.file}"
    found = []
    for dataset in (without_sources(one, left_out) for one in datasets):
        copies = [one for one in dataset.items if SPLITS.index(one.split) < last[one.digest][0]]
        reasons = [Skipped(one.file, f"the same image is {last[one.digest][1]}") for one in copies]
        removed = {item.file for item in copies}
        kept = (item for item in dataset.items if item.file not in removed)
        found.append(dataset.keep(kept, reasons))
    return tuple(found)


def held_out(dataset: Dataset, left_out: Sequence[str]) -> Dataset:
    """Return a data set that has every image of the left-out sources in its test split."""
    sources = file_sources(dataset)
    items = tuple(
        dataclasses.replace(item, split="test") if sources[item.file] in left_out else item
        for item in dataset.items
    )
    return dataclasses.replace(dataset, items=items)


def check_left_out(
    datasets: Sequence[Dataset], negatives: Iterable[Dataset], left_out: Sequence[str]
) -> None:
    """Raise `DataError` if a source to leave out does not exist, or `kept_apart` leaves too little.

    Each class needs an image for training, and there must be images for validation, in one of the
    data sets. Negatives may all be left out: there are drawn ones as well.
    """
    every = (*datasets, *negatives)
    if len(every) == 1 and not left_out:
        return
    known = {name for dataset in every for name in file_sources(dataset).values()}
    for name in set(left_out) - known:
        raise DataError(
            f"--leave-out {name}: no data has this source; the sources are "
            f"{', '.join(sorted(known))}"
        )
    kept = [dataset.counts() for dataset in kept_apart(every, left_out)[: len(datasets)]]
    missing = [
        f"training image of {one!r}"
        for one in datasets[0].labels
        if not any(counts["train"][one] for counts in kept)
    ]
    if left_out and not any(sum(counts["val"].values()) for counts in kept):
        missing.append("validation image")
    if missing and not left_out:
        raise DataError(
            f"no {missing[0]} is left beside those that another data set has for validation or "
            "test; leave one of the data sets out, or add images"
        )
    if missing:
        raise DataError(
            f"--leave-out {', '.join(left_out)}: no {missing[0]} is left; leave out fewer sources"
        )


def sources_of(dataset: Dataset, split: Split) -> list[str]:
    """Return the source of each image of a split, in the order of `pixels`."""
    sources = file_sources(dataset)
    return [sources[item.file] for item in dataset.items_of(split)]


def kinds_of(dataset: Dataset, split: Split) -> list[str]:
    """Return what each negative of a split shows: the folder below the root, or the set's name.

    Folders that every file of the set is in do not count, whatever is left out of it, nor do those
    that name its splits.
    """
    above, splits = split_folders(item.file for item in dataset.whole.items)
    above += bool(splits)
    folders = [PurePosixPath(item.file).parts[above:-1] for item in dataset.items_of(split)]
    return [parts[0] if parts else dataset.plain_name for parts in folders]


def balanced_shares(names: Sequence[str], balance: float) -> Float64:
    """Return the sampling probability of each image by its source, `float64 [N]`, sum 1.

    A balance of 0: uniform over images. 1: uniform over sources. Between them, the weight of a
    source is its size to the power of `1 - balance`.
    """
    _, index, counts = np.unique(np.array(names), return_inverse=True, return_counts=True)
    shares = np.asarray(counts[index] ** -float(balance), np.float64)
    return np.asarray(shares / shares.sum())


def combined_pixels(
    datasets: Sequence[Dataset], split: Split, steps: Sequence[ResizeStep]
) -> tuple[Pixels, Labels, list[str]]:
    """Open the images of a split, `uint8 [N,H,W,3]` BGR, their labels, and their sources.

    One data set stays memory-mapped; several are copied into memory.
    """
    parts = [pixels(dataset, split, steps)[:2] for dataset in datasets]
    names = [name for dataset in datasets for name in sources_of(dataset, split)]
    if len(parts) == 1:
        return (*parts[0], names)
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    return images, labels, names
