"""The process that reads one live camera: `python -m catdog_edge.camera.capture_process FD`.

A separate process can be killed when an OpenCV call never returns, isolates crashes of a decoder,
has its own options in the environment, and masks credentials in what FFmpeg prints.

Speaks JSON lines over the socket FD. It receives `open`, `free` (a slot was read), `probe` (does
the server respond?) and `close`; it sends `opened`, `interval`, `buffer` (with the file
descriptor of a memory of `SLOTS` frames), `frame`, `skipped`, `misfit`, `failed` and `probe`. How
long to wait and when to try again is decided by `catdog_edge.camera.supervisor`.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import socket
import sys
import tempfile
import threading
import time
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from catdog_edge.camera.credentials import Mask, split_userinfo
from catdog_edge.camera.ffmpeg_stream import Arrival, FfmpegStream, NativeLog
from catdog_edge.camera.freshness import STALE, Freshness
from catdog_edge.camera.http_stream import HttpStream, NotJpegError, StreamError
from catdog_edge.camera.live_source import LONGEST_TIMEOUT, SLOTS, MessageSplitter, encode_message
from catdog_edge.errors import PictureError
from catdog_edge.images.preprocess import Image, crop, to_bgr
from catdog_edge.images.read import decode_picture
from catdog_edge.system.signals import ignore_interrupts

_REPORT_EVERY = 0.25  # seconds between two reports that no frame could be decoded


class _FrameBuffer:
    """Shared memory with `SLOTS` frames of one shape."""

    def __init__(self, number: int, shape: tuple[int, ...]) -> None:
        self.number = number
        self.shape = shape
        size = SLOTS * int(np.prod(shape))
        if hasattr(os, "memfd_create"):
            self.file = os.memfd_create("catdog-edge")
        else:
            with tempfile.TemporaryFile() as stream:
                self.file = os.dup(stream.fileno())
        os.ftruncate(self.file, size)
        memory = mmap.mmap(self.file, size)
        self.frames: Image = np.frombuffer(memory, np.uint8).reshape(SLOTS, *shape)
        self.free = list(range(SLOTS))


class _JpegStream(HttpStream):
    """An address that sends JPEGs over HTTP; see `FfmpegStream`."""

    damaged = False

    def __init__(self, options: dict[str, Any]) -> None:
        self._keep_damaged = options["keep_damaged"]
        self._freshness = Freshness(timed=False)
        timeout = min(options["open_timeout"], LONGEST_TIMEOUT)
        super().__init__(options["source"], timeout, options["fps"])

    def arrivals(self) -> list[Arrival]:
        pictures = self.read()
        now, wall = time.monotonic(), time.time()
        late = self._freshness.lag(now, now) if pictures else 0.0
        lag = 0.0 if self.interval else late  # a snapshot is made when it is asked for
        return [Arrival(now, wall, lag, bool(p), partial(self._unpack, p)) for p in pictures]

    def _unpack(self, picture: bytes, _into: Image | None) -> Any:
        try:
            return decode_picture(picture, keep_damaged=self._keep_damaged)
        except PictureError:
            return None


class CaptureWorker:
    """The loop of this process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._messages = MessageSplitter()
        self._log = NativeLog()
        self._buffer: _FrameBuffer | None = None
        self._counts = [0, 0, 0, 0]  # received, replaced, stale and damaged since the last report

    def run(self) -> None:
        """Follow commands until told to close."""
        while True:
            for name, value in self._commands(wait=True):
                if name == "open":
                    self._run_stream(value)
                elif name == "probe":
                    self._send("probe", server_responds(value))
                else:
                    self._handle(name, value)

    def _commands(self, *, wait: bool) -> list[tuple[str, Any]]:
        """Return received commands; with `wait`, at least one. Raises `EOFError` at the end."""
        self._connection.setblocking(wait)
        while True:
            try:
                data = self._connection.recv(1 << 16)
            except BlockingIOError:
                return []
            if not data:
                raise EOFError
            if messages := self._messages.feed(data):
                return messages

    def _handle(self, name: str, value: Any) -> None:
        """Follow a command that may come at any time."""
        if name == "close":
            raise EOFError
        if name == "free" and self._buffer is not None and value[0] == self._buffer.number:
            self._buffer.free.append(value[1])

    def _send(self, name: str, value: object, file: int | None = None) -> None:
        self._connection.setblocking(True)
        data = encode_message(name, value)
        if file is not None:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))
            data = data[self._connection.sendmsg([data], [rights]) :]
        self._connection.sendall(data)

    def _take_counts(self) -> list[int]:
        counts, self._counts = self._counts, [0, 0, 0, 0]
        return counts

    def _run_stream(self, options: dict[str, Any]) -> None:
        """Open a source and publish its frames until it ends or is told to close."""
        mask = Mask(str(options["source"]))
        self._log.lines()
        try:
            stream = self._open(options)
            self._send("opened", None)
            with contextlib.closing(stream):
                self._publish_frames(stream, options)
        except StreamError as failure:
            self._send("failed", [mask(str(failure)), mask(failure.detail)])

    def _open(self, options: dict[str, Any]) -> FfmpegStream | _JpegStream:
        found = ""
        if str(options["source"]).lower().startswith(("http://", "https://")):
            try:
                return _JpegStream(options)
            except NotJpegError as error:
                found = str(error)
        try:
            return FfmpegStream(options, self._log)
        except StreamError as failure:
            raise StreamError(found or str(failure), failure.detail) from None

    def _publish_frames(self, stream: FfmpegStream | _JpegStream, options: dict[str, Any]) -> None:
        interval, reported = 0.0, 0.0
        while True:
            for name, value in self._commands(wait=False):
                self._handle(name, value)
            arrivals = stream.arrivals()
            if stream.interval != interval:
                interval = stream.interval
                self._send("interval", interval)
            late = published = False
            counts = self._counts
            damaged_before = counts[3]
            for arrival in arrivals:
                counts[0] += 1
                if arrival.lag > STALE:
                    late = True
                    counts[2] += 1
                elif not (arrival.intact or options["keep_damaged"]):
                    counts[3] += 1
                elif arrival is not arrivals[-1]:
                    counts[1] += 1
                else:
                    published = self._publish(arrival, options["roi"])
            now = time.monotonic()
            if not published and (arrivals or now - reported > _REPORT_EVERY):
                reported = now
                damaged = stream.damaged or counts[3] > damaged_before
                reason = "the images arrive damaged" if damaged else ""
                reason = f"the frames come more than {STALE:g} s late" if late else reason
                self._send("skipped", [reason, *self._take_counts()])

    def _publish(self, arrival: Arrival, roi: Any) -> bool:
        """Write a frame to the shared memory; return whether that was possible."""
        buffer = self._buffer
        if buffer is not None and not buffer.free:
            self._counts[2] += 1  # nobody reads: the reader's process is stopped or starved
            return False
        slot = buffer.frames[buffer.free[-1]] if buffer is not None and roi is None else None
        image = arrival.unpack(slot)
        if image is None:
            self._counts[3] += 1
            return False
        image = to_bgr(image)
        size = image.shape[1], image.shape[0]
        if roi is not None:
            image = crop(image, roi)
            if [*image.shape[1::-1]] != roi[2:]:
                self._send("misfit", size)
                raise EOFError
        if buffer is None or buffer.shape != image.shape:
            number = 0 if buffer is None else buffer.number + 1
            self._buffer = buffer = _FrameBuffer(number, image.shape)
            self._send("buffer", [number, *image.shape], buffer.file)
            os.close(buffer.file)  # the mapping stays
            slot = None
        place = buffer.free.pop()
        if slot is None or not np.shares_memory(slot, image):
            np.copyto(buffer.frames[place], image)
        times = [arrival.monotonic, arrival.wall, arrival.monotonic - arrival.lag]
        self._send("frame", [buffer.number, place, *times, *self._take_counts()])
        return True


def server_responds(address: str) -> bool:
    """Check whether a server responds; without a login, and without a stream.

    The kernel accepts connections also for a process that is stopped; hence the requests.
    """
    scheme, _user, rest = split_userinfo(address)
    ports = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "http": 80, "https": 443}
    options = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    requests = {"rtsp": options, "http": b"HEAD / HTTP/1.0\r\n\r\n"}
    try:
        parts = urlsplit(scheme + rest)
        request = requests.get(parts.scheme, b"")
        place = (parts.hostname or "", parts.port or ports.get(parts.scheme, 80))
        with socket.create_connection(place, timeout=1) as connection:
            if not request:
                return True
            connection.sendall(request)
            return bool(connection.recv(1))
    except (OSError, ValueError):
        return False


def _exit_with_parent() -> None:
    """End this process when its parent has ended, even while FFmpeg does not return."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Run until the other side closes."""
    ignore_interrupts()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    connection = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        CaptureWorker(connection).run()
    os._exit(0)  # libraries are slow to clean up


if __name__ == "__main__":
    main()
