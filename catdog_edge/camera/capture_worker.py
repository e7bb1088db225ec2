"""The program that holds one live camera: `python -m catdog_edge.camera.capture_worker FD`.

OpenCV and FFmpeg run here, in a process of their own, because there a call that never returns
can be killed, a decoder that crashes takes nobody with it, the options that OpenCV reads from
the environment are this camera's alone, and what FFmpeg prints (with addresses in it) is masked
before anybody reads it.

Speaks JSON lines over the socket FD. It receives `open`, `free` (a slot was read), `probe` (does
the server respond?) and `close`; it sends `opened`, `interval`, `buffer` (with the file
descriptor of a memory of `SLOTS` frames), `frame`, `skipped`, `misfit`, `failed` and `probe`. How
long to wait and when to try again is decided by `catdog_edge.camera.supervisor`.
"""

from __future__ import annotations

import array
import contextlib
import json
import mmap
import os
import re
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import cv2
import numpy as np

from catdog_edge.camera.capture_process import LONGEST_WAIT, SLOTS
from catdog_edge.camera.credentials import Mask, ffmpeg_url, is_url, split_userinfo
from catdog_edge.camera.freshness import STALE, DamageFilter, Freshness
from catdog_edge.camera.http_stream import (
    HttpError,
    HttpStream,
    NotJpegError,
    http_reason,
)
from catdog_edge.errors import PictureError
from catdog_edge.images.preprocess import Image, to_bgr
from catdog_edge.images.read import decode_picture
from catdog_edge.system.signals import ignore_interrupts

TIMED = ("rtsp", "rtsps", "rtmp", "rtmps")
"""Schemes of streams that have timestamps of their own."""

_QUICK = 0.002
_QUICK_FAILURES = 20
"""An ended stream fails at once, each time; damaged data fail at the pace of the stream."""

_REPORT_EVERY = 0.25
"""Seconds between two reports that nothing came of what was read."""


class _StreamError(Exception):
    """The source cannot be opened, or the stream is over.

    Args:
        reason: Why, for people.
        detail: What a library has said about it, for debugging.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


class _NativeLog:
    """Everything that C libraries print in this process, as lines."""

    def __init__(self) -> None:
        self._end, write = os.pipe()
        os.set_blocking(self._end, False)
        # A flood of messages between two reads is cut off rather than waited for.
        os.set_blocking(write, False)
        for stream in (1, 2):
            os.dup2(write, stream)
        os.close(write)

    def lines(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            return os.read(self._end, 1 << 16).decode(errors="replace").splitlines()
        return []


class _FrameBuffer:
    """Memory that both processes see, with `SLOTS` frames of one shape."""

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


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A frame that has come but is not unpacked yet.

    Attributes:
        monotonic: When it came, seconds.
        wall: The same, seconds since 1970.
        lag: By how much it is late, seconds.
        intact: Whether nothing is known to be wrong with it.
        unpack: Give its picture, in the memory given where that fits; `None`: it is damaged.
    """

    monotonic: float
    wall: float
    lag: float
    intact: bool
    unpack: Callable[[Image | None], Any]


class _Stream(Protocol):
    @property
    def interval(self) -> float:
        """Seconds between two frames, where we decide on it; else 0."""

    @property
    def damaged(self) -> bool:
        """Whether the decoder waits for a frame that is whole."""

    def read(self) -> list[_Arrival]: ...

    def close(self) -> None: ...


