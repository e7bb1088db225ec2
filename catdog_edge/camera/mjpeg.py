"""A stream of JPEG pictures, one after the other, as `libcamera-vid --codec mjpeg` writes it.

Knows bytes and pipes, nothing of cameras. From a pipe it is live: the newest picture only,
so that the writer never waits for the reader. From a file it is a recording.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from catdog_edge.camera.freshness import Freshness
from catdog_edge.camera.live_source import Arrived, LiveSource, State, Tell
from catdog_edge.errors import CameraError, PictureError

LARGEST = 64 * 2**20
"""Bytes of one picture beyond which the stream is taken to be none of JPEGs."""

_CHUNK = 1 << 18
_ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a length: TEM and the restart markers."""


class Splitter:
    """Cuts a stream of bytes into whole JPEG pictures; what lies between them is dropped.

    It follows the segments, so that a thumbnail inside a picture, which has a beginning and
    an end of its own, does not count as one.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = -1
        self._scanning = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take more bytes; returns the pictures that are complete now, empty ones if cut off."""
        self._data += data
        pictures = []
        while (found := self._advance()) is not None:
            end, whole = found
            pictures.append(bytes(self._data[:end]) if whole else b"")
            self._restart(end)
        if len(self._data) > LARGEST:
            pictures.append(b"")
            self._restart(len(self._data))
        return pictures

    def end(self) -> list[bytes]:
        """No more bytes will come: an empty picture where one was under way."""
        return [b""] if self._under_way() else []

    def _under_way(self) -> bool:
        """Whether it is in a picture, not just at two bytes that look like its beginning."""
        return self._at > 2

    def _restart(self, at: int) -> None:
        del self._data[:at]
        self._at, self._scanning = -1, False

    def _advance(self) -> tuple[int, bool] | None:
        """Go on as far as the bytes reach; the end of a picture, and whether it is whole."""
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
                if data[mark + 1] == 0 or data[mark + 1] in _ALONE:
                    self._at = mark + 2
                    continue
                self._at, self._scanning = mark, False
            if self._at + 4 > len(data) and data[self._at : self._at + 2] != b"\xff\xd9":
                return None
            if data[self._at] != 0xFF:
                if self._under_way():
                    return 2, False
                self._restart(2)  # not a picture after all
                continue
            marker = data[self._at + 1]
            if marker == 0xD9:
                return self._at + 2, True
            if marker == 0xFF or marker in _ALONE:
                self._at += 1 if marker == 0xFF else 2
            elif marker == 0xD8:
                return self._at, False  # the next picture begins here
            else:
                self._at += 2 + int.from_bytes(data[self._at + 2 : self._at + 4], "big")
                self._scanning = marker == 0xDA


def split(file: int) -> Iterator[bytes]:
    """The pictures of a file, in order; an empty one in the place of one that is cut off."""
    splitter = Splitter()
    while data := os.read(file, _CHUNK):
        yield from splitter.feed(data)
    yield from splitter.end()


@dataclass(frozen=True, slots=True)
class _Picture:
    data: bytes
    index: int
    monotonic: float
    wall: float


class JpegPipe(LiveSource):
    """The newest picture of a pipe. Pictures that are never asked for are never decoded.

    Ends with the pipe; where that has brought no picture at all, `error` is a `CameraError`.
    """

    def __init__(self, file: int, bell: threading.Condition, tell: Tell, name: str) -> None:
        super().__init__(bell, tell, f"catdog-edge pictures {name}")
        self._file = file
        self._wake = self._waker = -1

    def start(self) -> None:
        """Begin to read."""
        self._wake, self._waker = os.pipe()
        super().start()

    def _run(self) -> None:
        splitter = Splitter()
        fresh = Freshness(timed=False)
        received = 0
        while not self._closing:
            ready = select.select([self._file, self._wake], [], [], 1.0)[0]
            if self._wake in ready:
                return
            if not ready:
                if self.state is State.LIVE:
                    self._enter(State.STALLED, "no picture for a second")
                continue
            data = os.read(self._file, _CHUNK)
            now, wall = time.monotonic(), time.time()
            for picture in splitter.feed(data) if data else splitter.end():
                received += 1
                with self._bell:
                    self.counts.received = received
                if not picture:
                    self._broken(received - 1, "it is cut off")
                    continue
                self.counts.connects = 1
                if fresh.lag(now, now):
                    with self._bell:
                        self.counts.stale += 1
                else:
                    self._offer(_Picture(picture, received - 1, now, wall), now)
                self._enter(State.LIVE)
            if not data:
                if not self.counts.connects:
                    more = f"; {self.note}" if self.note else ""
                    raise CameraError(f"standard input: there is no picture in it{more}")
                return

    def _broken(self, number: int, why: str) -> None:
        with self._bell:
            self.counts.damaged += 1
            more = "" if self.counts.damaged == 1 else f" (and {self.counts.damaged - 1} before it)"
            self.note = f"passed over picture {number} on standard input: {why}{more}"

    def _unpack(self, newest: _Picture) -> Arrived:
        from catdog_edge.images.read import decode_picture

        try:
            image = decode_picture(newest.data)
        except PictureError as error:
            self._broken(newest.index, str(error))
            raise
        return Arrived(image, newest.index, newest.monotonic, newest.wall)

    def take(self) -> Arrived | None:
        """The newest picture; one that cannot be decoded is counted and passed over."""
        try:
            return super().take()
        except PictureError:
            with self._bell:
                self.counts.delivered -= 1
            return None

    def _discard(self, newest: Any) -> None:
        pass

    def _hurry(self) -> None:
        os.write(self._waker, b"x")

    def _force(self) -> None:
        pass

    def _release(self) -> None:
        pass

    def close(self) -> None:
        """Let go of everything but the pipe, which is the caller's."""
        super().close()
        if self._wake >= 0:
            os.close(self._wake)
            os.close(self._waker)
            self._wake = -1
