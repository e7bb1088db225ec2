"""Where events go: a file of JSON lines, a folder of snapshots. Both survive a full disk.

Knows events by what they tell of themselves, nothing of cameras. An output that cannot be
written says so once, counts what is lost, says how much was lost when it can write again,
and never stops the stream.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import cv2

from catdog_edge.errors import CatdogError
from catdog_edge.events.events import Event
from catdog_edge.system.files import cannot_write

Say = Callable[[str], object]

_SNAPSHOT = re.compile(
    r"\d{8}T\d{9}Z-[A-Za-z0-9_.-]+-[^/]+-(?:enter|exit)-\d+\.jpg",
)


class Trouble:
    """Tells of writes that fail: the first at once, the rest as a number.

    Attributes:
        what: What is written, in the plural.
        lost: How many of them could not be written, in all.
    """

    def __init__(self, what: str, say: Say) -> None:
        self.lost = 0
        self.what = what
        self._say = say
        self._run = 0

    def failed(self, path: Path, error: OSError) -> None:
        """One could not be written."""
        self.lost += 1
        self._run += 1
        if self._run == 1:
            reason = error.strerror or str(error)
            self._say(f"cannot write {path}: {reason}; going on without, {self.what} are lost")

    def done(self) -> None:
        """One was written."""
        if self._run:
            self._say(f"writing again; {self._run} {self.what} were lost meanwhile")
            self._run = 0


class JsonLines:
    """A file that grows by one line per event, each flushed to the system at once.

    At `rotate` bytes the file becomes `NAME.1`, that which was `NAME.1` becomes `NAME.2`, and
    so on up to `NAME.keep`; the oldest goes. A line that was only partly written (a full
    disk, a kill) is taken off again before the next one, so that every line is whole.

    Args:
        path: The file; appended to where it exists.
        rotate: Bytes beyond which a new file is begun; 0: never.
        keep: How many old files are kept.
        say: Told of trouble, in one line.

    Raises:
        CatdogError: The file cannot be opened in the first place.
    """

    def __init__(self, path: Path, rotate: int, keep: int, say: Say) -> None:
        self.trouble = Trouble("events", say)
        self._path = path
        self._rotate = rotate
        self._keep = keep
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise cannot_write(path, error) from error

    def write(self, line: str) -> bool:
        """Append a line; whether it is in the file."""
        data = line.encode() + b"\n"
        try:
            if self._file < 0:
                self._file = self._open()
            if self._rotate and self._end and self._end + len(data) > self._rotate:
                self._turn()
            self._append(data)
        except OSError as error:
            self.trouble.failed(self._path, error)
            return False
        self.trouble.done()
        return True

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> int:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._end = os.fstat(file).st_size
        self._regular = self._path.is_file()
        if self._regular and self._end and os.pread(file, 1, self._end - 1) != b"\n":
            # A run before this one was killed in the middle of a line.
            with contextlib.suppress(OSError):
                tail = os.pread(file, 1 << 16, max(0, self._end - (1 << 16)))
                self._end -= len(tail) - (tail.rfind(b"\n") + 1)
                os.ftruncate(file, self._end)
        return file

    def _append(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            if written and self._regular:
                os.ftruncate(self._file, self._end)
            raise
        self._end += len(data)

    def _turn(self) -> None:
        """Begin a new file."""
        self.close()
        if not self._keep:
            self._path.unlink()
        for number in range(self._keep, 0, -1):
            older = self._numbered(number)
            newer = self._numbered(number - 1) if number > 1 else self._path
            if newer.exists():
                newer.replace(older)
        self._file = self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class Snapshots:
    """A folder of JPEGs, one per event, that never grows beyond a size.

    The oldest go first, and only files whose names are of our making are ever counted or
    deleted: `20261122T150405123Z-door-cat-enter-1.jpg`.

    Args:
        folder: Made where it is missing.
        keep: Bytes that the snapshots may take together.
        say: Told of trouble, in one line.

    Raises:
        CatdogError: The folder cannot be made or written to.
    """

    def __init__(self, folder: Path, keep: int, say: Say) -> None:
        self.trouble = Trouble("snapshots", say)
        self._folder = folder
        self._keep = keep
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._sizes = {
                entry.name: entry.stat().st_size
                for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
                if _SNAPSHOT.fullmatch(entry.name)
            }
        except OSError as error:
            raise cannot_write(folder, error) from error
        if not os.access(folder, os.W_OK):
            raise CatdogError(f"cannot write into {folder}: permission denied; choose another")

    def write(self, event: Event) -> str | None:
        """Write an event's picture; its path, or none where there is no picture or no room."""
        if event.picture is None:
            return None
        stamp = re.sub(r"[-:.]", "", event.time)
        label = re.sub(r"[^A-Za-z0-9_.-]+", "_", event.label)
        name = f"{stamp}-{event.source}-{label}-{event.event}-{event.visit}.jpg"
        good, data = cv2.imencode(".jpg", event.picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        path = self._folder / name
        partial = self._folder / f".{name}.part"
        try:
            if not good:
                raise OSError(errno.EINVAL, "OpenCV cannot encode it")
            if len(data) > self._keep:
                raise OSError(errno.EFBIG, f"its {len(data):,} bytes are more than --keep allows")
            self._make_room(len(data))
            partial.write_bytes(data.tobytes())
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            self.trouble.failed(path, error)
            return None
        self._sizes[name] = len(data)
        self.trouble.done()
        return str(path)

    def _make_room(self, size: int) -> None:
        while self._sizes and sum(self._sizes.values()) + size > self._keep:
            oldest = min(self._sizes)
            (self._folder / oldest).unlink(missing_ok=True)
            del self._sizes[oldest]
