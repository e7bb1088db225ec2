"""Labels and splits from CSV tables: a column of images, and one of labels or one per class."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from catdog_edge.errors import DataError, PictureError
from catdog_edge.images.read import read_bytes
from catdog_edge.training.data.dataset import Candidate, FileLayout, Split, is_utf8, nfc
from catdog_edge.training.data.folder_or_zip import Skipped, Source
from catdog_edge.training.data.splits import split_names, split_word

_IMAGE_COLUMNS = (
    *("image", "images", "img", "file", "files", "filename", "file_name", "filepath", "filepaths"),
    *("file_path", "path", "image_path", "image_name", "imagename", "image_id", "picture"),
    *("photo", "id"),
)
_LABEL_COLUMNS = (
    *("label", "labels", "class", "classes", "class_name", "classname", "category", "species"),
    *("breed", "kind", "target", "animal", "y"),
)
_SPLIT_COLUMNS = ("split", "splits", "subset", "partition")
# These are columns of splits if one of their words is a split.
_MAYBE_SPLIT_COLUMNS = ("set", "dataset", "data_set", "mode", "phase", "stage", "usage", "fold")
_ANSWERS = re.compile("submission|sample_?sub", re.IGNORECASE)  # tables that are to be filled in
_TRUTH = dict.fromkeys(("0", "0.0", "false", "no"), False)
_TRUTH |= dict.fromkeys(("1", "1.0", "true", "yes"), True)


@dataclass
class Table:
    """Labels and splits of the images in a table."""

    name: str  # its file inside the source
    columns: str  # in words, for messages
    names_images: bool = False  # it has a column of images that are here
    is_understood: bool = False  # another column has labels or splits, or none is meant to
    has_labels: bool = False
    labels: dict[str, str] = field(default_factory=dict)  # by file
    splits: dict[str, Split] = field(default_factory=dict)  # by file, where a column names it
    files: tuple[str, ...] = ()  # of its rows
    is_list: bool = False  # it has no other column than that of images
    skipped: list[Skipped] = field(default_factory=list)  # rows that cannot be used


def read_tables(source: Source, labels: Sequence[str] | None) -> list[Table]:
    """Read the tables of a source, except annotations named like their image.

    Tables are CSV and TSV files, and lists of images called `train.txt`, `test.txt`. For a table
    of numbers, `labels` names the classes 0, 1, ...

    Raises:
        DataError: A table cannot be read or decoded, or `labels` names too few classes.
    """
    names = [name for name in source.entries if name.lower().endswith((".csv", ".tsv", ".txt"))]
    if not names:
        return []
    files = _Files(source)
    stems = {posixpath.splitext(name)[0] for name in source.pictures}
    tables = []
    for name in names:
        path = PurePosixPath(name)
        split = split_names([path.stem]).get(path.stem)
        is_list = path.suffix.lower() == ".txt"
        if str(path.with_suffix("")) in stems or (is_list and split is None):
            continue
        where = f"{source.name}: {name}"
        try:
            data = source.read(name)
        except PictureError as error:
            raise DataError(f"{where}: {error}") from error
        header, rows = _parse_list(data, files, path.parent) if is_list else parse_csv(data, where)
        table = _Reader(name, header, rows, files, where).read(labels)
        if (is_list or table.is_list) and split is not None:
            table.splits = dict.fromkeys(table.files, split)
        if table.names_images or not is_list:
            tables.append(table)
    return tables


def parse_csv(data: bytes, where: str) -> tuple[list[str], list[list[str]]]:
    """Parse a CSV into its header and rows: UTF-8 or marked UTF-16; commas, semicolons, tabs.

    Bytes that are not UTF-8 become lone surrogates, as in file names. Raises `DataError`.
    """
    text = _decode(data)
    text = re.sub(r"^sep=.\r?\n", "", text)  # of Excel
    first = text.partition("\n")[0]
    try:
        # Line breaks as they are: one inside quotes belongs to the name of a file.
        stream, delimiter = io.StringIO(text, newline=""), max(",;\t", key=first.count)
        rows = [row for row in csv.reader(stream, delimiter=delimiter) if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{where} cannot be read as CSV ({error})") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    # Some programs leave out the empty cells at the end of a row; one cell alone is a remark.
    rows = [row for row in rows[1:] if len(row) >= min(2, len(header))]
    return header, [row + [""] * (len(header) - len(row)) for row in rows]


def _decode(data: bytes) -> str:
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode(
        "utf-16" if utf16 else "utf-8-sig", "replace" if utf16 else "surrogateescape"
    )


def _parse_list(
    data: bytes, files: _Files, folder: PurePosixPath
) -> tuple[list[str], list[list[str]]]:
    """Parse a list of images, one per line: `cat/1.jpg`, or with a label, `cat/1.jpg 0`.

    Numeric labels that are the same throughout each folder are redundant and dropped.
    """
    lines = [line.strip().strip('"') for line in _decode(data).splitlines() if line.strip()]
    pairs = [re.fullmatch(r"(.*[^\s,;\"])[\s,;\"]+([^\s,;\"]+)", line) for line in lines]
    rows = [[pair[1], pair[2]] for pair in pairs if pair]
    if len(rows) < len(lines) or not lines or files.find(lines[0], folder):
        return ["file"], [[line] for line in lines]
    folders: dict[str, set[str]] = defaultdict(set)
    for file, label in rows:
        folders[label].update(name.rpartition("/")[0] for name in files.find(file, folder))
    places = [place for found in folders.values() for place in found]
    if all(label.isdecimal() for label in folders) and len(set(places)) == len(places) > 1:
        rows = [row[:1] for row in rows]
    return ["file", "label"][: len(rows[0])], rows


class _Files:
    """Finds the file of a cell: by its path, or its name with or without the suffix."""

    def __init__(self, source: Source) -> None:
        self._by_key: dict[str, list[str]] = defaultdict(list)
        self._folders: set[str] = set()
        for name in source.entries:
            *above, last = nfc(name).split("/")
            bare = posixpath.splitext(last)[0] if name in source.pictures else last
            for key in {*_ends([*above, last]), *_ends([*above, bare])}:
                self._by_key[key].append(name)
            self._folders.update(above)

    def find(self, cell: str, folder: PurePosixPath, split: Split | None = None) -> list[str]:
        """Find the files of a cell; of several, those in a split's folder, if one is given."""
        parts = nfc(cell.strip().replace("\\", "/").removeprefix("./")).split("/")
        # A path may begin above the data, or in a folder that has another name here.
        ends = _ends(parts)
        if len(parts) > 1 and parts[-2] in self._folders:
            ends.pop()
        keys = (posixpath.normpath(f"{folder}/{ends[0]}"), *ends)
        found = next((self._by_key[key] for key in keys if key in self._by_key), [])
        if len(found) < 2:
            return found
        exact = [name for name in found if f"/{name}".endswith(f"/{cell.strip()}")]
        below = [name for name in found if PurePosixPath(name).is_relative_to(folder)]
        named = [name for name in found if split and split in map(split_word, name.split("/"))]
        return next((one for one in (below, exact, named) if len(one) == 1), found)


