"""Oxford-IIIT Pet as a data set: fetched through torchvision, once, into the cache folder.

7,349 photographs of 12 breeds of cats and 25 of dogs (Parkhi, Vedaldi, Zisserman, Jawahar:
Cats and Dogs, CVPR 2012). What torchvision calls the binary category is the label here. The
result is an ordinary folder with a table in it, so nothing else has to know of it, and it is
opened later without a network.
"""

from __future__ import annotations

import csv
import io
import os
import socket
import tarfile
from collections.abc import Iterable
from pathlib import Path

from catdog_edge.errors import CatdogError, DataError, MissingPackageError
from catdog_edge.system.files import cache_folder, write_text
from catdog_edge.training.data.pixel_cache import turn_in
from catdog_edge.training.data.sources import PETS as NAME

TIMEOUT = 30.0
"""Seconds without an answer after which the network counts as absent."""


def pets_folder() -> Path:
    """The folder of the pictures, with `labels.csv` in it; fetched where it is not there whole.

    A table that a person has corrected stays; a picture that it names comes back. Of processes
    that start together one fetches, and the others wait for it.

    Raises:
        MissingPackageError: torchvision is not installed.
        DataError: There is no network, the archive is damaged, or the disk is full.
    """
    root = cache_folder() / NAME
    base = root / "oxford-iiit-pet"
    if not _whole(base):
        with turn_in(root):
            if not _whole(base):  # another process may have fetched it meanwhile
                _complete(base)
    return base / "images"


def _whole(base: Path) -> bool:
    rows = _table(base / "images" / "labels.csv")
    return bool(rows) and not _missing(base / "images", rows)


def _complete(base: Path) -> None:
    images = base / "images"
    table = images / "labels.csv"
    rows = _table(table)
    # The archives are kept beside what was unpacked: what lies there without a table may be
    # half unpacked. Without them a person has unpacked it, and all of it must be there.
    if rows or (base / "images.tar.gz").exists() or not _unpacked(base):
        _fetch(base)
    rows = rows or _listed(base)
    missing = _missing(images, rows)
    if missing or not rows:
        first = f", {missing[0]} is the first" if missing else ""
        raise DataError(
            f"{base} is incomplete: {len(missing):,} of {len(rows):,} pictures are missing"
            f"{first}; delete this folder and try again, then it is fetched anew"
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("image", "label"), *rows])
    # Written last: a folder without it is one that was not fetched to the end.
    try:
        write_text(table, text.getvalue())
    except CatdogError as error:
        raise DataError(str(error)) from error


def _table(table: Path) -> list[tuple[str, str]]:
    """Image and label of each row; none where there is no table, or a damaged one."""
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            rows = [(row["image"], row["label"]) for row in csv.DictReader(stream)]
            return rows if all(image and label for image, label in rows) else []
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def _missing(images: Path, rows: Iterable[tuple[str, str]]) -> list[str]:
    """Which of the pictures are not there, or are empty."""
    try:
        with os.scandir(images) as entries:
            there = {entry.name for entry in entries if entry.stat().st_size > 0}
    except OSError:
        there = set()
    return [image for image, _ in rows if image not in there]


def _listed(base: Path) -> list[tuple[str, str]]:
    listings = [base / "annotations" / name for name in ("trainval.txt", "test.txt")]
    return [row for listing in listings for row in _labels(listing)]


def _unpacked(base: Path) -> bool:
    try:
        rows = _listed(base)
    except DataError:
        return False
    return bool(rows) and not _missing(base / "images", rows)


def _fetch(base: Path) -> None:
    """Fetch the archives that are not there whole, and unpack them over what is there."""
    try:
        from torchvision.datasets import OxfordIIITPet
        from torchvision.datasets.utils import download_and_extract_archive
    except ImportError as error:
        raise MissingPackageError(
            f"--data {NAME} needs torchvision; install it with: pip install 'catdog-edge[train]'"
        ) from error
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    archives = OxfordIIITPet._RESOURCES
    try:
        base.mkdir(parents=True, exist_ok=True)
        for url, checksum in archives:
            download_and_extract_archive(url, str(base), md5=checksum)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        # URLError is an OSError; a wrong checksum is torchvision's RuntimeError.
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        incomplete = " what is there is incomplete;" if (base / "images").exists() else ""
        raise DataError(
            f"Oxford-IIIT Pet cannot be fetched ({_one_line(reason)});{incomplete} look at the "
            f"network, delete {base} to begin anew, or unpack "
            f"{' and '.join(url for url, _ in archives)} from another machine into it"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _labels(listing: Path) -> list[tuple[str, str]]:
    """Image and label of each line `NAME CLASS SPECIES BREED`; species 1 is a cat, 2 a dog."""
    try:
        lines = [line.split() for line in listing.read_text(encoding="utf-8").splitlines()]
        return [
            (f"{line[0]}.jpg", {"1": "cat", "2": "dog"}[line[2]])
            for line in lines
            if line and not line[0].startswith("#")
        ]
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise DataError(
            f"{listing} is damaged; delete {listing.parents[1]} and try again"
        ) from error


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())