class _FfmpegStream:
    """A device, or an address that FFmpeg reads."""

    interval = 0.0

    def __init__(self, options: dict[str, Any], log: _NativeLog) -> None:
        self._log = log
        start = time.monotonic()
        try:
            self._capture = self._open(options)
        except cv2.error as error:
            raise _StreamError("OpenCV cannot open it", str(error)) from None
        if not self._capture.isOpened():
            took = time.monotonic() - start
            reason, detail = ffmpeg_reason(log.lines())
            if took >= options["open_timeout"]:
                reason = f"no answer within {took:.0f} s"
            raise _StreamError(reason or "there is no video that can be decoded", detail)
        scheme = str(options["source"]).partition(":")[0].lower()
        self._freshness = Freshness(timed=scheme in TIMED)
        self._damage_filter = DamageFilter()
        self._one_thread = options["one_thread"]
        self._failures = 0

    def _open(self, options: dict[str, Any]) -> cv2.VideoCapture:
        source = options["source"]
        if isinstance(source, int):
            return cv2.VideoCapture(source, cv2.CAP_ANY)
        if not is_url(source):
            return cv2.VideoCapture(source, cv2.CAP_V4L2)
        milliseconds = int(min(1000 * options["open_timeout"], 2**31 - 1))
        settings = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds]
        settings += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
        if options["one_thread"]:  # each further thread of the decoder holds back one frame
            settings += [cv2.CAP_PROP_N_THREADS, 1]
        return cv2.VideoCapture(ffmpeg_url(source), cv2.CAP_FFMPEG, settings)

    def read(self) -> list[_Arrival]:
        capture = self._capture
        start, waits = time.monotonic(), _waits()
        grabbed = capture.grab()
        now, wall = time.monotonic(), time.time()
        log = self._log.lines()
        if not grabbed:
            self._damage_filter.is_intact(log, 0)
            self._failures = self._failures + 1 if now - start < _QUICK else 0
            if self._failures >= _QUICK_FAILURES:
                reason, detail = ffmpeg_reason(log)
                raise _StreamError(reason or "the stream ended", detail)
            time.sleep(_QUICK)
            return []
        self._failures = 0
        # With several decoder threads this one waits for them, not for the network.
        queued = not self._one_thread or _waits() == waits
        stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        lag = self._freshness.lag(now, stamp, queued=queued)
        intact = self._damage_filter.is_intact(log, int(capture.get(cv2.CAP_PROP_FRAME_TYPE)))
        return [_Arrival(now, wall, lag, intact, self._unpack)]

    @property
    def damaged(self) -> bool:
        return self._damage_filter.damaged

    def _unpack(self, into: Image | None) -> Any:
        done, image = self._capture.retrieve(into)
        return image if done else None

    def close(self) -> None:
        self._capture.release()


class _JpegStream:
    """An address that sends JPEGs over HTTP."""

    damaged = False

    def __init__(self, options: dict[str, Any]) -> None:
        self._keep_damaged = options["keep_damaged"]
        self._freshness = Freshness(timed=False)
        timeout = min(options["open_timeout"], LONGEST_WAIT)
        self._stream = HttpStream(options["source"], timeout, options["fps"])

    @property
    def interval(self) -> float:
        return self._stream.interval

    def read(self) -> list[_Arrival]:
        try:
            pictures = self._stream.read()
        except (HttpError, NotJpegError) as error:
            raise _StreamError(str(error)) from None
        now, wall = time.monotonic(), time.time()
        late = self._freshness.lag(now, now) if pictures else 0.0
        lag = 0.0 if self.interval else late  # a snapshot is made when it is asked for
        return [_Arrival(now, wall, lag, bool(p), partial(self._unpack, p)) for p in pictures]

    def _unpack(self, picture: bytes, _into: Image | None) -> Any:
        try:
            return decode_picture(picture, keep_damaged=self._keep_damaged)
        except PictureError:
            return None

    def close(self) -> None:
        self._stream.close()