def _ends(parts: Sequence[str]) -> list[str]:
    """List a path and its ends without the first folders, down to the name."""
    return ["/".join(parts[start:]) for start in range(len(parts))]


class _Reader:
    """Reads a table."""

    def __init__(
        self, name: str, header: list[str], rows: list[list[str]], files: _Files, where: str
    ) -> None:
        path = PurePosixPath(name)
        self._where, self._files, self._folder = where, files, path.parent
        self._split = split_names([path.stem]).get(path.stem)
        shown = ", ".join(header[:12]) or "(none)"
        more = f" and {len(header) - 12} more" if len(header) > 12 else ""
        self._table = Table(name, shown + more)
        self._columns = {
            index: [nfc(row[index].strip()) for row in rows] for index in range(len(header))
        }
        self._header = [nfc(cell) for cell in header]
        self._plain = [re.sub(r"[ -]", "_", cell.lower()) for cell in header]

    def read(self, labels: Sequence[str] | None) -> Table:
        """Read the table and interpret its columns."""
        image = self._image_column()
        if image is None:
            return self._table
        table = self._table
        table.names_images = True
        if _ANSWERS.search(table.name):
            table.is_understood = True
            return table
        found = self._rows(image)
        # A row without a file that is short, or names nothing like one, is a total or a remark.
        last = self._columns[len(self._header) - 1]
        rows = [
            row
            for row, (file, cell) in enumerate(zip(found, self._columns[image]))
            if file or (last[row] and re.search(r"[\d./\\]", cell))
        ]
        found = [found[row] for row in rows]
        self._columns = {i: [cells[row] for row in rows] for i, cells in self._columns.items()}
        others = [index for index in self._columns if index != image]
        known = [self._plain.index(name) for name in _LABEL_COLUMNS if name in self._plain]
        label = next((i for i in known if i in others and not _are_splits(self._columns[i])), None)
        splits, used = self._split_cells([i for i in others if i != label], label is not None)
        for file, split in zip(found, splits or ()):
            if file and split and table.splits.setdefault(file, split) != split:
                raise DataError(f"{self._where} puts {file} into two splits; leave one row of it")
        words = (
            self._one_hot([index for index in others if index not in used])
            if label is None
            else self._named(found, self._columns[label], labels)
        )
        if words is not None:
            table.has_labels = True
            self._read_labels(found, words)
        table.is_list, table.files = not others, tuple(filter(None, found))
        table.is_understood = table.is_list or table.has_labels or splits is not None
        return table

    def _image_column(self) -> int | None:
        """Find the column with a known name, or one in which most cells name files."""

        def share(index: int) -> float:
            cells = self._columns[index][:500]
            return sum(bool(self._files.find(c, self._folder)) for c in cells) / len(cells)

        if not self._columns or not self._columns[0]:
            return None
        known = [self._plain.index(name) for name in _IMAGE_COLUMNS if name in self._plain]
        if known and share(best := max(known, key=share)) > 0:
            return best
        best = max(self._columns, key=share)
        return best if share(best) >= 0.5 else None

    def _split_cells(
        self, columns: Sequence[int], labelled: bool
    ) -> tuple[list[Split | None] | None, set[int]]:
        """Return the split of each row, `None` where no column has splits, and the columns used."""
        for index in columns:
            cells = self._columns[index]
            words = {cell for cell in cells if cell}
            known = {word: split for word in words for split in split_names([word]).values()}
            said = {word: split for word in words if (split := split_word(word))}
            if self._plain[index] in (*_SPLIT_COLUMNS, *_MAYBE_SPLIT_COLUMNS) and len(said) > 1:
                known = said  # PublicTest, PrivateTest
            strange = sorted(words - known.keys())
            if words and not strange:
                return [known.get(cell) for cell in cells], {index}
            named = self._plain[index] in _SPLIT_COLUMNS or (
                known and self._plain[index] in _MAYBE_SPLIT_COLUMNS
            )
            if strange and (named or len(known) > 1):
                raise DataError(
                    f"{self._where}: the column {self._header[index]} names splits, but "
                    f"{strange[0]!r} is not one; use train, val and test"
                )
        flags: dict[int, Split] = {}  # is_test, is_valid
        for index in columns:
            word = re.sub("^(is|in)_", "", self._plain[index])
            split = split_names([word]).get(word)
            marks = {cell.lower() for cell in self._columns[index]}
            truth = {""} != marks <= {"", *_TRUTH}  # a cell that is left empty is a no
            # Without a column of labels, a column `train` of 0 and 1 may be a class.
            if split and truth and (labelled or word != self._plain[index]):
                flags[index] = split
        if not flags:
            return None, set()
        rest: Split | None = None if "train" in flags.values() else "train"
        if list(flags.values()) == ["train"]:
            rest = "test"
        rows = range(len(self._columns[0]))
        marked = [
            [s for i, s in flags.items() if _TRUTH.get(self._columns[i][row].lower())]
            for row in rows
        ]
        return [one[0] if len(one) == 1 else rest for one in marked], set(flags)

    def _rows(self, image: int) -> list[str]:
        """Return the file of each row; empty where there is none, which is then skipped."""
        table, files = self._table, []
        for cell in self._columns[image]:
            matches = self._files.find(cell, self._folder, self._split)
            if not matches and not is_utf8(cell):
                raise self._undecodable(cell)
            if len(matches) != 1:
                why = "several files have that name" if matches else "there is no such file"
                table.skipped.append(Skipped(cell, f"listed in {table.name}, but {why}"))
            files.append(matches[0] if len(matches) == 1 else "")
        return files

    def _named(
        self, files: Sequence[str], cells: Sequence[str], labels: Sequence[str] | None
    ) -> list[list[str]]:
        """Return the label of each row, from a column of labels, unchanged."""
        names = _label_names({cell for cell in cells if cell}, labels, self._where)
        if names is None and _is_cat_dog(files, cells):
            names = {cell: "dog" if _TRUTH[cell] else "cat" for cell in cells if cell}
        return [[(names or {}).get(cell, cell)] for cell in cells]

    def _one_hot(self, columns: Sequence[int]) -> list[list[str]] | None:
        """Return the labels of each row, from one column per class; `None` if there are none."""
        cells = {index: [cell.lower() for cell in self._columns[index]] for index in columns}
        # A cell that is left empty is a no.
        marks = [i for i in columns if {""} != set(cells[i]) <= {"", *_TRUTH}]
        rows = zip(*(cells[index] for index in marks))
        chosen = [[i for i, cell in zip(marks, row) if _TRUTH.get(cell)] for row in rows]
        # Where several of them apply to an image they are attributes, not classes.
        if len(marks) < 2 or sum(len(one) == 1 for one in chosen) < 0.5 * len(chosen):
            return None
        return [[self._header[index] for index in one] for one in chosen]

    def _read_labels(self, files: Sequence[str], labels: Sequence[Sequence[str]]) -> None:
        table = self._table
        found: dict[str, set[str]] = defaultdict(set)
        for file, words in zip(files, labels):
            for word in words:
                if not is_utf8(word):
                    raise self._undecodable(word)
            if file:
                found[file].update(words)
        for file, names in found.items():
            named = names - {""}
            if len(named) == 1:
                table.labels[file] = named.pop()
            else:
                how = "with two labels" if named else "without a label"
                table.skipped.append(Skipped(file, f"listed in {table.name} {how}"))

    def _undecodable(self, cell: str) -> DataError:
        return DataError(
            f"{self._where} is not UTF-8 ({ascii(cell)[1:60]}...): names would be damaged; save "
            "it as UTF-8 (in Excel: CSV UTF-8)"
        )


