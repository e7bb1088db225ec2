"""What a source is, from its text: a device, an address, a video, pictures, standard input.

Recordings (videos, pictures, a file of JPEGs) are read here, each frame, in order. Knows
nothing of threads, states or events.
"""

from __future__ import annotations

import glob
import math
import os
import re
import stat
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from catdog_edge.camera.credentials import host, is_url, masked
from catdog_edge.camera.live_source import Counts, Image
from catdog_edge.errors import CameraError, PictureError

Kind = Literal["device", "url", "pipe", "video", "pictures", "jpegs"]

_NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

_LOCAL = re.compile(r"file://(localhost(?=/))?", re.IGNORECASE)
_SLIP = re.compile(r"://|[@=;]")
"""What an address with a slip in it has, and a pattern of files hardly ever."""

_KINDS = (
    "a source is a device index, an address (rtsp://...), a video, a folder or glob of pictures, "
    "or - for JPEGs on standard input"
)


@dataclass(frozen=True)
class Source:
    """A source that was recognised.

    Attributes:
        kind: `device`, `url` and `pipe` are live, the others are recordings.
        target: Device index or device file, address, path of a video; empty otherwise.
        pictures: The files of `pictures`.
        name: What it is called where the user gave it no name; holds no credentials.
        shown: How it may be written in a message.
    """

    kind: Kind
    target: int | str
    name: str
    shown: str
    pictures: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def is_live(self) -> bool:
        """Whether it shows what is now."""
        return self.kind in ("device", "url", "pipe")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read; none of them may be written to meanwhile."""
        if self.kind == "jpegs":
            return (Path("/dev/stdin"),)
        return (Path(str(self.target)),) if self.kind == "video" else self.pictures


def split_name(text: str) -> tuple[str | None, str]:
    """Cut `[NAME=]SOURCE` as the command line takes it.

    Raises:
        CameraError: There is nothing after `NAME=`.
    """
    match = _NAMED.fullmatch(text)
    if match is None or _mode(text):
        return None, text
    return match.group(1), match.group(2)


def check_name(name: str) -> str:
    """The name, if it can stand in a file name and in an event.

    Raises:
        CameraError: It cannot.
    """
    if not _NAME.fullmatch(name):
        raise CameraError(
            f"a source cannot be called {masked(name)!r}; "
            "use letters, digits, dots, dashes and underscores"
        )
    return name


def recognise(source: str | int | os.PathLike[str]) -> Source:
    """Say what a source is. Nothing is opened, but what must exist is looked for.

    Args:
        source: A device index (`0`), a device file, an address (`rtsp://`, `rtmp://`,
            `http://`), a video file (or its `file://`), a folder or a glob of pictures, or `-`.

    Raises:
        CameraError: There is no such device or file, it is a pipe, or a folder holds no
            pictures.
    """
    text = os.fspath(source) if not isinstance(source, int) else str(source)
    if local := _LOCAL.match(text):
        text = unquote(text[local.end() :])
    if not text:
        raise CameraError(f"the source is empty; {_KINDS}")
    if re.fullmatch(r"\d{1,4}", text):
        return Source("device", _existing_device(int(text)), f"camera{int(text)}", f"camera {text}")
    if text == "-":
        if sys.stdin is None:
            raise CameraError("standard input is closed; send JPEGs to it, or name another source")
        kind: Kind = "jpegs" if _is_file(sys.stdin.fileno()) else "pipe"
        return Source(kind, "", "stdin", "standard input")
    if is_url(text):
        return Source("url", text, _plain(host(text).lower()), masked(text))
    path, mode = Path(text), _mode(text)
    if text.startswith("/dev/") and stat.S_ISCHR(mode):
        return Source("device", text, path.name, text)
    if stat.S_ISDIR(mode):
        return _pictures(sorted(path.iterdir()), path.resolve().name, text)
    if not mode and glob.has_magic(text):
        names = sorted(glob.glob(text))  # noqa: PTH207 - absolute ones too
        if names or not _SLIP.search(text):
            return _pictures([Path(name) for name in names], "pictures", text)
    if not mode:
        hint = "; the NAME of NAME=SOURCE is of letters, digits, dots, dashes and underscores"
        raise CameraError(
            f"{masked(text)}: there is no such file; {_KINDS}{hint if '=' in text else ''}"
        )
    if not stat.S_ISREG(mode):
        # A read from a pipe may last for ever, and nothing could end it.
        raise CameraError(
            f"{text}: is a pipe or a device, not a file; send JPEGs to standard input and name - "
            "as the source, or record a video to a file first"
        )
    from catdog_edge.images.read import is_picture

    if is_picture(path):
        return _pictures([path], path.stem, text)
    return Source("video", text, _plain(path.stem), text)


def _mode(text: str) -> int:
    """The mode of what a path leads to; 0 where it leads nowhere, or cannot be a path at all."""
    try:
        return Path(text).stat().st_mode
    except (OSError, ValueError):  # an address that is no path may be too long for one
        return 0


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _existing_device(index: int) -> int:
    if sys.platform == "linux" and not Path(f"/dev/video{index}").exists():
        there = sorted(path.name for path in Path("/dev").glob("video*"))
        listed = ", ".join(there) if there else "none is connected"
        raise CameraError(
            f"there is no camera {index} (/dev/video{index}); cameras here: {listed}; "
            "name another source with --source"
        )
    return index


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-") or "camera"


def _pictures(files: Sequence[Path], name: str, shown: str) -> Source:
    from catdog_edge.images.read import is_picture

    found = tuple(path for path in files if is_picture(path) and path.is_file())
    if not found:
        raise CameraError(f"{shown}: there are no pictures there; name a folder or glob with some")
    return Source("pictures", "", _plain(name), shown, found)


_Frames = Generator[tuple[Image, float], None, None]


class Recording:
    """A source that is read frame by frame, in order, as fast as the consumer asks.

    Attributes:
        counts: See `catdog_edge.camera.live_source.Counts`.
        note: What was found wrong with it, for people; empty: nothing.
    """

    def __init__(self, source: Source, *, fps: float) -> None:
        self.counts = Counts()
        self.note = ""
        self._source = source
        self._fps = fps
        self._frames: _Frames | None = None

    def next(self) -> tuple[Image, float] | None:
        """The next frame and its place in seconds from the start; none at the end.

        Raises:
            CameraError: It cannot be opened, or there is no frame in it that can be decoded.
        """
        if self._frames is None:
            self._frames = self._open()
        found = next(self._frames, None)
        if found is not None:
            self.counts.delivered += 1
            self.counts.connects = 1
        self.counts.received = self.counts.delivered + self.counts.damaged
        return found

    def close(self) -> None:
        """Let go of the file."""
        if self._frames is not None:
            self._frames.close()

    def _open(self) -> _Frames:
        if self._source.kind == "video":
            return self._video(str(self._source.target))
        if self._source.kind == "pictures":
            return self._pictures()
        return self._jpegs()

    def _video(self, path: str) -> _Frames:
        import cv2

        from catdog_edge.images.preprocess import to_bgr

        # FFmpeg alone: another backend would take 'clip-01.txt' for a numbered row of pictures.
        # 'file:' keeps it from seeing a protocol in a name with a colon.
        capture = cv2.VideoCapture(f"file:{path}", cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise CameraError(
                    f"{path}: cannot be read as a video; it may be cut off, damaged or no video"
                )
            fps = capture.get(cv2.CAP_PROP_FPS)
            interval = 1 / fps if math.isfinite(fps) and 0.01 < fps <= 1000 else 0.04
            expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            number, failed, position = 0, 0, -interval
            while failed < 20:
                good, image = capture.read()
                if not good:
                    failed += 1
                    continue
                self.counts.damaged += failed
                number, failed = number + 1, 0
                told = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                plausible = position < told < position + 100 * interval or number == 1
                position = told if plausible else position + interval
                yield to_bgr(image), position
            if not number:
                raise CameraError(f"{path}: there is no frame in it that can be decoded")
            if expected > 0 and number < 0.98 * expected - 2:
                self.note = f"{path}: ends after {number} of {expected} frames, it is cut off"
        finally:
            capture.release()

    def _pictures(self) -> _Frames:
        from catdog_edge.images.read import read_picture

        for number, path in enumerate(self._source.pictures):
            try:
                image = read_picture(path)
            except PictureError as error:
                self._broken(f"{path}: {error}")
                continue
            yield image, number / self._fps
        self._require_some()

    def _jpegs(self) -> _Frames:
        from catdog_edge.camera.mjpeg import split
        from catdog_edge.images.read import decode_picture

        for number, data in enumerate(split(sys.stdin.fileno())):
            try:
                if not data:
                    raise PictureError("it is cut off")
                image = decode_picture(data)
            except PictureError as error:
                self._broken(f"picture {number} on standard input: {error}")
                continue
            yield image, number / self._fps
        self._require_some()

    def _require_some(self) -> None:
        if not self.counts.delivered:
            more = f"; {self.note}" if self.note else ""
            raise CameraError(
                f"{self._source.shown}: there is no picture in it that can be decoded{more}"
            )

    def _broken(self, what: str) -> None:
        self.counts.damaged += 1
        more = "" if self.counts.damaged == 1 else f" (and {self.counts.damaged - 1} before it)"
        self.note = f"passed over {what}{more}"
