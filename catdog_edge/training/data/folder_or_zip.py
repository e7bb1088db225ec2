"""Sources of images: a folder, a `.zip` read in place, or the drawn sample."""

from __future__ import annotations

import hashlib
import os
import posixpath
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from catdog_edge.errors import DataError, PictureError
from catdog_edge.images.preprocess import Image
from catdog_edge.images.read import check_size, decode_picture, is_picture, read_bytes
from catdog_edge.system.files import expand_path
from catdog_edge.training.data import oxford_pets, sample

SAMPLE = "sample"  # the name of the drawn set where a folder or a zip could stand

_JUNK = {"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin"}


@dataclass(frozen=True)
class Entry:
    """Identifies a version of a file without reading it."""

    size: int  # in bytes; 0 for a drawing
    stamp: str  # CRC-32 of a zip's entry, modification time, or a drawing's version


@dataclass(frozen=True)
class Skipped:
    """A skipped file, and the reason."""

    file: str
    reason: str


class Source:
    """A set of files, without hidden ones and those of a desktop."""

    name: str  # absolute path, or `sample`
    entries: Mapping[str, Entry]  # by name inside the source (posix), in the order of names
    closed: tuple[Skipped, ...] = ()  # folders that cannot be opened, each with the reason
    notes: tuple[str, ...] = ()  # what a person should know, one line each

    @cached_property
    def pictures(self) -> dict[str, None]:
        """List the files with suffixes of images, sorted by name."""
        return {name: None for name in self.entries if is_picture(name)}

    def read(self, file: str) -> bytes:
        """Read the bytes of a file; raises `PictureError`."""
        raise NotImplementedError

    def frame(self, file: str, *, keep_damaged: bool = False) -> Image:
        """Decode the image in a file, `uint8 [H,W,3]` BGR; raises `PictureError`."""
        return decode_picture(self.read(file), keep_damaged=keep_damaged)

    def digest(self, file: str, frame: Image) -> str:
        """Return 32 hexadecimal digits of shape and pixels: copies of an image share them."""
        del file
        digest = hashlib.sha256(b"%d %d " % frame.shape[:2])
        digest.update(frame.data)
        return digest.hexdigest()[:32]


class FolderSource(Source):
    """All files below a folder."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        closed: list[Skipped] = []
        notes: list[str] = []
        self.entries = dict(sorted(self._walk(closed, notes)))
        self.closed, self.notes = tuple(closed), tuple(notes)

    def _walk(self, closed: list[Skipped], notes: list[str]) -> Iterator[tuple[str, Entry]]:
        def note(error: OSError) -> None:
            folder = Path(os.fsdecode(error.filename))
            if folder == self._path:
                raise error
            name = folder.relative_to(self._path).as_posix()
            reason = f"the folder cannot be opened: {error.strerror or error}"
            closed.append(Skipped(f"{name}/", reason))

        seen: dict[tuple[int, int], Path] = {}
        for folder, folders, files in os.walk(self._path, onerror=note, followlinks=True):
            status = Path(folder).stat()
            inside = Path(folder).relative_to(self._path)
            first = seen.setdefault((status.st_dev, status.st_ino), inside)
            if first != inside:
                if not inside.is_relative_to(first):
                    raise DataError(
                        f"{self.name}: {first.as_posix()} and {inside.as_posix()} are one folder "
                        "(a link), so its images would count twice; remove one of the two"
                    )
                whole = self.name if first == Path() else first.as_posix()
                notes.append(f"{inside.as_posix()} is a link back to {whole}: not followed")
                folders.clear()
                continue
            if not folders and not files and inside != Path():
                notes.append(f"the folder {inside.as_posix()} is empty")
            folders[:] = [name for name in folders if not _is_junk(name)]
            for file in filter(lambda name: not _is_junk(name), files):
                try:
                    found = Path(folder, file).stat()
                    entry = Entry(found.st_size, str(found.st_mtime_ns))
                except OSError:
                    entry = Entry(0, "")  # a broken link: reading it gives the reason
                    if not is_picture(file):  # nobody will read it, and it may be a class
                        notes.append(f"{(inside / file).as_posix()} is a broken link")
                yield (inside / file).as_posix(), entry

    def read(self, file: str) -> bytes:
        """Read a regular file: a pipe or a device may have no end."""
        return read_bytes(self._path / file)


class ZipSource(Source):
    """All files in a zip, read in place; nothing is unpacked to disk."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._lock, self._process, self._zip = threading.Lock(), os.getpid(), self._open()
        self._infos = {
            # Some archivers begin names with a slash, of all entries or of a few.
            posixpath.normpath(_zip_name(info).replace("\\", "/")).lstrip("/"): info
            for info in self._zip.infolist()
            if not info.is_dir()
        }
        self.entries = {
            name: Entry(info.file_size, f"{info.CRC:08x}")
            for name, info in sorted(self._infos.items())
            if not any(_is_junk(part) for part in name.split("/"))
        }

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.name)
        except zipfile.BadZipFile as error:
            raise DataError(
                f"{self.name} is no zip, or an incomplete one ({error}); "
                "give --data a folder of images or a whole .zip"
            ) from error

    def read(self, file: str) -> bytes:
        """Read an entry, checked against its CRC-32."""
        info = self._infos[file]
        check_size(info.file_size)  # the declared size is the most that zipfile unpacks
        with self._lock:
            if self._process != os.getpid():
                # A forked worker shares its parent's file position: it needs a handle of its own.
                self._zip, self._process = self._open(), os.getpid()
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise PictureError("damaged inside the zip") from error
        except (NotImplementedError, RuntimeError) as error:
            raise PictureError(f"cannot be unpacked: {error}") from error
        except OSError as error:
            raise PictureError(f"cannot be read: {error.strerror or error}") from error