def _are_splits(cells: Iterable[str]) -> bool:
    words = {cell for cell in cells if cell}
    return bool(words) and all(split_names([word]) for word in words)


def _is_cat_dog(files: Sequence[str], cells: Sequence[str]) -> bool:
    """Check whether this is the known cats-and-dogs set: 0 and 1, and names that agree."""
    rows = [(PurePosixPath(file).name.lower(), cell) for file, cell in zip(files, cells) if cell]
    return {_TRUTH.get(cell) for _, cell in rows} == {False, True} and all(
        name.startswith("dog" if _TRUTH[cell] else "cat") for name, cell in rows if name
    )


def _label_names(
    values: set[str], labels: Sequence[str] | None, where: str
) -> dict[str, str] | None:
    """Map each value of the label column to its label; `None`: as it is written."""
    numbers = {value: int(float(value)) for value in values if re.fullmatch(r"\d+(\.0+)?", value)}
    if labels is None or len(numbers) < len(values) or not values.isdisjoint(labels):
        return None
    if max(numbers.values(), default=0) >= len(labels):
        raise DataError(
            f"{where} has the classes {', '.join(sorted(values)[:20])}, --labels names only "
            f"{len(labels)}: {', '.join(labels)}"
        )
    return {value: labels[number] for value, number in numbers.items()}


