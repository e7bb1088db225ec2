"""Read recordings frame by frame, in order: videos, image files, a file of JPEGs."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO

import cv2

from catdog_edge.camera.live_source import Counts
from catdog_edge.camera.mjpeg import split
from catdog_edge.camera.parse_source import FrameSource, animation_format
from catdog_edge.errors import CameraError, PictureError
from catdog_edge.images.preprocess import Image, to_bgr
from catdog_edge.images.read import decode_picture, read_picture

_Frames = Generator[tuple[Image, float], None, None]

LONGEST_GAP = 86_400.0
"""Seconds between two frames of a video; a longer step of its clock is an error in it."""

_MATROSKA = frozenset(map(bytes.fromhex, ("1a45dfa3", "18538067")))
_MATROSKA_PARTS = frozenset(
    [bytes.fromhex(name) for name in ("114d9b74", "1549a966", "1654ae6b", "1c53bb6b", "1254c367")]
    + [bytes.fromhex(name) for name in ("1941a469", "1043a770", "1f43b675", "5854", "ec", "bf")]
    + [b"\xe7", b"\xa3", b"\xa0", b"\xab", b"\xa7", b"\xaf"]
)
"""Names of what a Matroska file, a segment and a cluster consist of; RFC 9559, 5.1."""


class Recording:
    """A source that is read frame by frame, as fast as the consumer asks.

    `note` describes problems of the recording.
    """

    def __init__(self, source: FrameSource, *, fps: float, keep_damaged: bool = False) -> None:
        self.counts = Counts()
        self.note = ""
        self._source, self._fps, self._keep_damaged = source, fps, keep_damaged
        self._frames: _Frames | None = None

    def next(self) -> tuple[Image, float] | None:
        """Return the next frame and its position in seconds; `None` at the end."""
        if self._frames is None:
            is_video = self._source.kind == "video"
            self._frames = self._video(str(self._source.target)) if is_video else self._pictures()
        found = next(self._frames, None)
        if found is not None:
            self.counts.delivered += 1
            self.counts.connects = 1
        self.counts.received = self.counts.delivered + self.counts.damaged
        return found

    def close(self) -> None:
        """Close the file."""
        if self._frames is not None:
            self._frames.close()

    def _video(self, path: str) -> _Frames:
        # FFmpeg alone: another backend would take 'clip-01.txt' for a numbered row of pictures.
        # 'file:' keeps it from seeing a protocol in a name with a colon.
        capture = cv2.VideoCapture(f"file:{path}", cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                reason = "it may be cut off, damaged or no video"
                raise CameraError(f"{path}: cannot be read as a video; {reason}")
            fps = capture.get(cv2.CAP_PROP_FPS)
            interval = 1 / fps if math.isfinite(fps) and 0.01 < fps <= 1000 else 0.04
            failed, position, clock = 0, -interval, -interval
            while failed < 20:
                good, image = capture.read()
                if not good:
                    failed += 1
                    continue
                self.counts.damaged += failed
                failed = 0
                # A step of the clock is believed, a clock that was set back or is lost is not.
                step, clock = -clock, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                step += clock
                position += step if 0 < step < LONGEST_GAP else interval
                yield to_bgr(image), position
            if not self.counts.delivered:
                raise CameraError(f"{path}: there is no frame in it that can be decoded")
            self.note = self._missing(Path(path), int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        finally:
            capture.release()

    def _missing(self, path: Path, frames: int) -> str:
        """Tell what a video lacks after its last frame; empty if it is whole."""
        read = self.counts.delivered
        try:
            # FFmpeg 8 ends after the first frame of a GIF without delays. Of a GIF the number of
            # frames is exact, of a video it may be an estimate.
            if read < frames and animation_format(path) == "GIF":
                what = f"{read} of its {frames} frames were read"
                return f"{path}: {what}, it lacks delays or is damaged; save it as a video"
            return f"{path}: ends after {read} frames, it is cut off" if is_cut_off(path) else ""
        except OSError as error:  # removed while it was read
            why = error.strerror or error
            return f"{path}: whether it is whole cannot be checked after {read} frames: {why}"

    def _pictures(self) -> _Frames:
        for number, (name, picture) in enumerate(self._encoded()):
            try:
                if not picture:
                    raise PictureError("it is cut off")
                if isinstance(picture, bytes):
                    image = decode_picture(picture, keep_damaged=self._keep_damaged)
                else:
                    _check_still(picture)
                    image = read_picture(picture, keep_damaged=self._keep_damaged)
            except PictureError as error:
                self.note = self.counts.count_damaged(name, error)
                continue
            yield image, number / self._fps
        if not self.counts.delivered:
            more = f"that can be decoded; {self.note}" if self.note else "that can be decoded"
            raise CameraError(f"{self._source.shown}: there is no image in it {more}")

    def _encoded(self) -> Iterator[tuple[str, Path | bytes]]:
        """Yield name and content of each image."""
        if self._source.kind == "pictures":
            yield from ((str(path), path) for path in self._source.pictures)
            return
        for number, data in enumerate(split(sys.stdin.fileno())):
            yield f"image {number} on standard input", data


def _check_still(path: Path) -> None:
    """Reject an animation among image files; of a TIFF the first page is read."""
    try:
        animation = animation_format(path)
    except OSError:
        return  # `read_picture` gives the reason
    if animation and "TIFF" not in animation and (animation != "GIF" or cv2.imcount(str(path)) > 1):
        what = animation if animation.startswith("an ") else f"a {animation}"
        raise PictureError(f"it is {what} of several frames; name it as its own source")


def is_cut_off(path: Path) -> bool:
    """Check whether a video file is truncated (AVI, MP4, MOV, Matroska, WebM).

    Compares sizes stated by the container; frame counts and durations are often estimates.
    Returns `False` for other formats, and for a file that states no size.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(12)
        stream.seek(0)
        if head[:4] == b"RIFF":
            ends = _riff_ends(stream)
        elif head[:4] == b"\x1aE\xdf\xa3":
            ends = _matroska_ends(stream)
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            ends = _mp4_ends(stream)
        else:
            return False
        return any(end > size for end in ends)


