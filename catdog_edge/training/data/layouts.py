"""Detect the layout of a data set: its labels and splits, from names and tables.

Tables beside the images come first (`csv_labels`), then class folders, then name-prefixed files:
`cat.0.jpg`, `dog_17.png`. Folders that name splits (`train`, `valid`, `test_set`, ...) may lie
above or below class folders and above the others.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from catdog_edge.errors import DataError, list_names
from catdog_edge.training.data.csv_labels import Table, read_tables
from catdog_edge.training.data.dataset import (
    Candidate,
    FileLayout,
    Split,
    is_utf8,
    nfc,
    sorted_names,
)
from catdog_edge.training.data.folder_or_zip import Skipped, Source
from catdog_edge.training.data.splits import says_no_class, split_names, split_word

_PREFIX = re.compile(r"^(.*?[^\W\d_].*?)[\W_]*\(?\d[\d\W_]*$")
"""`cat.0`, `dog_17`, `american_bulldog_100`, `cat (3)`: what stands before the last number."""

# Beginnings of file names that are no classes, and suffixes of files that tools put beside images.
_CAMERA = re.compile("img|image|dsc[nf]?|pxl|photo|pic(ture)?|frame|file|screenshot", re.IGNORECASE)
_BESIDE = frozenset((".aae", ".csv", ".json", ".tsv", ".txt", ".xml", ".xmp", ".yaml", ".yml"))
MOST_LEVEL = 10  # folders that all hold the same ones: up to so many may be sources, not classes
_WANTED = (
    "expected a folder per class, names like cat.0.jpg and dog.0.jpg, or a CSV with a column "
    "`file` and a column `label`"
)


def find_layout(source: Source, labels: Sequence[str] | None = None) -> FileLayout:
    """Detect the layout of a source and read its labels.

    Args:
        source: The files.
        labels: The classes in index order. For a table of numbers they are the names of
            0, 1, ...; otherwise they select and order the existing classes.

    Raises:
        DataError: There are no images, no layout fits, names and tables contradict each
            other, or there are fewer than two classes.
    """
    labels = None if labels is None else tuple(nfc(label) for label in labels)
    if not source.pictures:
        closed = "".join(f"; {entry.file}: {entry.reason}" for entry in source.closed[:1])
        raise DataError(f"{source.name} has no images in it (.jpg, .png, ...){closed}")
    tables = read_tables(source, labels)
    strange = [table for table in tables if table.names_images and not table.is_understood]
    if strange and labels is None:
        raise DataError(
            f"{source.name}: {strange[0].name} names images, but none of its other columns has a "
            f"known meaning ({strange[0].columns}): expected one called label, class, ... or "
            "one of 0 and 1 per class; rename it, or move the table out of the data"
        )
    foreign = [
        f"{one.name} has the columns {one.columns}, and names no image that is here"
        for one in tables
        if not one.names_images
    ]
    folders = _Folders(source, labels)
    labelled = [table for table in tables if table.has_labels]
    layout = _from_tables(source, labelled) if labelled else folders.layout()
    if labelled:
        _check_unlisted(layout, folders, labelled, source.name)
    layout = _with_splits(source, layout, folders.splits, tables)
    unused = [*foreign, *(f"{t.name} has the columns {t.columns}, none is known" for t in strange)]
    layout = replace(layout, notes=(*layout.notes, *(f"{what}: not used" for what in unused)))
    if labels is not None:
        layout = _only(layout, labels, source.name)
    _check_labels(layout, labels, source.name)
    if len(layout.labels) < 2:
        hint = "".join(f"; {what}" for what in foreign[:1])
        one = f"only the class {layout.labels[0]!r}" if layout.labels else "no classes"
        raise DataError(
            f"{source.name} has images of {one}; two or more are needed: {_WANTED}{hint}"
        )
    return layout


def _check_labels(layout: FileLayout, labels: Sequence[str] | None, where: str) -> None:
    for label in layout.labels:
        if not is_utf8(label):
            raise DataError(
                f"{where}: the class {label!a} is not valid UTF-8; rename its folder or files "
                "(in a zip: pack it again with a program that writes UTF-8 names)"
            )
    silent = [label for label in layout.labels if says_no_class(label)]
    unsorted = any(re.match("un(label|sort)", label.casefold()) for label in silent)
    if labels is None and silent and (unsorted or len(silent) == len(layout.labels)):
        raise DataError(
            f"{where}: {', '.join(silent[:9])} ({layout.kind}) does not say what images show; "
            f"{_WANTED}; or name the classes with --labels"
        )


def _from_tables(source: Source, tables: Sequence[Table]) -> FileLayout:
    owner: dict[str, Table] = {}
    for table in tables:
        twice = next((file for file in table.labels if file in owner), None)
        if twice is not None:
            raise DataError(
                f"{source.name}: {owner[twice].name} and {table.name} both give {twice} a label; "
                "leave only one of them in the data"
            )
        owner |= dict.fromkeys(table.labels, table)
    if len(tables) > 1:  # train.csv and test.csv
        named = split_names([PurePosixPath(table.name).stem for table in tables])
        for table in tables:
            split = named.get(PurePosixPath(table.name).stem)
            if split is not None and not table.splits:
                table.splits = dict.fromkeys(table.labels, split)
    names = " and ".join(table.name for table in tables[:3])
    skipped = tuple(entry for table in tables for entry in table.skipped)
    if not owner:
        first = f" ({skipped[0].file}: {skipped[0].reason})" if skipped else ""
        raise DataError(f"{source.name}: no row of {names} can be used{first}; correct the table")
    unlisted = len(source.pictures.keys() - (owner.keys() | {entry.file for entry in skipped}))
    notes = [f"{unlisted:,} images have no row in {names} and are left out"] if unlisted else []
    labels = sorted_names({label for table in tables for label in table.labels.values()})
    folded = {label.casefold() for label in labels}
    elsewhere = sum(
        bool(above := folded & {nfc(part).casefold() for part in file.split("/")[:-1]})
        and table.labels[file].casefold() not in above
        for file, table in owner.items()
    )
    if elsewhere:
        notes.append(f"{elsewhere:,} images lie in the folder of another class than {names} says")
    return FileLayout(
        f"labels from {names}",
        tuple(Candidate(f, owner[f].labels[f]) for f in source.entries if f in owner),
        labels,
        skipped,
        tuple(notes),
    )


def _check_unlisted(
    layout: FileLayout, folders: _Folders, tables: Sequence[Table], where: str
) -> None:
    """Reject a split folder with classes if the tables list none of its images."""
    listed = {folders.splits.get(candidate.file) for candidate in layout.candidates}
    unlisted = set(folders.splits.values()) - listed
    if not unlisted:
        return
    try:
        below = folders.layout().candidates
    except DataError:
        return
    found = {folders.splits.get(one.file) for one in below if one.label in layout.labels}
    for split in sorted(unlisted & found):
        raise DataError(
            f"{where}: the {split} folder has classes in it, but no row of {tables[0].name} names "
            "its images; add rows, or move the folder or the table out of the data"
        )


def _with_splits(
    source: Source, layout: FileLayout, folders: Mapping[str, Split], tables: Sequence[Table]
) -> FileLayout:
    """Add the splits from folders and tables, which must agree."""
    said = {file: (split, "its folder") for file, split in folders.items()}
    for table in tables:
        for file, split in table.splits.items():
            before, who = said.setdefault(file, (split, table.name))
            if before != split:
                raise DataError(
                    f"{source.name}: {file} is of {before} by {who}, of {split} by {table.name}; "
                    "correct one of them"
                )
    candidates = tuple(
        replace(one, split=said[one.file][0]) if one.file in said else one
        for one in layout.candidates
    )
    return replace(layout, candidates=candidates)


@dataclass
class _Folders:
    """Splits and classes from the names of folders and files."""

    source: Source
    labels: tuple[str, ...] | None
    splits: dict[str, Split] = field(default_factory=dict)  # by file, where a folder names it

    def __post_init__(self) -> None:
        inside: dict[str, set[str]] = defaultdict(set)
        folders = {name.rpartition("/")[0] + "/" for name in self.source.pictures} - {"/"}
        for parent, child in {pair for folder in folders for pair in _folders(folder)}:
            inside[parent].add(child)
        meaning = {parent: split_names(names, self.labels) for parent, names in inside.items()}
        # The deepest folder that holds all images.
        base = next((p for p in sorted(inside, key=len) if len(inside[p]) > 1), "")
        self._rest: dict[str, tuple[str, ...]] = {}
        self._split_folder: dict[str, str] = {}
        self._beside: set[str] = set()
        for name in self.source.entries:
            rest = []
            for parent, child in _folders(name):
                split = meaning.get(parent, {}).get(child)
                if inside[parent] == {child} == {PurePosixPath(parent).name}:
                    split = self.splits.get(name)  # seg_train/seg_train
                if split is None:
                    rest.append(child)
                    if parent == base and "train" in meaning.get(parent, {}).values():
                        self._beside.add(f"{parent}{child}")
                        break
                elif self.splits.setdefault(name, split) == split:
                    self._split_folder.setdefault(name, f"{parent}{child}")
                else:
                    raise DataError(
                        f"{self.source.name}: {name} lies in folders of two splits, "
                        f"{self.splits[name]} and {split}; move it"
                    )
            else:
                self._rest[name] = tuple(rest)
        self._strip()

    def _strip(self) -> None:
        """Strip folders that contain all images."""
        while True:
            rests = {rest for name, rest in self._rest.items() if name in self.source.pictures}
            tops = {rest[:1] for rest in rests if rest}
            if len(tops) != 1 or any(len(rest) == 1 for rest in rests):
                return
            top = tops.pop()
            self._rest = {n: r[1:] if r[:1] == top else r for n, r in self._rest.items()}

    def _check_level(self) -> None:
        """Find which level of folders has the classes, where each folder holds the same ones."""
        below: dict[str, set[str]] = defaultdict(set)
        for name in self.source.pictures:
            if rest := self._rest.get(name):
                below[rest[0]].add(nfc(rest[1]) if len(rest) > 1 else "")
        if self.labels is None:
            self._check_mixed(below)
        if len(below) < 2 or any("" in inside for inside in below.values()):
            return
        shared = set.intersection(*below.values())
        if len(shared) < 2 or all(says_no_class(n) or n.isdecimal() for n in shared):
            return
        wanted = {label.casefold() for label in self.labels or ()}
        if wanted and wanted <= {name.casefold() for name in below}:
            return
        if all(map(split_word, below)):  # train-clean, train-noisy
            for name, rest in self._rest.items():
                if rest and (split := split_word(rest[0])):
                    self.splits.setdefault(name, split)
        elif not wanted:
            tops, subs = (sorted_names(names) for names in (below, shared))
            if len(tops) <= max(MOST_LEVEL, len(subs)):
                raise DataError(
                    f"{self.source.name}: {list_names(tops)} each hold the folders "
                    f"{list_names(subs)}; either may be the classes: name them with --labels"
                )
            return
        elif not wanted <= {name.casefold() for name in shared}:
            return
        self._rest = {name: rest[1:] for name, rest in self._rest.items()}

    def _check_mixed(self, below: Mapping[str, set[str]]) -> None:
        """Reject a class that contains folders named like other classes."""
        for top, inside in below.items():
            if len(inside & (below.keys() - {top})) > 1:
                raise DataError(
                    f"{self.source.name}: {top} lies beside the folders "
                    f"{list_names(sorted_names(inside))} and holds some of these names itself; "
                    "move it, or name the classes with --labels"
                )

    def layout(self) -> FileLayout:
        """Return the layout from the names."""
        self._check_level()
        pictures = [name for name in self._rest if name in self.source.pictures]
        classes = {self._rest[name][0] for name in pictures if self._rest[name]}
        if len(classes) < 2:
            prefixes = self._prefixes(pictures)
            if len(prefixes.labels) > 1 or not classes:
                self._check_splits(prefixes)
                return prefixes
        kept = {str(PurePosixPath(name).parent) for name in pictures}
        candidates = [
            Candidate(name, nfc(rest[0]))
            for name, rest in self._rest.items()
            if rest
            and str(PurePosixPath(name).parent) in kept
            and PurePosixPath(name).suffix.lower() not in _BESIDE
        ]
        loose = [name for name in pictures if not self._rest[name]]
        unsaid = [name for name in loose if name in self.splits]
        number = len(loose) - len(unsaid)
        # A class of files that cannot be read here, such as .dat.
        bare = {rest[0] for rest in self._rest.values() if rest} - classes
        empty = [f"the folder {name} has no images in it and is left out" for name in sorted(bare)]
        unclear = "neither its folder nor its name says its class"
        beside = f"{number:,} images lie beside the class folders and are left out"
        layout = FileLayout(
            "split folders with classes in them" if self.splits else "a folder per class",
            tuple(candidates),
            sorted_names({candidate.label for candidate in candidates}),
            tuple(Skipped(name, unclear) for name in unsaid),
            (*((beside,) if number else ()), *self._left_out(), *empty),
        )
        self._check_splits(layout)
        self._check_closed(layout)
        return layout

    def _prefixes(self, pictures: Sequence[str]) -> FileLayout:
        found = {name: _prefix(name) for name in pictures}
        labels = {label for label in found.values() if label}
        if split_names(labels, self.labels):
            found = dict.fromkeys(found, "")
        reason = "its name does not begin with a class, as in cat.0.jpg"
        return FileLayout(
            "the class is the beginning of each name",
            tuple(Candidate(name, label) for name, label in found.items() if label),
            sorted_names({label for label in found.values() if label}),
            tuple(Skipped(name, reason) for name, label in found.items() if not label),
            tuple(self._left_out()),
        )

    def _left_out(self) -> list[str]:
        return [f"the folder {name} is no split and is left out" for name in sorted(self._beside)]

    def _check_closed(self, layout: FileLayout) -> None:
        """Reject an unreadable folder that may be a class."""
        classes = {
            f"{parent}{child}/"
            for one in layout.candidates
            for parent, child in _folders(one.file)
            if nfc(child) == one.label
        }
        for closed in self.source.closed:
            if not closed.file.startswith(tuple(classes)):
                raise DataError(
                    f"{self.source.name}: {closed.file}: {closed.reason}; it may be a class: make "
                    "it readable, or move it away"
                )

    def _check_splits(self, layout: FileLayout) -> None:
        """Reject a split folder without any class in it."""
        known = {self._split_folder.get(candidate.file) for candidate in layout.candidates}
        silent = sorted(set(self._split_folder.values()) - known)
        if silent:
            beside = ", ".join([*sorted(self._beside), *layout.labels][:9])
            raise DataError(
                f"{self.source.name}: {', '.join(silent)}: named like a split, but nothing in it "
                f"says a class{f'; beside it: {beside}' if beside else ''}; {_WANTED}; move away "
                "what has no class, or, where a class has such a name, name all with --labels"
            )


def _folders(name: str) -> list[tuple[str, str]]:
    """List the folders of a file from the top, each as its parent (with a slash) and its name."""
    parts = name.split("/")[:-1]
    return [("".join(f"{part}/" for part in parts[:i]), part) for i, part in enumerate(parts)]


def _prefix(name: str) -> str:
    match = _PREFIX.match(PurePosixPath(name).stem)
    label = nfc(match[1].rstrip(" ._-(")) if match else ""
    return "" if _CAMERA.fullmatch(label) else label


def _only(layout: FileLayout, labels: tuple[str, ...], where: str) -> FileLayout:
    """Keep and order the classes in `labels`, ignoring case."""
    if len(set(labels)) != len(labels):
        raise DataError(f"--labels names a class twice: {', '.join(labels)}")
    wanted = {label.casefold(): label for label in labels}
    there = {candidate.label for candidate in layout.candidates}
    missing = [label for label in labels if label.casefold() not in {n.casefold() for n in there}]
    if missing:
        found = list_names(sorted_names(there))
        raise DataError(
            f"{where} has no class {missing[0]!r} ({layout.kind}: {found}); "
            f"name data or labels where {list_names(labels)} are found"
        )
    kept = tuple(
        replace(one, label=wanted[one.label.casefold()])
        for one in layout.candidates
        if one.label.casefold() in wanted
    )
    left = sorted_names(name for name in there if name.casefold() not in wanted)
    notes = (f"left out by --labels: {', '.join(left)}",) if left else ()
    return replace(layout, candidates=kept, labels=labels, notes=(*layout.notes, *notes))