class SampleSource(Source):
    """Drawings instead of photographs, made in code; the same on every call."""

    def __init__(self) -> None:
        self.name = SAMPLE
        files = sorted(Path(sample.__file__).parent.glob("*.py"))
        code = b"".join(file.read_bytes() for file in files)
        # Drawings that another version of the code made are other images.
        entry = Entry(0, hashlib.sha256(code).hexdigest()[:16])
        self.entries = {
            f"{kind}.{number}.png": entry for kind in sample.KINDS for number in range(sample.COUNT)
        }

    def frame(self, file: str, *, keep_damaged: bool = False) -> Image:
        """Return the drawing."""
        del keep_damaged
        kind, number, _ = PurePosixPath(file).name.split(".")
        return sample.draw(kind, int(number))

    def digest(self, file: str, frame: Image) -> str:
        """Digest the name: a drawing's last bits depend on OpenCV's version, its split must not."""
        del frame
        # With this salt the few drawings fall nearly as 80/10/10 in both classes.
        return hashlib.sha256(f"6/{file}".encode()).hexdigest()[:32]


def is_sample(source: str | os.PathLike[str] | None) -> bool:
    """Check whether `open_source` uses the drawn set."""
    return str(source if source is not None else os.environ.get("CATDOG_DATA") or SAMPLE) == SAMPLE


def open_source(source: str | os.PathLike[str] | None) -> Source:
    """Open a path, `sample`, or `oxford-pets`; `None`: `$CATDOG_DATA`, or else `sample`.

    Raises `DataError` if there is no such folder or zip, or it cannot be read.
    """
    if source is None:
        source = os.environ.get("CATDOG_DATA") or SAMPLE
    if str(source) == SAMPLE:
        return SampleSource()
    if str(source) == oxford_pets.NAME:
        return FolderSource(oxford_pets.pets_folder())
    if not str(source):
        # An empty variable in somebody's script; Path would take it for the current folder.
        raise DataError(
            "--data is empty; give it a folder of images, a .zip, 'oxford-pets' or 'sample'"
        )
    path = expand_path(source)
    try:
        if path.is_dir():
            return FolderSource(path)
        if path.is_file():
            return ZipSource(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    raise DataError(
        f"there is no folder or zip {path}; give --data a folder of images, a .zip, 'oxford-pets' "
        "or 'sample'"
    )


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name of an entry: UTF-8 where declared or valid, else lone surrogates."""
    if info.flag_bits & 0x800:
        return info.filename
    raw, extra = info.orig_filename.encode("cp437"), info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        # Info-ZIP's Unicode path: version, CRC-32 of the plain name, the name in UTF-8.
        if kind == 0x7075 and extra[5:9] == struct.pack("<I", zlib.crc32(raw)):
            raw = extra[9 : 4 + size]
        extra = extra[4 + size :]
    return raw.decode("utf-8", "surrogateescape")


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK
