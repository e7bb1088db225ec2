"""Decoded once: digests and resized pictures of a data set, kept on disk between runs.

Lives in `system.files.cache_folder()`, one folder a source; all of it may be deleted
at any time. Knows nothing of labels and splits.

- `index.json`: the digest of each file's pixels, or why it cannot be read. A line counts
  only while size and stamp of the file are those it was made from.
- `pixels-KEY.u8`: resized pictures one after the other. KEY is a digest of the files' names,
  sizes and stamps, of the resize steps and of the decoder, so a changed file is another KEY
  and a cache cannot be stale.

Files are written under a temporary name and renamed when they are whole, so a reader never
sees half of one, whoever else writes. Two processes that start together take turns where the
file system can lock: the second finds what the first has decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.errors import CatdogError, DataError
from catdog_edge.spec import ResizeStep
from catdog_edge.system.files import cache_folder, write_text
from catdog_edge.training.data.sources import Source
from catdog_edge.training.runs import lock

FORMAT = 3
"""Raised when pictures are read, resized or stored in another way."""

UNUSED_DAYS = 14
"""Pixels that no run has opened for so long are removed when new ones are written."""


@contextlib.contextmanager
def turn_in(folder: Path) -> Iterator[bool]:
    """Wait until no other process works in a folder of the cache; see `locks.turn`.

    Raises:
        DataError: The folder cannot be written.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            locked = held.enter_context(lock.turn(folder / "lock"))
        except OSError as error:
            raise _no_room(folder, error) from error
        yield locked


class Cache:
    """What is known of one source."""

    def __init__(self, source: Source) -> None:
        name = re.sub(r"[^\w.-]", "_", Path(source.name).name)[:40]
        digest = hashlib.sha256(os.fsencode(source.name)).hexdigest()[:12]
        self.folder = cache_folder() / f"{name}-{digest}"
        self._source = source
        self._decoder = f"{FORMAT} opencv {cv2.__version__}"
        self._index = self._load()
        self._changed = False

    def knows_all(self, files: Iterable[str]) -> bool:
        """Whether nothing has to be decoded for the digests of these files."""
        return all(self.known(file) is not None for file in files)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other process decodes this source; then know what it has learnt.

        A process that is killed gives its turn back. Where the file system or the operating
        system has no such lock, there is no waiting, and both processes do the work.

        Raises:
            DataError: The cache folder cannot be written.
        """
        with turn_in(self.folder) as locked:
            if locked:
                # Nobody else writes now, so these are what a killed process has left.
                with contextlib.suppress(OSError):
                    for path in self.folder.glob(".pixels-*.tmp"):
                        path.unlink()
            self._index = self._load()
            yield

    # ---- digests -----------------------------------------------------------------------

    def _load(self) -> dict[str, list[Any]]:
        try:
            document = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
            files: dict[str, list[Any]] = document["files"]
            # What one build of OpenCV could not read, another can.
            return files if document["decoder"] == self._decoder else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # none yet, or damaged: it is made anew

    def known(self, file: str) -> tuple[str, str] | None:
        """Digest and reason (one of them empty), or `None` where the file is new or changed."""
        entry = self._source.entries[file]
        line = self._index.get(file)
        if not isinstance(line, list) or line[:2] != [entry.size, entry.stamp] or len(line) != 4:
            return None
        return line[2], line[3]

    def learn(self, file: str, digest: str, reason: str) -> None:
        """Take down the digest of a file's pixels, or why it cannot be read."""
        entry = self._source.entries[file]
        self._index[file] = [entry.size, entry.stamp, digest, reason]
        self._changed = True

    def save(self) -> None:
        """Write the index, where something was learnt.

        Raises:
            DataError: The cache folder cannot be written.
        """
        if not self._changed:
            return
        # ensure_ascii keeps names that are no valid UTF-8 (lone surrogates) in one piece.
        text = json.dumps({"decoder": self._decoder, "files": self._index}, ensure_ascii=True)
        try:
            write_text(self.folder / "index.json", text)
        except CatdogError as error:
            raise _no_room(self.folder, error.__cause__ or error) from error
        self._changed = False

    # ---- pixels ------------------------------------------------------------------------

    def pixel_file(self, files: Sequence[str], steps: Sequence[ResizeStep]) -> Path:
        """Where the resized pictures of these files, in this order, are or would be."""
        entries: Mapping[str, Any] = self._source.entries
        content = [self._decoder, repr(tuple(steps))]
        content += [f"{file}\0{entries[file].size}\0{entries[file].stamp}" for file in files]
        key = hashlib.sha256("\n".join(content).encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / f"pixels-{key[:24]}.u8"

    def open_pixels(
        self, files: Sequence[str], steps: Sequence[ResizeStep]
    ) -> npt.NDArray[np.uint8] | None:
        """The resized pictures of these files, read-only and memory-mapped, where they are kept.

        Returns:
            `uint8 [n,S,S,3]` BGR, or `None`.
        """
        path = self.pixel_file(files, steps)
        shape = (len(files), steps[-1].height, steps[-1].width, 3)
        try:
            if path.stat().st_size != int(np.prod(shape, dtype=np.int64)):
                return None
            with contextlib.suppress(OSError):
                os.utime(path)  # the clock of UNUSED_DAYS; a read-only cache does without
            return np.memmap(path, np.uint8, "r", shape=shape)
        except OSError:
            return None

    def check_room(self, count: int, steps: Sequence[ResizeStep]) -> None:
        """Refuse before hours of work what cannot fit on the disk.

        Raises:
            DataError: There is less room than `count` resized pictures need.
        """
        need = count * steps[-1].height * steps[-1].width * 3
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise _no_room(self.folder, error) from error
        if free < need:
            raise DataError(
                f"the cache {self.folder} needs {need / 1e9:,.1f} GB, the disk has "
                f"{free / 1e9:,.1f} GB; make room, set CATDOG_CACHE to another folder, "
                "or take fewer pictures with --limit"
            )

    def forget_unused(self) -> None:
        """Remove pixels of this source that no run has opened for `UNUSED_DAYS`."""
        oldest = time.time() - UNUSED_DAYS * 86400
        for path in (*self.folder.glob("pixels-*.u8"), *self.folder.glob(".pixels-*.tmp")):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


class PixelWriter:
    """Resized pictures, one after the other, into a file that is whole or not there."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        try:
            cache.folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".pixels-", suffix=".tmp", dir=cache.folder)
        except OSError as error:
            raise _no_room(cache.folder, error) from error
        self._path = Path(name)
        self._stream = os.fdopen(descriptor, "wb", buffering=2**20)

    def add(self, picture: npt.NDArray[np.uint8]) -> None:
        """Append a picture, `uint8 [S,S,3]`.

        A write call, not a memory map: on a full disk a write is an error that can be
        reported, a store into a map kills the process.

        Raises:
            DataError: The disk is full.
        """
        try:
            self._stream.write(picture.tobytes())
        except OSError as error:
            raise _no_room(self._cache.folder, error) from error

    def keep(self, files: Sequence[str], steps: Sequence[ResizeStep]) -> None:
        """Give the file its name: the pictures of these files, in this order.

        Raises:
            DataError: The disk is full.
        """
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._path.chmod(0o644)
            self._path.replace(self._cache.pixel_file(files, steps))
        except OSError as error:
            raise _no_room(self._cache.folder, error) from error

    def discard(self) -> None:
        """Remove what `keep` has not kept; harmless afterwards."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._path.unlink(missing_ok=True)


def _no_room(folder: Path, error: BaseException) -> DataError:
    reason = getattr(error, "strerror", None) or str(error)
    return DataError(
        f"cannot write the cache {folder}: {reason}; make room, or set CATDOG_CACHE to "
        "another folder"
    )