def _riff_ends(stream: BinaryIO) -> Iterator[int]:
    """Yield the end of each RIFF chunk; https://learn.microsoft.com/windows/win32/directshow/avi-riff-file-reference."""
    while (head := stream.read(8))[:4] == b"RIFF" and len(head) == 8:
        yield stream.seek(int.from_bytes(head[4:], "little"), os.SEEK_CUR)


def _mp4_ends(stream: BinaryIO) -> Iterator[int]:
    """Yield the end of each box; ISO/IEC 14496-12, 4.2."""
    while head := stream.read(8):
        size, read = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, read = int.from_bytes(stream.read(8), "big"), 16
        # 0: up to the end of the file. What is no name is no box, but something appended.
        if size < read or not re.fullmatch(rb"[\w .\xa9-]{4}", head[4:8]):
            return
        yield stream.seek(size - read, os.SEEK_CUR)


def _matroska_ends(stream: BinaryIO) -> Iterator[int]:
    """Yield the end of each element; RFC 8794, 4 to 6. For unknown sizes, of its children.

    An element with another name is appended data.
    """
    parts: frozenset[bytes] = frozenset()
    while lead := stream.read(1):
        name = lead + stream.read(8 - lead[0].bit_length())
        first = stream.read(1)
        if not first or not first[0] or not name[0]:
            return
        length = 9 - first[0].bit_length()
        if name not in _MATROSKA and name not in parts:
            return
        value = int.from_bytes(first + stream.read(length - 1), "big") & (1 << 7 * length) - 1
        if value != (1 << 7 * length) - 1:
            yield stream.seek(value, os.SEEK_CUR)
        elif name in (b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"):  # Segment, Cluster
            parts = _MATROSKA_PARTS
        else:
            return