def from_split_csv(
    path: Path, source: Source, layout: FileLayout, labels: Sequence[str] | None, limit: int | None
) -> FileLayout:
    """Read the images, labels and splits of a `split.csv`, regardless of the layout.

    Images that a run with a `limit` omitted are not reported. Raises `DataError` if the file cannot
    be read, lacks a column, or contradicts itself.
    """
    try:
        header, rows = parse_csv(read_bytes(path), str(path))
    except PictureError as error:
        raise DataError(f"{path}: {error}") from error
    if not {"file", "label", "split"} <= set(header):
        raise DataError(f"{path} must have the columns file, label and split")
    columns = [header.index(name) for name in ("file", "label", "split")]
    # The names of a copy that another system has made may be normalized otherwise.
    by_name = {nfc(name): name for name in source.entries}
    candidates: dict[str, Candidate] = {}
    skipped = []
    for written, label, word in ([row[index] for index in columns] for row in rows):
        # Earlier versions recorded a slash before the names of some zips.
        file = written if written in source.entries else written.removeprefix("/")
        file = file if file in source.entries else by_name.get(nfc(file), file)
        split = next(iter(split_names([word.strip()]).values()), None)
        if split is None:
            raise DataError(f"{path}: {file} has the split {word!r}; use train, val or test")
        candidate = Candidate(file, nfc(label), split)
        if file not in source.entries:
            skipped.append(Skipped(file, f"listed in {path.name}, but no longer there"))
        elif candidates.setdefault(file, candidate) != candidate:
            raise DataError(f"{path}: {file} is listed twice, differently")
    order = layout.labels if labels is None else tuple(labels)
    unknown = sorted({one.label for one in candidates.values()} - set(order))
    if unknown and labels is not None:
        raise DataError(f"{path} has the class {unknown[0]!r}, --labels does not")
    new = sum(one.file not in candidates for one in layout.candidates)
    note = f"{new:,} images are not in {path.name} and are left out"
    return replace(
        layout,
        kind=f"splits from {path.name}",
        candidates=tuple(sorted(candidates.values(), key=lambda one: one.file)),
        labels=tuple(sorted({one.label for one in candidates.values()})) if unknown else order,
        skipped=tuple(skipped),
        notes=(*layout.notes, note) if new and limit is None else layout.notes,
    )
