"""The Kaggle layout: a CSV with a column of images and one of labels, beside the images.

Columns are found by name, images by path or by name; labels come from the table alone.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from catdog_edge.errors import DataError, PictureError
from catdog_edge.images.read import is_picture
from catdog_edge.training.data.dataset import Candidate, Layout, sorted_names
from catdog_edge.training.data.sources import Skipped, Source

_IMAGE_COLUMNS = (
    *("image", "images", "img", "file", "files", "filename", "file_name", "filepath", "file_path"),
    *("path", "image_path", "image_name", "imagename", "image_id", "image", "photo", "id"),
)
_LABEL_COLUMNS = (
    *("label", "labels", "class", "classes", "class_name", "classname", "category", "species"),
    *("target", "animal", "y"),
)


def table_layout(
    source: Source, base: tuple[str, ...], labels: Sequence[str] | None
) -> tuple[Layout | None, list[str]]:
    """Find the table of a data set and read the labels out of it.

    Args:
        source: Where the files are.
        base: The deepest folder that holds all images; the table is there or above.
        labels: Names of the classes 0, 1, ..., where the table has numbers.

    Returns:
        The layout, or `None` where there is no such table; and, for each CSV that is none, its
        name and columns in words.

    Raises:
        DataError: There are two tables, one cannot be read, or `labels` names too few classes.
    """
    tables: list[tuple[str, list[tuple[str, str]]]] = []
    refused = []
    for name in source.entries:
        folder = PurePosixPath(name).parent.parts
        if not name.lower().endswith(".csv") or folder != base[: len(folder)]:
            continue
        header, rows = _read_table(source, name)
        image, label = _column(header, _IMAGE_COLUMNS), _column(header, _LABEL_COLUMNS)
        if image is not None and label is not None:
            tables.append((name, [(row[image], row[label]) for row in rows]))
        else:
            refused.append(f"{name} has the columns {', '.join(header) or '(none)'}")
    if len(tables) > 1:
        both = " and ".join(name for name, _ in tables)
        raise DataError(
            f"{source.name}: {both} both have an image and a label column; leave only one"
        )
    return (_from_table(source, *tables[0], labels) if tables else None), refused


def _read_table(source: Source, name: str) -> tuple[list[str], list[list[str]]]:
    try:
        text = source.read(name).decode("utf-8-sig", errors="surrogateescape")
    except PictureError as error:
        raise DataError(f"{source.name}: {name}: {error}") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [
            row
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            if any(row)
        ]
    except csv.Error as error:
        raise DataError(f"{source.name}: {name} is no CSV that can be read ({error})") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    return header, [row for row in rows[1:] if len(row) >= len(header)]


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    plain = [cell.lower().replace(" ", "_").replace("-", "_") for cell in header]
    return next((plain.index(name) for name in names if name in plain), None)


def _from_table(
    source: Source, table: str, rows: Sequence[tuple[str, str]], labels: Sequence[str] | None
) -> Layout:
    by_path: dict[str, list[str]] = defaultdict(list)
    for name in source.entries:
        path = PurePosixPath(name)
        for key in {name, path.name, path.stem if is_picture(name) else path.name}:
            by_path[key].append(name)
    folder = PurePosixPath(table).parent
    where = f"{source.name}: {table}"
    names = _label_names({label.strip() for _, label in rows if label.strip()}, labels, where)
    found: dict[str, str] = {}
    skipped = []
    for image, label in rows:
        wanted = image.strip().replace("\\", "/").removeprefix("./")
        beside = (folder / wanted).as_posix()
        matches = by_path.get(beside) or by_path.get(wanted) or by_path.get(wanted.split("/")[-1])
        if not label.strip():
            skipped.append(Skipped(wanted, f"listed in {table} without a label"))
        elif not matches:
            skipped.append(Skipped(wanted, f"listed in {table}, but there is no such file"))
        elif len(matches) > 1:
            skipped.append(Skipped(wanted, f"listed in {table}, but several files have that name"))
        elif found.setdefault(matches[0], names[label.strip()]) != names[label.strip()]:
            skipped.append(Skipped(wanted, f"listed in {table} with two labels"))
    for entry in skipped:
        if entry.reason.endswith("two labels"):
            found.pop((by_path.get(entry.file) or [""])[0], None)
    unlisted = sum(is_picture(name) for name in source.entries if name not in found)
    unlisted -= sum(entry.reason.endswith("two labels") for entry in skipped)
    notes = [f"{unlisted:,} images have no row in {table} and are left out"] if unlisted else []
    order = tuple(labels) if labels is not None else sorted_names(set(names.values()))
    if labels is None and set(names.values()) <= {"cat", "dog"}:
        order = ("cat", "dog")
    return Layout(
        f"labels from {table}",
        tuple(Candidate(name, found[name]) for name in source.entries if name in found),
        order,
        tuple(skipped),
        tuple(notes),
    )


def _label_names(values: set[str], labels: Sequence[str] | None, where: str) -> dict[str, str]:
    """What each value in the label column is called."""
    numbers = {value: int(float(value)) for value in values if re.fullmatch(r"\d+(\.0+)?", value)}
    if len(numbers) < len(values):
        return {value: value for value in values}
    if labels is None:
        if set(numbers.values()) <= {0, 1}:
            return {value: ("cat", "dog")[number] for value, number in numbers.items()}
        return {value: str(number) for value, number in numbers.items()}
    if max(numbers.values(), default=0) >= len(labels):
        raise DataError(
            f"{where} has the classes {', '.join(sorted(values))}, --labels names only "
            f"{len(labels)}: {', '.join(labels)}"
        )
    return {value: labels[number] for value, number in numbers.items()}
