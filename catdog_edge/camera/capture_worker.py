"""The program that holds one live camera: `python -m catdog_edge.camera.capture_worker FD`.

OpenCV and FFmpeg run here, in a process of their own, because there a call that never comes
back can be ended, a decoder that crashes takes nobody with it, the options that OpenCV reads
from the environment are this camera's alone, and what FFmpeg writes to its output (with
addresses in it) reaches nobody before it is masked.

Talks over the socket FD in lines of JSON. It is told `open`, `free` (a slot was read),
`knock` (does the server answer?) and `close`; it tells `opened`, `buffer` (with a file
descriptor: memory with `SLOTS` frames), `frame`, `lost` and `failed`. It decides nothing: how
long to wait and when to try again is up to `catdog_edge.camera.reader`.
"""

from __future__ import annotations

import array
import base64
import contextlib
import http.client
import json
import mmap
import os
import re
import socket
import sys
import tempfile
import threading
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

from catdog_edge.camera.credentials import Mask, is_url, openable, split_user
from catdog_edge.camera.freshness import STALE, Freshness, Wholeness
from catdog_edge.system.signals import ignore_interrupts

SLOTS = 4
"""Frames in the shared memory: one newest, one being read, one being written, one spare."""

FFMPEG_OPTIONS = (
    "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|analyzeduration;500000|probesize;500000"
)
"""RTSP over TCP, and no more reading ahead than it takes to recognise the stream."""

_QUICK = 0.002
_QUICK_FAILURES = 20
"""An ended stream fails at once, each time; damaged data fail at the pace of the stream."""

_REPORT_EVERY = 0.25
"""Seconds between two reports that nothing came of what was read."""


