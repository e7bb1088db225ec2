"""Oxford-IIIT Pet as a data set: fetched through torchvision, once, into the cache folder.

7,349 photographs of 12 breeds of cats and 25 of dogs (Parkhi, Vedaldi, Zisserman, Jawahar:
Cats and Dogs, CVPR 2012). What torchvision calls the binary category is the label here. The
result is an ordinary folder with a table in it, so nothing else has to know of it, and it is
opened later without a network.
"""

from __future__ import annotations

import csv
import io
import socket
from pathlib import Path

from catdog_edge.errors import CatdogError, DataError, MissingPackageError
from catdog_edge.files import write_text
from catdog_edge.training.cache import cache_root
from catdog_edge.training.sources import PETS as NAME

TIMEOUT = 30.0
"""Seconds without an answer after which the network counts as absent."""


def pets_folder() -> Path:
    """The folder of the pictures, with `labels.csv` in it; fetched where it is not there yet.

    Raises:
        MissingPackageError: torchvision is not installed.
        DataError: There is no network, the archive is damaged, or the disk is full.
    """
    root = cache_root() / NAME
    images = root / "oxford-iiit-pet" / "images"
    table = images / "labels.csv"
    if table.is_file():
        return images
    _fetch(root)
    rows = [("image", "label")]
    for listing in ("trainval.txt", "test.txt"):
        rows += _labels(root / "oxford-iiit-pet" / "annotations" / listing)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # Written last: a folder without it is one that was not fetched to the end.
    try:
        write_text(table, text.getvalue())
    except CatdogError as error:
        raise DataError(str(error)) from error
    return images


def _fetch(root: Path) -> None:
    try:
        from torchvision.datasets import OxfordIIITPet
    except ImportError as error:
        raise MissingPackageError(
            f"--data {NAME} needs torchvision; install it with: pip install 'catdog-edge[train]'"
        ) from error
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for split in ("trainval", "test"):
            OxfordIIITPet(root, split=split, target_types="binary-category", download=True)
    except (OSError, RuntimeError, EOFError) as error:
        # URLError is an OSError; a wrong checksum is torchvision's RuntimeError.
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        archives = " and ".join(url for url, _ in OxfordIIITPet._RESOURCES)
        raise DataError(
            f"Oxford-IIIT Pet cannot be fetched ({_one_line(reason)}); look at the network, or "
            f"unpack {archives} from another machine into {root / 'oxford-iiit-pet'}"
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
    except (OSError, IndexError, KeyError) as error:
        raise DataError(
            f"{listing} is damaged; delete {listing.parents[1]} and try again"
        ) from error


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())
