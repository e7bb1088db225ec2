"""Oxford-IIIT Pet as a data set: downloaded once, through torchvision, into the cache folder.

7,349 photographs of 12 breeds of cats and 25 of dogs (Parkhi, Vedaldi, Zisserman, Jawahar:
Cats and Dogs, CVPR 2012), labelled cat or dog. The result is a folder with a `labels.csv`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from catdog_edge.errors import CatdogError, DataError
from catdog_edge.system.download import guarded_download
from catdog_edge.system.files import cache_folder, write_text
from catdog_edge.system.packages import import_extra

NAME = "oxford-pets"  # what `--data` takes for this data set


def pets_folder() -> Path:
    """Return the folder of the images, with `labels.csv` in it; download missing files.

    An edited `labels.csv` is kept. Of concurrent processes only one downloads. Raises
    `MissingPackageError` without torchvision, and `DataError`.
    """
    root = cache_folder() / NAME
    base, images = root / "oxford-iiit-pet", root / "oxford-iiit-pet" / "images"
    if _is_complete(images, _table(images)):
        return images
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / "lock"):
            if not _is_complete(images, _table(images)):
                _complete(base)
    except OSError as error:
        raise DataError(
            f"cannot write {root}: {error.strerror or error}; free some disk space, or set "
            "CATDOG_CACHE to another folder"
        ) from error
    return images


def _complete(base: Path) -> None:
    images, rows = base / "images", _table(base / "images")
    # What lies beside the archives without a table may be half unpacked; without archives
    # somebody has unpacked it, and all of it must be there.
    by_hand = not rows and not (base / "images.tar.gz").exists()
    if not (by_hand and _is_complete(images, _annotations(base))):
        _download(base)
    rows = rows or _annotations(base)
    if not _is_complete(images, rows):
        raise DataError(
            f"{base} is incomplete: of {len(rows):,} images some are missing; delete this folder "
            "and try again, then it is downloaded again"
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("image", "label"), *rows])
    # Written last: a folder without it was not downloaded to the end.
    try:
        write_text(images / "labels.csv", text.getvalue())
    except CatdogError as error:
        raise DataError(str(error)) from error


def _table(images: Path) -> list[tuple[str, str]]:
    """Read image and label of each row of `labels.csv`; none where it is missing or damaged."""
    try:
        with (images / "labels.csv").open(encoding="utf-8", newline="") as stream:
            rows = [(row["image"], row["label"]) for row in csv.DictReader(stream)]
            return rows if all(image and label for image, label in rows) else []
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def _annotations(base: Path) -> list[tuple[str, str]]:
    """Read image and label of each line `NAME CLASS SPECIES BREED`; species 1 is a cat, 2 a dog."""
    try:
        files = [base / "annotations" / name for name in ("trainval.txt", "test.txt")]
        lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
        rows = [line.split() for line in lines if line and not line.startswith("#")]
        return [(f"{row[0]}.jpg", {"1": "cat", "2": "dog"}[row[2]]) for row in rows]
    except (OSError, ValueError, LookupError):
        return []


def _is_complete(images: Path, rows: Iterable[tuple[str, str]]) -> bool:
    """Check that there are rows, and every image in them exists and is not empty."""
    try:
        with os.scandir(images) as entries:
            there = {entry.name for entry in entries if entry.stat().st_size > 0}
    except OSError:
        return False
    named = {image for image, _ in rows}
    return bool(named) and named <= there


def _download(base: Path) -> None:
    """Download the archives that are missing or damaged, and unpack them."""
    datasets = import_extra("torchvision.datasets", "train", f"--data {NAME} needs torchvision")
    archives = datasets.OxfordIIITPet._RESOURCES

    def failed(reason: str) -> DataError:
        incomplete = " what is there is incomplete;" if (base / "images").exists() else ""
        return DataError(
            f"Oxford-IIIT Pet cannot be downloaded ({reason});{incomplete} check the network, "
            f"delete {base} to start from scratch, or unpack "
            f"{' and '.join(url for url, _ in archives)} from another machine into it"
        )

    with guarded_download(failed):
        base.mkdir(parents=True, exist_ok=True)
        for url, checksum in archives:
            datasets.utils.download_and_extract_archive(url, str(base), md5=checksum)
