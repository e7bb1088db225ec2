"""A data set: images with labels and splits, and its description."""

from __future__ import annotations

import csv
import io
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from catdog_edge.errors import DataError, PictureError
from catdog_edge.images.preprocess import Image
from catdog_edge.system.files import write_bytes
from catdog_edge.training.array_types import Pixels
from catdog_edge.training.data.folder_or_zip import SAMPLE, Skipped, Source

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Candidate:
    """A file that should be an image, with its label and, if assigned, its split."""

    file: str
    label: str
    split: Split | None = None


@dataclass(frozen=True)
class FileLayout:
    """Labels and splits from the names of the files."""

    kind: str  # the layout in words
    candidates: tuple[Candidate, ...]  # in the order of names
    labels: tuple[str, ...]  # the classes, in index order
    skipped: tuple[Skipped, ...] = ()  # files that cannot be used
    notes: tuple[str, ...] = ()  # what a person should know, one line each


@dataclass(frozen=True)
class Decoded:
    """A file of a source, decoded."""

    candidate: Candidate
    digest: str = ""  # of its pixels; empty where it cannot be read
    reason: str = ""  # why it cannot be read, or what the decoder complains of
    damaged: bool = False  # whether the decoder complains
    image: Pixels | None = None  # the resized image, `uint8 [S,S,3]` BGR, where one was asked for


@dataclass(frozen=True)
class Item:
    """One image: its name in the source, the index of its label, its split, its pixels' digest."""

    file: str
    label: int
    split: Split
    digest: str


@dataclass(frozen=True)
class Dataset:
    """Images with labels and splits; made by `open_dataset`."""

    source: str  # absolute path of the folder or zip, or `sample`
    labels: tuple[str, ...]  # class names in index order
    items: tuple[Item, ...]  # the images, in the order of their names
    files: Source = field(repr=False, compare=False)  # where they are read from
    skipped: tuple[Skipped, ...] = ()  # files that are left out, each with its reason
    layout: str = ""  # where the labels come from, as text
    notes: tuple[str, ...] = ()  # what a person should know, one line each
    name: str = ""  # beside other sets of the same `plain_name`, see `told_apart`
    one_source: bool = False  # whether words in file names tell nothing, see `told_apart`
    opened: tuple[Item, ...] = field(default=(), repr=False, compare=False)  # before any filter

    @property
    def whole(self) -> Dataset:
        """The data set as it was opened, with what was removed since."""
        return replace(self, items=self.opened) if self.opened else self

    def keep(self, items: Iterable[Item], skipped: Iterable[Skipped] = ()) -> Dataset:
        """Return the data set with a part of its images; `skipped` lists removed ones."""
        kept, opened = tuple(items), self.opened or self.items
        return replace(self, items=kept, skipped=(*self.skipped, *skipped), opened=opened)

    @property
    def is_sample(self) -> bool:
        """Whether these are drawings, not photographs."""
        return self.source == SAMPLE

    @property
    def display_name(self) -> str:
        """Name of the source in messages."""
        return "the drawn sample set" if self.is_sample else self.source

    @property
    def short_name(self) -> str:
        """The source without its folders."""
        return Path(self.display_name).name

    @property
    def plain_name(self) -> str:
        """The source without its folders and the ending of a zip."""
        name = self.short_name
        return name[:-4] if name.lower().endswith(".zip") else name

    def items_of(self, split: Split) -> list[Item]:
        """Return the images of one split, sorted by name."""
        return [item for item in self.items if item.split == split]

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the images: `{split: {label: n}}`, with every split and label."""
        found = Counter((item.split, item.label) for item in self.items)
        return {
            split: {label: found[split, index] for index, label in enumerate(self.labels)}
            for split in SPLITS
        }

    @property
    def copies(self) -> int:
        """Count the images with the same pixels as another one."""
        return len(self.items) - len({item.digest for item in self.items})

    def decode(self, item: Item) -> Image:
        """Decode an image at its own size: `uint8 [H,W,3]` BGR; `DataError` if it has changed."""
        try:
            return self.files.frame(item.file, keep_damaged=True)
        except PictureError as error:
            raise changed(self.source, item.file, str(error)) from error

    def describe(self) -> list[str]:
        """Describe the data set in human-readable lines; the first names the source."""
        by_label = Counter(item.label for item in self.items)
        each = ", ".join(f"{by_label[i]:,} {label}" for i, label in enumerate(self.labels))
        if len(self.labels) > 10:
            sizes = [by_label[index] for index in range(len(self.labels))]
            each = f"{len(self.labels):,} classes of {min(sizes):,} to {max(sizes):,}"
        if self.is_sample:
            first = (
                f"data: {len(self.items):,} drawings made by this program ({each}); they are not "
                "photographs: good for trying the commands, not for judging a model"
            )
        else:
            first = f"data: {self.source}: {len(self.items):,} images ({each}), {self.layout}"
        splits = Counter(item.split for item in self.items)
        lines = [first, "split: " + ", ".join(f"{splits[split]:,} {split}" for split in SPLITS)]
        if self.skipped:
            # What follows a colon is of the one file.
            reasons = Counter(entry.reason.partition(": ")[0] for entry in self.skipped)
            listed = "; ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(3))
            lines.append(f"skipped: {len(self.skipped):,} files ({listed})")
        if self.copies:
            lines.append(f"copies: {self.copies:,} images occur more than once, on one side each")
        return lines + [f"note: {note}" for note in self.notes]

    def log_summary(self) -> None:
        """Log the lines of `describe`."""
        for line in self.describe():
            log.info(line)

    def write_split_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `file,label,split`; `open_dataset(split_csv=...)` reads it."""
        rows = ((item.file, self.labels[item.label], item.split) for item in self.items)
        write_csv(path, ("file", "label", "split"), rows)

    def write_skipped_csv(self, path: str | os.PathLike[str], more: Sequence[Dataset] = ()) -> None:
        """Write `file,reason`; the files of `more` data sets with their whole path."""
        rows = [(entry.file, entry.reason) for entry in self.skipped]
        for one in more:
            rows += [(f"{one.source}/{entry.file}", entry.reason) for entry in one.skipped]
        write_csv(path, ("file", "reason"), rows)


def changed(source: str, file: str, reason: str) -> DataError:
    """Make the error for an image that has changed since the set was opened."""
    return DataError(f"{source}: {file} has changed while it was in use ({reason}); run it again")


def write_csv(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a table with any file names, even with line breaks in them."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    # Python before 3.13 puts no quotes around a lone carriage return, and cannot read it then.
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(header)
    for row in rows:
        (quoting if any("\r" in str(cell) for cell in row) else plain).writerow(row)
    # Names that are no valid UTF-8 go out as the bytes they came in as.
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))


def nfc(text: str) -> str:
    """Normalise text to Unicode NFC: a letter with an accent is one character."""
    return unicodedata.normalize("NFC", text)


def is_utf8(text: str) -> bool:
    """Check that text contains no undecodable bytes (lone surrogates)."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names alphabetically, ignoring case."""
    return tuple(sorted(names, key=lambda name: (name.casefold(), name)))
