"""Parse a source: a device, an address, a video, images, or standard input."""

from __future__ import annotations

import glob
import itertools
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import cv2

from catdog_edge.camera.credentials import host, is_url, is_valid, masked
from catdog_edge.errors import CameraError
from catdog_edge.images.read import is_picture
from catdog_edge.system.files import expand_path

SourceKind = Literal["device", "url", "pipe", "video", "pictures", "jpegs"]

_FILE_URL = re.compile(r"file://(localhost(?=/))?", re.IGNORECASE)
_TYPO = re.compile(r"://|[@=;]")  # found in an address with a typo, and hardly ever in a glob

_KINDS = (
    "a source is a device index, an address (rtsp://...), a video, a folder or glob of images, "
    "or - for JPEGs on standard input"
)


@dataclass(frozen=True)
class FrameSource:
    """A parsed source; `device`, `url` and `pipe` are live, other kinds are recordings.

    `target` is a device index or file, an address, the path of a video, or empty. `name` (the
    default name) and `shown` (for messages) contain no credentials.
    """

    kind: SourceKind
    target: int | str
    name: str
    shown: str
    pictures: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def is_live(self) -> bool:
        """Whether it is a live source."""
        return self.kind in ("device", "url", "pipe")

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files that are read; outputs must not overwrite them."""
        if self.kind == "jpegs":
            return (Path("/dev/stdin"),)
        return (Path(str(self.target)),) if self.kind == "video" else self.pictures


def split_name(text: str) -> tuple[str | None, str]:
    """Split `[NAME=]SOURCE` of the command line."""
    name, _, source = text.partition("=")
    return (name, source) if source and _is_name(name) and not _mode(text) else (None, text)


def check_source_name(name: str) -> str:
    """Return the name; `CameraError` if it is not valid in a file name and an event."""
    if not _is_name(name):
        remedy = "use letters, digits, dots, dashes and underscores"
        raise CameraError(f"a source cannot be called {masked(name)!r}; {remedy}")
    return name


def parse_source(source: str | int | os.PathLike[str]) -> FrameSource:
    """Parse a source; see `Camera` for its kinds. Files are inspected, live sources not opened.

    Raises:
        CameraError: There is no such device or file, it is a pipe, the address is not valid, or
            a folder holds no pictures.

    Examples:
        >>> parse_source("rtsp://user:secret@door:554/stream").shown
        'rtsp://***@door:554/stream'
    """
    text = os.fspath(source) if not isinstance(source, int) else str(source)
    if local := _FILE_URL.match(text):
        text = unquote(text[local.end() :])
    if not text:
        raise CameraError(f"the source is empty; {_KINDS}")
    if re.fullmatch(r"\d{1,4}", text):
        return FrameSource(
            "device", _existing_device(int(text)), f"camera{int(text)}", f"camera {text}"
        )
    if text == "-":
        if sys.stdin is None:
            raise CameraError("standard input is closed; send JPEGs to it, or name another source")
        is_file = stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
        return FrameSource("jpegs" if is_file else "pipe", "", "stdin", "standard input")
    if is_url(text):
        if not is_valid(text):
            raise CameraError(
                f"{masked(text)}: host and port cannot be told apart from the login; write / ? # "
                "and @ within a password as %2F %3F %23 and %40, and the port as a number"
            )
        return FrameSource("url", text, _as_name(host(text).lower()), masked(text))
    return _parse_path(text)


def _parse_path(text: str) -> FrameSource:
    if text.startswith("~") and not _mode(text):  # shells leave it in NAME=~/visit.mp4
        text = str(expand_path(text))
    path, mode = Path(text), _mode(text)
    if text.startswith("/dev/") and stat.S_ISCHR(mode):
        return FrameSource("device", text, path.name, text)
    if stat.S_ISDIR(mode):
        return _pictures(path.iterdir(), path.resolve().name, text)
    if not mode and glob.has_magic(text):
        names = glob.glob(text)  # noqa: PTH207 - absolute ones too
        if names or not _TYPO.search(text):
            return _pictures(map(Path, names), "pictures", text)
    if not mode:
        hint = "; the NAME of NAME=SOURCE is of letters, digits, dots, dashes and underscores"
        hint = _KINDS + hint if "=" in text else _KINDS
        raise CameraError(f"{masked(text)}: there is no such file; {hint}")
    if not stat.S_ISREG(mode):  # a read from a pipe may last for ever, and nothing could end it
        raise CameraError(
            f"{text}: is a pipe or a device, not a file; send JPEGs to standard input and name - "
            "as the source, or record a video to a file first"
        )
    if not is_picture(path):
        return FrameSource("video", text, _as_name(path.stem), text)
    try:
        animation = animation_format(path)
    except OSError as error:
        raise CameraError(f"{path}: cannot be read: {error.strerror or error}") from error
    if animation in ("GIF", "APNG"):  # FFmpeg plays them, whatever the version of OpenCV
        return FrameSource("video", text, _as_name(path.stem), text)
    if animation:
        remedy = "save it as a video, a GIF or single images"
        raise CameraError(f"{text}: {animation} is not played; {remedy}")
    return _pictures([path], path.stem, text)


def animation_format(path: Path) -> str:
    """Name the format of a picture file with several frames; empty for a still picture.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
    if head[:4] == b"GIF8":
        return "GIF"
    if head[:4] == b"\x89PNG" and b"acTL" in head.partition(b"IDAT")[0]:
        return "APNG"
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and head[20] & 2:
        return "an animated WebP"
    if head[4:8] == b"ftyp" and b"avis" in head[8:64]:
        return "an animated AVIF"
    if head[:4] in (b"II*\0", b"MM\0*") and cv2.imcount(str(path)) > 1:
        return "a TIFF of several pages"
    return ""


def _mode(text: str) -> int:
    """Return the mode of a file; 0 if it does not exist or the path is invalid."""
    try:
        return Path(text).stat().st_mode
    except (OSError, ValueError):  # an address that is no path may be too long for one
        return 0


def _existing_device(index: int) -> int:
    if sys.platform == "linux" and not Path(f"/dev/video{index}").exists():
        there = ", ".join(sorted(path.name for path in Path("/dev").glob("video*")))
        here = f"cameras here: {there or 'none is connected'}; name another source with --source"
        raise CameraError(f"there is no camera {index} (/dev/video{index}); {here}")
    return index


def _is_name(text: str) -> bool:
    return all(map(_is_of_name, text)) and text[:1] not in ("", ".", "-")


def _is_of_name(character: str) -> bool:
    # Marks are parts of letters: of Hindi and Thai, or of an umlaut in a file name of macOS.
    return character in "_.-" or unicodedata.category(character)[0] in "LMN"


def _as_name(text: str) -> str:
    groups = itertools.groupby(text, _is_of_name)
    parts = ("".join(group) if valid else "_" for valid, group in groups)
    return "".join(parts).strip("_.-") or "camera"


def _pictures(files: Iterable[Path], name: str, shown: str) -> FrameSource:
    """Return a source of image files, in natural order: `frame2.png` before `frame10.png`."""
    found = [path for path in files if is_picture(path) and path.is_file()]
    if not found:
        raise CameraError(f"{shown}: there are no images there; name a folder or glob with some")
    found.sort(key=_natural_order)
    return FrameSource("pictures", "", _as_name(name), shown, tuple(found))


def _natural_order(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"([0-9]+)", str(path))
    return [int(part) if part.isdecimal() else part for part in parts], str(path)