class CaptureWorker:
    """The loop of this process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self._log = _NativeLog()
        self._buffer: _FrameBuffer | None = None
        self._counts = [0, 0, 0, 0]
        """Frames received, replaced, stale and damaged since they were sent last."""

    def run(self) -> None:
        """Follow commands until told to close."""
        while True:
            for name, value in self._commands(wait=True):
                if name == "open":
                    self._run_stream(value)
                elif name == "probe":
                    self._send("probe", responds(value))
                else:
                    self._handle(name, value)

    def _commands(self, *, wait: bool) -> list[tuple[str, Any]]:
        """Commands that have come; with `wait`, at least one. Raises `EOFError` at the end."""
        self._connection.setblocking(wait)
        while True:
            try:
                data = self._connection.recv(1 << 16)
            except BlockingIOError:
                return []
            if not data:
                raise EOFError
            *lines, self._received = (self._received + data).split(b"\n")
            if lines:
                return [item for line in lines for item in json.loads(line).items()]

    def _handle(self, name: str, value: Any) -> None:
        """Follow a command that may come at any time."""
        if name == "close":
            raise EOFError
        if name == "free" and self._buffer is not None and value[0] == self._buffer.number:
            self._buffer.free.append(value[1])

    def _send(self, name: str, value: object, file: int | None = None) -> None:
        self._connection.setblocking(True)
        data = json.dumps({name: value}).encode() + b"\n"
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
        except _StreamError as failure:
            self._send("failed", [mask(str(failure)), mask(failure.detail)])

    def _open(self, options: dict[str, Any]) -> _Stream:
        found = ""
        if str(options["source"]).lower().startswith(("http://", "https://")):
            try:
                return _JpegStream(options)
            except HttpError as error:
                raise _StreamError(str(error)) from None
            except NotJpegError as error:
                found = str(error)
        try:
            return _FfmpegStream(options, self._log)
        except _StreamError as failure:
            raise _StreamError(found or str(failure), failure.detail) from None

    def _publish_frames(self, stream: _Stream, options: dict[str, Any]) -> None:
        interval, reported = 0.0, 0.0
        while True:
            for name, value in self._commands(wait=False):
                self._handle(name, value)
            arrivals = stream.read()
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
                reason = "the pictures arrive damaged" if damaged else ""
                reason = f"the frames come more than {STALE:g} s late" if late else reason
                self._send("skipped", [reason, *self._take_counts()])

    def _publish(self, arrival: _Arrival, roi: list[int] | None) -> bool:
        """Put a frame where the other side finds it; whether that was possible."""
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
            x, y, width, height = roi
            image = image[y : y + height, x : x + width]
            if image.shape[:2] != (height, width):
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


def _waits() -> int:
    """How often this thread has waited for something so far."""
    who = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # the others hardly run
    return resource.getrusage(who).ru_nvcsw


_FFMPEG_REASONS = (
    (r"refused", "connection refused"),
    (r"resolve hostname", "no such host is known"),
    (r"timed out", "no answer"),
    (r"unreachable|No route", "the host cannot be reached"),
    (r"reset by peer|Broken pipe", "the server closed the connection"),
    (r"Protocol not found", "this OpenCV cannot read addresses of that kind"),
)


def ffmpeg_reason(lines: list[str]) -> tuple[str, str]:
    """Translate FFmpeg's log to a reason for people; the second text is its own last line."""
    told = [re.sub(r"^\[[^\]]*\] ", "", line) for line in lines if not line.startswith("[ ")]
    for line in reversed(told):
        if status := re.search(r"(?:failed:|error|returned|reply) ([45]\d\d)\b", line):
            return http_reason(int(status.group(1))), line
        for pattern, reason in _FFMPEG_REASONS:
            if re.search(pattern, line):
                return reason, line
    return "", told[-1] if told else ""


def responds(address: str) -> bool:
    """Whether a server responds at all; without a login, and without a stream.

    A process that is stopped still has its connections accepted by the kernel, so RTSP and
    HTTP servers are sent a request.
    """
    scheme, _user, rest = split_userinfo(address)
    ports = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "http": 80, "https": 443}
    requests = {
        "rtsp": b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        "http": b"HEAD / HTTP/1.0\r\n\r\n",
    }
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
    """End this process when its parent is gone, also when FFmpeg does not return."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Run until the other side closes."""
    ignore_interrupts()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    connection = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        CaptureWorker(connection).run()
    os._exit(0)  # libraries take their time to clean up


if __name__ == "__main__":
    main()
