"""From the names of files to labels: the ways in which people lay a data set out.

Sees names and, for the Kaggle layout, the text of a table; never a pixel. The layouts, in the
order in which they are tried:

1. a table beside the images: a CSV with a column of images and one of labels (`tables`);
2. class folders, `train/ val/ test/` above them or not; an annotation beside each image
   (`.xml`, `.txt`, `.json`, ...) does no harm;
3. name-prefixed files: `cat.0.jpg`, `dog_17.png`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from catdog_edge.errors import DataError
from catdog_edge.images.read import is_picture
from catdog_edge.training.data.csv_labels import table_layout
from catdog_edge.training.data.dataset import SPLIT_NAMES, Candidate, Layout, sorted_names
from catdog_edge.training.data.sources import Skipped, Source

_PREFIX = re.compile(r"^(.*?[^\W\d_].*?)[\W_]*\(?\d[\d\W_]*$")
"""`cat.0`, `dog_17`, `american_bulldog_100`, `cat (3)`: what stands before the last number."""


_BESIDE = frozenset((".aae", ".csv", ".json", ".txt", ".xml", ".xmp", ".yaml", ".yml"))
"""Endings of what tools put beside images: annotations, edits, notes."""


def find_layout(source: Source, labels: Sequence[str] | None = None) -> Layout:
    """Find the layout of a source and read the labels out of it.

    Args:
        source: Where the files are.
        labels: The classes in index order. For a table of numbers they are the names of
            0, 1, ...; otherwise they choose and order the classes that there are.

    Raises:
        DataError: There are no images, no layout fits, or there are fewer than two classes.
    """
    images = [name for name in source.entries if is_picture(name)]
    if not images:
        closed = "".join(f"; {entry.file}: {entry.reason}" for entry in source.closed[:1])
        raise DataError(f"{source.name} has no images in it (.jpg, .png, ...){closed}")
    base = _common_folder(images)
    layout, other_tables = table_layout(source, base, labels)
    if layout is None:
        layout = _without_table(source, base, images)
        layout = replace(layout, notes=(*layout.notes, *(_ignored(t) for t in other_tables)))
    if labels is not None:
        layout = _only(layout, tuple(labels), source.name)
    if len(layout.labels) < 2:
        hint = "".join(f"; {table}, none of them a known name" for table in other_tables[:1])
        one = f"only the class {layout.labels[0]!r}" if layout.labels else "no classes"
        raise DataError(
            f"{source.name} has images of {one}; two or more are needed: a CSV with image and "
            f"label columns, a folder per class, or names like cat.0.jpg and dog.0.jpg{hint}"
        )
    return layout


def _ignored(table: str) -> str:
    return f"{table}: no image and label column that is known by name, so it is not used"


def _common_folder(names: Sequence[str]) -> tuple[str, ...]:
    """The deepest folder that holds all of them, as parts."""
    first, last = min(names).split("/")[:-1], max(names).split("/")[:-1]
    parts = []
    for left, right in zip(first, last):
        if left != right:
            break
        parts.append(left)
    return tuple(parts)


def _without_table(source: Source, base: tuple[str, ...], images: Sequence[str]) -> Layout:
    folders = _folders(source, base, images)
    if folders is not None and len(folders.labels) > 1:
        return folders
    prefixes = _prefixes(source, base)
    a_class = bool(base) and base[-1].lower() not in SPLIT_NAMES
    if folders is None and len(prefixes.labels) < 2 and a_class:
        # One folder with everything in it is one class, whatever numbers its files carry.
        alone = tuple(Candidate(name, base[-1]) for name in images)
        return Layout("a folder per class", alone, (base[-1],))
    return prefixes if folders is None or len(prefixes.labels) > 1 else folders


# ---- class folders ---------------------------------------------------------------------


def _folders(source: Source, base: tuple[str, ...], images: Sequence[str]) -> Layout | None:
    depth = len(base)
    inside = [name.split("/")[depth:] for name in images]
    splits = {parts[0] for parts in inside if len(parts) > 1 and parts[0].lower() in SPLIT_NAMES}
    # A class may be called "train" (beside "bus"): a split has folders or prefixed names below.
    splits = {name for name in splits if _has_classes([p[1:] for p in inside if p[0] == name])}
    if any(SPLIT_NAMES[name.lower()] == "train" for name in splits):
        return _split_folders(source, depth, splits)
    if all(len(parts) == 1 for parts in inside):
        return None
    candidates = []
    loose = 0
    folders = {parts[0] for parts in inside if len(parts) > 1}
    for name in _meant(source):
        parts = name.split("/")[depth:]
        if len(parts) > 1 and parts[0] in folders:
            candidates.append(Candidate(name, parts[0]))
        else:
            loose += is_picture(name)
    notes = [f"{loose:,} images lie beside the class folders and are left out"] if loose else []
    return Layout("a folder per class", tuple(candidates), sorted_names(folders), (), tuple(notes))


def _meant(source: Source) -> list[str]:
    """The files that are meant to be images, whatever most of their endings say."""
    return [name for name in source.entries if PurePosixPath(name).suffix.lower() not in _BESIDE]


def _has_classes(names: Sequence[Sequence[str]]) -> bool:
    if any(len(parts) > 1 for parts in names):
        return True
    return len({_prefix(parts[-1]) for parts in names} - {None}) > 1


def _split_folders(source: Source, depth: int, splits: set[str]) -> Layout:
    candidates = []
    skipped = []
    others: set[str] = set()
    for name in _meant(source):
        parts = name.split("/")[depth:]
        if len(parts) < 2 or parts[0] not in splits:
            if len(parts) > 1 and is_picture(name):
                others.add(parts[0])
            continue
        label = parts[1] if len(parts) > 2 else _prefix(parts[1])
        if label is None:
            if is_picture(name):
                skipped.append(Skipped(name, "neither its folder nor its name says its class"))
            continue
        candidates.append(Candidate(name, label, SPLIT_NAMES[parts[0].lower()]))
    labels = sorted_names({candidate.label for candidate in candidates})
    notes = [f"the folder {name} is no split and is left out" for name in sorted(others)]
    return Layout(
        "split folders with classes in them",
        tuple(candidates),
        labels,
        tuple(skipped),
        tuple(notes),
    )


# ---- name-prefixed files ---------------------------------------------------------------


def _prefixes(source: Source, base: tuple[str, ...]) -> Layout:
    candidates = []
    skipped = []
    for name in source.entries:
        parts = name.split("/")
        if tuple(parts[:-1]) != base or not is_picture(name):
            continue
        label = _prefix(parts[-1])
        if label is None:
            skipped.append(Skipped(name, "its name does not begin with a class, as in cat.0.jpg"))
        else:
            candidates.append(Candidate(name, label))
    labels = sorted_names({candidate.label for candidate in candidates})
    return Layout(
        "the class is the beginning of each name", tuple(candidates), labels, tuple(skipped)
    )


def _prefix(name: str) -> str | None:
    match = _PREFIX.match(PurePosixPath(name).stem)
    return match[1].rstrip(" ._-(") if match else None


# ---- labels ----------------------------------------------------------------------------


def _only(layout: Layout, labels: tuple[str, ...], where: str) -> Layout:
    """Keep and order the classes that `labels` names; upper and lower case do not matter."""
    if len(set(labels)) != len(labels):
        raise DataError(f"--labels names a class twice: {', '.join(labels)}")
    wanted = {label.casefold(): label for label in labels}
    there = {candidate.label for candidate in layout.candidates}
    missing = [label for label in labels if label.casefold() not in {n.casefold() for n in there}]
    if missing:
        raise DataError(
            f"{where} has no class {missing[0]!r} ({layout.kind}: {', '.join(sorted_names(there))})"
        )
    kept = tuple(
        Candidate(c.file, wanted[c.label.casefold()], c.split)
        for c in layout.candidates
        if c.label.casefold() in wanted
    )
    left = sorted_names({name for name in there if name.casefold() not in wanted})
    notes = (f"left out by --labels: {', '.join(left)}",) if left else ()
    return Layout(layout.kind, kept, labels, layout.skipped, (*layout.notes, *notes))