class _Log:
    """Everything that C libraries print in this process, as lines."""

    def __init__(self) -> None:
        self._end, write = os.pipe()
        os.set_blocking(self._end, False)
        # A flood of messages between two looks is cut off rather than waited for.
        os.set_blocking(write, False)
        for stream in (1, 2):
            os.dup2(write, stream)
        os.close(write)

    def lines(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            return os.read(self._end, 1 << 16).decode(errors="replace").splitlines()
        return []


class _Buffer:
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
        self.frames: npt.NDArray[np.uint8] = np.frombuffer(memory, np.uint8).reshape(SLOTS, *shape)
        self.free = list(range(SLOTS))


class Capture:
    """The loop of this process."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._received = b""
        self._log = _Log()
        self._buffer: _Buffer | None = None
        self._index = 0
        self._stale = 0
        self._damaged = 0

    def run(self) -> None:
        """Do as told until told to close."""
        while True:
            for name, value in self._commands(wait=True):
                if name == "open":
                    self._stream(value)
                elif name == "knock":
                    self._tell("knock", _answers(value))
                else:
                    self._heed(name, value)

    def _commands(self, *, wait: bool) -> list[tuple[str, Any]]:
        """Commands that have come; with `wait`, at least one. Raises `EOFError` at the end."""
        self._line.setblocking(wait)
        while True:
            try:
                data = self._line.recv(1 << 16)
            except BlockingIOError:
                return []
            if not data:
                raise EOFError
            *lines, self._received = (self._received + data).split(b"\n")
            if lines:
                return [item for line in lines for item in json.loads(line).items()]

    def _tell(self, name: str, value: object, file: int | None = None) -> None:
        self._line.setblocking(True)
        data = json.dumps({name: value}).encode() + b"\n"
        if file is None:
            self._line.sendall(data)
            return
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))
        sent = self._line.sendmsg([data], [rights])
        self._line.sendall(data[sent:])

    def _stream(self, options: dict[str, Any]) -> None:
        """Open a source and hand on its frames until it ends or is told to close."""
        mask = Mask(str(options["source"]))
        self._log.lines()
        start = time.monotonic()
        capture, complaint = _open(options)
        if capture is None:
            took = time.monotonic() - start
            reason = _page(options["source"]) or _reason(self._log.lines()) or complaint
            if took >= options["open_timeout"]:
                reason = f"no answer within {took:.0f} s"
            self._tell("failed", mask(reason or "it cannot be opened"))
            return
        try:
            self._tell("opened", None)
            reason = self._frames(capture, options)
            self._tell("failed", mask(reason))
        finally:
            capture.release()

    def _frames(self, capture: Any, options: dict[str, Any]) -> str:
        """Hand on frames; returns why the stream is over."""
        import cv2

        fresh = Freshness(timed=bool(options["timed"]))
        whole = Wholeness()
        quick = 0
        reported = 0.0
        while True:
            for name, value in self._commands(wait=False):
                self._heed(name, value)
            start = time.monotonic()
            grabbed = capture.grab()
            now, wall = time.monotonic(), time.time()
            complaints = self._log.lines()
            if grabbed:
                quick = 0
                index, self._index = self._index, self._index + 1
                lag = fresh.lag(now, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                trusted = whole.is_whole(complaints, int(capture.get(cv2.CAP_PROP_FRAME_TYPE)))
                late = lag > STALE
                if late:
                    self._stale += 1
                elif not (trusted or options["keep_damaged"]):
                    self._damaged += 1
                else:
                    self._hand_on(capture, options["roi"], index, now, wall, now - lag)
                    continue
            else:
                late = False
                whole.is_whole(complaints, 0)
                quick = quick + 1 if now - start < _QUICK else 0
                if quick >= _QUICK_FAILURES:
                    return _reason(complaints) or "the stream ended"
                time.sleep(_QUICK)
            if grabbed or now - reported > _REPORT_EVERY:
                reported = now
                why = f"the pictures arrive damaged ({whole.complaint})" if whole.complaint else ""
                why = f"the frames come more than {STALE:g} s late" if late else why
                self._tell("lost", [self._index, self._stale, self._damaged, why])

    def _heed(self, name: str, value: Any) -> None:
        """Follow a command that may come at any time."""
        if name == "close":
            raise EOFError
        if name == "free" and self._buffer is not None and value[0] == self._buffer.number:
            self._buffer.free.append(value[1])

    def _hand_on(
        self, capture: Any, roi: list[int] | None, index: int, now: float, wall: float, made: float
    ) -> None:
        """Put the grabbed frame where the other side finds it.

        Args:
            capture: The `cv2.VideoCapture`.
            roi: The part to cut out, or `None`.
            index: Of the frame, among all that this process has decoded.
            now: Monotonic time of the grab.
            wall: Wall time of the grab.
            made: Monotonic time at which it would have come without the delay of this moment.
        """
        from catdog_edge.images.preprocess import to_bgr

        buffer = self._buffer
        if buffer is not None and not buffer.free:
            self._stale += 1  # nobody reads: the reader's process is stopped or starved
            return
        slot = buffer.frames[buffer.free[-1]] if buffer is not None and roi is None else None
        done, image = capture.retrieve(slot)
        if not done or image is None:
            self._damaged += 1
            return
        image = to_bgr(image)
        size = image.shape[1], image.shape[0]
        if roi is not None:
            x, y, width, height = roi
            image = image[y : y + height, x : x + width]
            if image.shape[:2] != (height, width):
                self._tell("misfit", size)
                raise EOFError
        if buffer is None or buffer.shape != image.shape:
            number = 0 if buffer is None else buffer.number + 1
            self._buffer = buffer = _Buffer(number, image.shape)
            self._tell("buffer", [number, *image.shape], buffer.file)
            os.close(buffer.file)  # the mapping stays
            slot = None
        place = buffer.free.pop()
        if slot is None or not np.shares_memory(slot, image):
            np.copyto(buffer.frames[place], image)
        told = [buffer.number, place, index, now, wall, made, self._stale, self._damaged]
        self._tell("frame", told)


def _open(options: dict[str, Any]) -> tuple[Any, str]:
    """The opened `cv2.VideoCapture`, or none and why."""
    try:
        import cv2

        source = options["source"]
        milliseconds = int(min(1000 * options["open_timeout"], 2**31 - 1))
        limit = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds),
        ]
        if isinstance(source, int):
            capture = cv2.VideoCapture(source, cv2.CAP_ANY)
        elif not is_url(source):
            capture = cv2.VideoCapture(source, cv2.CAP_V4L2)
        else:
            # One thread: each further one of FFmpeg's decoder threads holds back one frame.
            threads = [cv2.CAP_PROP_N_THREADS, 1] if options["one_thread"] else []
            capture = cv2.VideoCapture(openable(source), cv2.CAP_FFMPEG, [*limit, *threads])
        return (capture, "") if capture.isOpened() else (None, "")
    except Exception as error:  # whatever it is, it is the reason
        return None, f"{type(error).__name__}: {error}"


def _reason(lines: list[str]) -> str:
    """The most telling of FFmpeg's lines, without its pointers; empty where there is none."""
    told = [re.sub(r"^\[[^\]]*\] ", "", line) for line in lines if not line.startswith("[ ")]
    return re.sub(r"\?timeout=\d+", "", told[-1]).strip() if told else ""


def _answers(address: str) -> bool:
    """Whether a server answers at all; no login, no stream.

    A process that is stopped still has its connections accepted by the kernel, so RTSP and
    HTTP servers are asked for a word.
    """
    scheme, _user, rest = split_user(address)
    ports = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "http": 80, "https": 443}
    questions = {
        "rtsp": b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
        "http": b"HEAD / HTTP/1.0\r\n\r\n",
    }
    try:
        parts = urlsplit(scheme + rest)
        question = questions.get(parts.scheme, b"")
        place = (parts.hostname or "", parts.port or ports.get(parts.scheme, 80))
        with socket.create_connection(place, timeout=1) as connection:
            if not question:
                return True
            connection.sendall(question)
            return bool(connection.recv(1))
    except (OSError, ValueError):
        return False


def _page(address: object) -> str:
    """What an HTTP server answers where FFmpeg, which does not say so, finds no video.

    The login goes only to the server of the address itself, and in clear (Basic) only where
    nothing else was asked for, as FFmpeg has sent it then.
    """
    import urllib.error
    import urllib.request

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_arguments: Any) -> None:
            return None

    scheme, user, rest = split_user(str(address))
    url = scheme.lower() + rest
    if not url.startswith(("http://", "https://")):
        return ""
    try:
        try:
            page = urllib.request.urlopen(url, timeout=2)
        except urllib.error.HTTPError as error:
            asked = " ".join(error.headers.get_all("WWW-Authenticate", [])).lower()
            if not (user and error.code == 401 and error.url == url):
                raise
            with error:
                if "basic" not in asked or "digest" in asked:
                    return "HTTP error 401 without a login, and no video with ours"
            login = base64.b64encode(unquote(user).encode()).decode()
            request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})
            page = urllib.request.build_opener(Stay).open(request, timeout=2)
        with page:
            return f"it answers with {page.headers.get_content_type()}, in which there is no video"
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP error {error.code} ({error.reason})"
    except (OSError, ValueError, http.client.HTTPException):  # it does not speak HTTP
        return ""


def _watch() -> None:
    """End this process when its owner is gone, also when FFmpeg does not come back."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Run until the other side closes."""
    ignore_interrupts()
    threading.Thread(target=_watch, daemon=True).start()
    line = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        Capture(line).run()
    os._exit(0)  # no time for the farewells of libraries


if __name__ == "__main__":
    main()
