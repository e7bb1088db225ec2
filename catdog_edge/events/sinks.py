"""Event sinks: a file of JSON lines, a folder of snapshots. Both tolerate a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
from pathlib import Path

import cv2

from catdog_edge.errors import CatdogError
from catdog_edge.events.events import Event
from catdog_edge.images.draw import WHITE, draw_box
from catdog_edge.system.files import cannot_write, name_text

log = logging.getLogger(__name__)

_SNAPSHOT = re.compile(r"\d{8}T\d{9}Z-[^/]+-(?:enter|exit)-\d+\.jpg")


class WriteFailures:
    """Logs failed writes of `what`: the first of a series at once, the others as a number."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.total = 0
        self._in_row = 0

    def add(self, path: Path, error: OSError) -> None:
        """Count a failed write."""
        self.total += 1
        self._in_row += 1
        if self._in_row == 1:
            reason = error.strerror or str(error)
            log.warning("cannot write %s: %s; %s are lost", path, reason, self.what)

    def end_row(self) -> None:
        """End a series of failures after a successful write."""
        if self._in_row:
            log.warning("writing again; %d %s were lost meanwhile", self._in_row, self.what)
            self._in_row = 0


class JsonLines:
    """A file with one line per event; each line is flushed at once.

    At `rotate` bytes the file becomes `NAME.1`, what was `NAME.1` becomes `NAME.2`, and so on up
    to `NAME.keep`; the oldest is deleted. Where that is not possible, the file grows. A line that
    was only partly written (a full disk, a kill) is removed before the next one, so that every
    line is whole; one that lacks only its line break, as editors may leave it, is kept.

    Args:
        path: The file; appended to where it exists.
        rotate: Bytes at which a new file is started; 0: never.
        keep: Number of old files that are kept, 1 or more.

    Raises:
        CatdogError: The file cannot be opened.

    Examples:
        >>> lines = JsonLines(Path("events.jsonl"), rotate=10_000_000, keep=5)
        >>> lines.write(event.to_json())
    """

    def __init__(self, path: Path, rotate: int, keep: int) -> None:
        self.failures = WriteFailures("events")
        self._path, self._rotate, self._keep = path, rotate, keep
        self._rotates = True
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except OSError as error:
            raise cannot_write(path, error) from error

    def write(self, line: str) -> bool:
        """Append a line; return whether it was written."""
        data = line.encode() + b"\n"
        try:
            if self._file < 0:
                self._file = self._open()
            full = bool(self._end) and self._end + len(data) > self._rotate
            if self._rotate and self._regular and full:  # a pipe has a reader, and stays
                self._start_new_file()
            self._append(data)
        except OSError as error:
            self.failures.add(self._path, error)
            return False
        self.failures.end_row()
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
        self._lead = b""
        if self._regular and self._end and os.pread(file, 1, self._end - 1) != b"\n":
            with contextlib.suppress(OSError):
                tail = os.pread(file, 1 << 16, max(0, self._end - (1 << 16)))
                last = tail[tail.rfind(b"\n") + 1 :]
                if _is_whole(last):
                    self._lead = b"\n"
                else:  # an earlier run was killed while it wrote a line
                    self._end -= len(last)
                    os.ftruncate(file, self._end)
        return file

    def _append(self, data: bytes) -> None:
        data, written = self._lead + data, 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            if written and self._regular:
                os.ftruncate(self._file, self._end)
            raise
        self._end += len(data)
        self._lead = b""

    def _start_new_file(self) -> None:
        self.close()
        files = [self._path, *(Path(f"{self._path}.{n + 1}") for n in range(self._keep))]
        try:
            # Up to the first free name only: attempts that fail halfway would drop old files.
            free = next((n for n, file in enumerate(files) if not file.exists()), self._keep)
            for number in range(free, 0, -1):
                files[number - 1].replace(files[number])
            self._rotates = True
        except OSError as error:  # a file that is too large is better than lost events
            if self._rotates:
                reason = error.strerror or str(error)
                log.warning("cannot start a new %s: %s; the old one grows", self._path, reason)
            self._rotates = False
        self._file = self._open()


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


class Snapshots:
    """A folder of JPEGs, one per event, with a size limit.

    The oldest are deleted first. Only files with names of this form are counted or
    deleted: `20261122T150405123Z-door-cat-enter-1.jpg`.

    Args:
        folder: Created if missing.
        keep: Maximum total size of the snapshots, bytes.

    Raises:
        CatdogError: The folder cannot be created or written to.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.failures = WriteFailures("snapshots")
        self._folder, self._keep = folder, keep
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._sizes = {
                entry.name: entry.stat().st_size
                for entry in os.scandir(folder)
                if _SNAPSHOT.fullmatch(entry.name)
            }
        except OSError as error:
            raise cannot_write(folder, error) from error
        if not os.access(folder, os.W_OK):
            raise CatdogError(f"cannot write into {folder}: permission denied; choose another")

    def write(self, event: Event) -> str | None:
        """Write an event's image with its box; return its path, `None` without image or space."""
        if event.picture is None:
            return None
        stamp = re.sub(r"[-:.]", "", event.time)
        label = re.sub(r"[^A-Za-z0-9_.-]+", "_", event.label)
        name = f"{stamp}-{event.source}-{label}-{event.event}-{event.visit}.jpg"
        picture = event.picture.copy()
        if event.box is not None:
            draw_box(picture, event.box, WHITE)
        good, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        path, partial = self._folder / name, self._folder / f".{name}.part"
        try:
            if not good:
                raise OSError(errno.EINVAL, "OpenCV cannot encode it")
            if len(data) > self._keep:
                raise OSError(errno.EFBIG, f"its {len(data):,} bytes are more than --keep allows")
            while self._sizes and sum(self._sizes.values()) + len(data) > self._keep:
                oldest = min(self._sizes)
                (self._folder / oldest).unlink(missing_ok=True)
                del self._sizes[oldest]
            partial.write_bytes(data.tobytes())
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            self.failures.add(path, error)
            return None
        self._sizes[name] = len(data)
        self.failures.end_row()
        return name_text(path)
