"""Streams of consecutive JPEG images, as `libcamera-vid --codec mjpeg` writes them.

A pipe is live: only the newest image is kept, so that the writer never waits for the reader.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator

from catdog_edge.camera.freshness import Freshness
from catdog_edge.camera.live_source import LiveFrame, LiveSource, OnState, State
from catdog_edge.errors import CameraError, PictureError
from catdog_edge.images.preprocess import Image
from catdog_edge.images.read import decode_picture

LARGEST = 64 * 2**20
"""Bytes without the end of a picture after which the stream is taken not to be JPEGs."""

READ_SIZE = 1 << 18  # bytes to read at once
_POLL = 0.1  # seconds between two checks whether to stop, without data
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}  # TEM and the restart markers


class JpegSplitter:
    """Splits a stream of bytes into JPEG images; other bytes are dropped.

    It parses the segments, so that thumbnails inside an image are skipped. Names, types,
    lengths and boundaries of a multipart stream are ignored: cameras send wrong ones.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = -1
        self._scanning = False

    def feed(self, data: bytes) -> list[bytes]:
        """Process more bytes; return the images completed by them, as empty bytes if truncated."""
        self._data += data
        pictures = []
        while (found := self._advance()) is not None:
            end, picture = found
            pictures.append(picture)
            self._restart(end)
        if len(self._data) > LARGEST:
            pictures.append(b"")
            self._restart(len(self._data))
        return pictures

    def end(self) -> list[bytes]:
        """Finish; return empty bytes for an incomplete image."""
        return [b""] if self._at > 2 else []  # more than two bytes that look like a start marker

    def _restart(self, at: int) -> None:
        del self._data[:at]
        self._at, self._scanning = -1, False

    def _advance(self) -> tuple[int, bytes] | None:
        """Parse as far as possible; return the end of an image, and its bytes."""
        data = self._data
        while True:
            if self._at < 0:
                start = data.find(b"\xff\xd8")
                if start < 0:
                    del data[:-1]
                    return None
                del data[:start]
                self._at = 2
            if self._scanning:
                mark = data.find(b"\xff", self._at)
                if mark < 0 or mark + 1 >= len(data):
                    self._at = len(data) if mark < 0 else mark
                    return None
                if data[mark + 1] == 0 or data[mark + 1] in _WITHOUT_LENGTH:
                    self._at = mark + 2
                    continue
                self._at = mark
            if self._at + 4 > len(data) and data[self._at : self._at + 2] != b"\xff\xd9":
                return None
            if data[self._at] != 0xFF:
                if self._at > 2:
                    return 2, b""
                self._restart(2)  # not a picture after all
                continue
            marker = data[self._at + 1]
            if marker == 0xD9:
                return self._at + 2, bytes(data[: self._at + 2])
            if marker == 0xD8:  # the next picture begins
                return self._at, _without_end(data[: self._at]) if self._scanning else b""
            self._scanning = False
            if marker == 0xFF or marker in _WITHOUT_LENGTH:
                self._at += 1 if marker == 0xFF else 2
            else:
                self._at += 2 + int.from_bytes(data[self._at + 2 : self._at + 4], "big")
                self._scanning = marker == 0xDA


def _without_end(data: bytearray) -> bytes:
    """Complete an image without an end marker, which some cameras omit, if another part follows."""
    head = data.rfind(b"\n--", -512)
    return bytes(data[:head]).rstrip(b"\r") + b"\xff\xd9" if head > 0 else b""


def split(file: int) -> Iterator[bytes]:
    """Yield the pictures of a file, in order; an empty one in the place of one that is cut off."""
    splitter = JpegSplitter()
    while data := os.read(file, READ_SIZE):
        yield from splitter.feed(data)
    yield from splitter.end()


class JpegPipe(LiveSource[bytes]):
    """The newest image of a pipe. Images that are never requested are not decoded.

    Ends with the pipe; if the pipe contained no image, `error` is a `CameraError`. The caller
    closes the pipe.
    """

    def __init__(
        self, file: int, keep_damaged: bool, changed: threading.Condition, on_state: OnState
    ) -> None:
        super().__init__(changed, on_state, "catdog-edge pictures")
        self._file, self._keep_damaged = file, keep_damaged

    def _run(self) -> None:
        splitter, fresh = JpegSplitter(), Freshness(timed=False)
        heard = time.monotonic()
        while not self._closing:
            if not select.select([self._file], [], [], _POLL)[0]:
                if self.state is State.LIVE and time.monotonic() - heard >= 1.0:
                    self._set_state(State.STALLED, "no image for a second")
                continue
            heard, data = time.monotonic(), os.read(self._file, READ_SIZE)
            for picture in splitter.feed(data) if data else splitter.end():
                self._receive(picture, fresh)
            if not data:
                break
        if not (self._closing or self.counts.connects):
            more = f"; {self.note}" if self.note else ""
            raise CameraError(f"standard input: there is no image in it{more}")

    def _receive(self, data: bytes, fresh: Freshness) -> None:
        now = time.monotonic()
        with self._changed:
            index, self.counts.received = self.counts.received, self.counts.received + 1
        if not data:
            self._count_damaged(index, "it is cut off")
            return
        self.counts.connects = 1
        if fresh.lag(now, now):
            with self._changed:
                self.counts.stale += 1
        else:
            self._publish(LiveFrame(data, index, now, time.time()), now)
        self._set_state(State.LIVE)

    def _count_damaged(self, number: int, reason: object) -> None:
        with self._changed:
            self.note = self.counts.count_damaged(f"image {number} on standard input", reason)

    def _unpack(self, newest: LiveFrame[bytes]) -> Image | None:
        try:
            return decode_picture(newest.image, keep_damaged=self._keep_damaged)
        except PictureError as error:
            self._count_damaged(newest.index, error)
            return None
