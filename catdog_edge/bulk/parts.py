"""Split the images of a run into parts of a fixed number from one source, and read their bytes.

A part is one line of JSON with everything needed to read its images, so any process on any
machine with access to the source can classify it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, BinaryIO

from catdog_edge.bulk.storage import filesystem, is_remote, open_file, pyarrow, suffix
from catdog_edge.errors import CatdogError, PictureError, first_line
from catdog_edge.images.find import find_images
from catdog_edge.images.read import check_size, is_picture, read_bytes
from catdog_edge.system.files import name_text

Read = Callable[[], bytes]
"""Read the bytes of one image file; raises `PictureError`."""

ROWS = 16  # bytes of a Parquet file in memory at a time


@dataclass(frozen=True)
class Part:
    """Consecutive images of one source.

    `items` are paths; of a .zip or .tar lists of a name and where its bytes are; of a .parquet
    file row numbers.
    """

    number: int  # from 0; part of the name of the results file
    source: str  # a .zip, .tar or .parquet file, an address, or empty: `items` are paths
    items: list[Any]

    @property
    def names(self) -> list[str]:
        """Names of the images in the results, as valid text for any bytes."""
        kind, source = suffix(self.source), self.source
        if is_remote(source):
            source = source.partition("?")[0]  # options of the file system
        if kind == ".parquet":
            return [name_text(f"{source}#{row}") for row in self.items]
        if kind in (".zip", ".tar"):
            return [name_text(f"{source}/{item[0]}") for item in self.items]
        scheme = f"{self.source.partition('://')[0]}://" if self.source else ""
        return [name_text(f"{scheme}{item}") for item in self.items]

    def to_json(self) -> str:
        """Return one line of JSON; see `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str | bytes) -> Part:
        """Parse the output of `to_json`."""
        return cls(**json.loads(line))

    def readers(self) -> Iterator[Read]:
        """Yield a function for each image that reads its bytes, to be called in any thread.

        Both raise `CatdogError` if the source cannot be read.
        """
        kind = suffix(self.source)
        try:
            if not self.source:
                yield from (partial(read_bytes, item) for item in self.items)
            elif kind == ".zip":
                yield from (partial(_unzip, self.source, *place) for _, *place in self.items)
            elif kind == ".tar":
                yield from (partial(_slice, self.source, *place) for _, *place in self.items)
            elif kind == ".parquet":
                yield from _parquet_rows(self.source, self.items)
            else:
                system, _ = filesystem(self.source)
                yield from (partial(_remote, system, item) for item in self.items)
        except OSError as error:
            raise _gone(self.source, error) from error


def list_parts(names: Sequence[str], listed: Iterable[str], size: int) -> Iterator[Part]:
    """List the images of files, folders, patterns, archives, Parquet files and addresses.

    `names` are as in `find_images`; also .zip, .tar and .parquet files, and addresses of such
    files or of folders; `-` stands for the names in `listed`. A part has `size` images, the last
    part of a source may have fewer. Raises `CatdogError` if a source cannot be read.
    """
    local = list(itertools.chain.from_iterable(listed if name == "-" else [name] for name in names))
    remote = [name for name in local if is_remote(name)]
    files = find_images([name for name in local if not is_remote(name)])
    numbers = itertools.count()
    groups: list[tuple[str, Iterable[Any]]] = [
        ("", [str(file) for file in files if suffix(str(file)) not in _LISTS])
    ]
    containers = [str(file) for file in files if suffix(str(file)) in _LISTS]
    groups += [(name, _list_source(name)) for name in containers + remote]
    for source, items in groups:
        left = iter(items)
        while some := list(itertools.islice(left, size)):
            yield Part(next(numbers), source, some)


def _list_source(source: str) -> Iterator[Any]:
    try:
        yield from _LISTS.get(suffix(source), _list_remote)(source)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, ValueError) as error:
        raise _gone(source, error) from error


def _list_zip(source: str) -> Iterator[tuple[str | int, ...]]:
    with open_file(source) as stream, zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if _wanted(info.filename):
                method = info.compress_type if not info.flag_bits & 1 else -1  # encrypted
                place = info.header_offset, info.compress_size, info.file_size, info.CRC
                yield info.filename, method, *place


def _list_tar(source: str) -> Iterator[tuple[str, int, int]]:
    # Not compressed: an image is then a slice of the file.
    with open_file(source) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined] # which it would keep
            if member.isfile() and _wanted(member.name):
                yield member.name, member.offset_data, member.size


def _list_parquet(source: str) -> Iterator[int]:
    with open_file(source) as stream:
        file, _ = _parquet(stream, source)
        yield from range(file.metadata.num_rows)


def _list_remote(source: str) -> Iterator[str]:
    system, path = filesystem(source)
    fs = pyarrow("pyarrow.fs")
    if system.get_file_info(path).type == fs.FileType.File:
        yield path
        return
    found = system.get_file_info(fs.FileSelector(path, recursive=True))
    yield from sorted(info.path for info in found if info.is_file and _wanted(info.path))


_LISTS: dict[str, Callable[[str], Iterator[Any]]] = {
    ".zip": _list_zip,
    ".tar": _list_tar,
    ".parquet": _list_parquet,
}


def _wanted(name: str) -> bool:
    """Check whether a file is an image; macOS metadata files (`._cat.jpg`) are not."""
    return is_picture(name) and not posixpath.basename(name).startswith(".")


def _parquet(stream: BinaryIO, source: str) -> tuple[Any, str]:
    """Read the footer of a Parquet file; return the file and the column of the image files.

    This is a column of bytes, or of structs with a field `bytes` as in Hugging Face datasets. Of
    several, the one named `image` is used.
    """
    file = pyarrow("pyarrow.parquet").ParquetFile(stream)
    columns = [
        leaf.path
        for leaf in (file.schema.column(index) for index in range(len(file.schema)))
        if leaf.physical_type == "BYTE_ARRAY"
        and leaf.logical_type.type == "NONE"  # a text is one of bytes with the type STRING
        and leaf.path.removesuffix(".bytes") == leaf.path.partition(".")[0]
    ]
    wanted = [name for name in columns if name in ("image", "image.bytes")] or columns
    if len(wanted) != 1:
        has = ", ".join(columns) or "none"
        raise CatdogError(f"{source}: expected one column of bytes or one named image, found {has}")
    return file, wanted[0]


def _parquet_rows(source: str, rows: Sequence[int]) -> Iterator[Read]:
    """Yield the bytes of consecutive rows; reads only the row groups that contain them."""
    with open_file(source) as stream:
        file, column = _parquet(stream, source)
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = [0, *itertools.accumulate(counts)]
        first, last = rows[0], rows[-1]
        groups = [g for g in range(len(counts)) if starts[g] <= last and starts[g + 1] > first]
        at = starts[groups[0]]
        for batch in file.iter_batches(ROWS, row_groups=groups, columns=[column]):
            values = batch.column(0)
            values = values.field("bytes") if column.endswith(".bytes") else values
            for value in values:
                if first <= at <= last:
                    yield partial(_given, value.as_py())
                at += 1


def _given(data: bytes | None) -> bytes:
    if data is None:
        raise PictureError("the row is empty (null)")
    return data


def _unzip(source: str, method: int, start: int, packed: int, size: int, crc: int) -> bytes:
    """Read an entry of a zip without the directory, which is large for a million entries."""
    check_size(max(packed, size))
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PictureError("cannot be unpacked: encrypted, or neither stored nor deflated")
    with _reading(source) as stream:
        stream.seek(start)
        lengths = struct.unpack("<26x2H", stream.read(30))  # of the name and of what follows it
        stream.seek(start + 30 + sum(lengths))
        data = stream.read(packed)
    try:
        if method == zipfile.ZIP_DEFLATED:
            # 0 would mean: without a limit. What is too long has another checksum.
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max(size, 1))
    except zlib.error:
        data = b""
    if zlib.crc32(data) != crc:
        raise PictureError("damaged inside the zip")
    return data


def _slice(source: str, start: int, size: int) -> bytes:
    check_size(size)
    with _reading(source) as stream:
        stream.seek(start)
        return stream.read(size)


@contextlib.contextmanager
def _reading(source: str) -> Iterator[BinaryIO]:
    try:
        with open_file(source) as stream:
            yield stream
    except (OSError, struct.error) as error:
        raise _gone(source, error) from error


def _gone(source: str, error: Exception) -> CatdogError:
    """Return the error that ends a run when a source is lost: it may become available again."""
    return CatdogError(f"{source} cannot be read: {first_line(error)}")


def _remote(system: Any, path: str) -> bytes:
    try:
        with system.open_input_file(path) as stream:
            check_size(stream.size())
            return stream.read()  # type: ignore[no-any-return]
    except FileNotFoundError as error:
        raise PictureError("there is no such file") from error
    except OSError as error:
        raise _gone(path, error) from error
