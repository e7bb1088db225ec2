"""Read frames of a device or an address with OpenCV and FFmpeg, and collect FFmpeg's log."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2

from catdog_edge.camera.credentials import ffmpeg_url, is_url
from catdog_edge.camera.freshness import DamageFilter, Freshness
from catdog_edge.camera.http_stream import StreamError, http_reason
from catdog_edge.images.preprocess import Image

TIMED = ("rtsp", "rtsps", "rtmp", "rtmps")  # schemes of streams that have timestamps of their own

_QUICK = 0.002
_QUICK_FAILURES = 20
"""An ended stream fails at once, each time; damaged data fail at the pace of the stream."""


class NativeLog:
    """Captures the lines that C libraries print in this process."""

    def __init__(self) -> None:
        self._end, write = os.pipe()
        os.set_blocking(self._end, False)
        # A flood of messages between two reads is cut off rather than waited for.
        os.set_blocking(write, False)
        for stream in (1, 2):
            os.dup2(write, stream)
        os.close(write)

    def lines(self) -> list[str]:
        """Return the lines printed since the last call."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self._end, 1 << 16).decode(errors="replace").splitlines()
        return []


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame that was received but not decoded yet; times and `lag` are in seconds.

    `intact`: no damage was detected. `unpack` returns its image, in the given memory if it
    fits, or `None` if it is damaged.
    """

    monotonic: float
    wall: float
    lag: float
    intact: bool
    unpack: Callable[[Image | None], Any]


class FfmpegStream:
    """A device, or an address that FFmpeg reads; see the command `open` for the options."""

    interval = 0.0

    def __init__(self, options: dict[str, Any], log: NativeLog) -> None:
        self._log = log
        start = time.monotonic()
        try:
            self._capture = self._open(options)
        except cv2.error as error:
            raise StreamError("OpenCV cannot open it", str(error)) from None
        if not self._capture.isOpened():
            took = time.monotonic() - start
            reason, detail = ffmpeg_reason(log.lines())
            if took >= options["open_timeout"]:
                reason = f"no answer within {took:.0f} s"
            raise StreamError(reason or "there is no video that can be decoded", detail)
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
        if options["one_thread"]:  # each further thread of the decoder delays by one frame
            settings += [cv2.CAP_PROP_N_THREADS, 1]
        return cv2.VideoCapture(ffmpeg_url(source), cv2.CAP_FFMPEG, settings)

    def arrivals(self) -> list[Arrival]:
        """Wait for a frame; return an empty list if none could be decoded."""
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
                raise StreamError(reason or "the stream ended", detail)
            time.sleep(_QUICK)
            return []
        self._failures = 0
        # With several decoder threads this one waits for them, not for the network.
        queued = not self._one_thread or _waits() == waits
        stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        lag = self._freshness.lag(now, stamp, queued=queued)
        intact = self._damage_filter.is_intact(log, int(capture.get(cv2.CAP_PROP_FRAME_TYPE)))
        return [Arrival(now, wall, lag, intact, self._unpack)]

    @property
    def damaged(self) -> bool:
        """Check whether the decoder waits for an intact key frame."""
        return self._damage_filter.damaged

    def _unpack(self, into: Image | None) -> Any:
        done, image = self._capture.retrieve(into)
        return image if done else None

    def close(self) -> None:
        """Close the device or the connection."""
        self._capture.release()


def _waits() -> int:
    """Return the number of voluntary context switches of this thread."""
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
    """Translate FFmpeg's log to a human-readable reason; the second text is its own last line."""
    told = [re.sub(r"^\[[^\]]*\] ", "", line) for line in lines if not line.startswith("[ ")]
    for line in reversed(told):
        if status := re.search(r"(?:failed:|error|returned|reply) ([45]\d\d)\b", line):
            return http_reason(int(status.group(1))), line
        for pattern, reason in _FFMPEG_REASONS:
            if re.search(pattern, line):
                return reason, line
    return "", told[-1] if told else ""
