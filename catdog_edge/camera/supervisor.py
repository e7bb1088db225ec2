"""Reads one live camera: starts the process that holds it, watches it, tries again.

The other side is `catdog_edge.camera.capture_worker`. Nothing here waits on a camera: every wait
has an end, after which the process is killed and a new one takes its place.
"""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import dataclass
from typing import Any

from catdog_edge.camera.capture_process import CaptureProcess, SharedFrames
from catdog_edge.camera.credentials import is_url
from catdog_edge.camera.live_source import FAREWELL, Arrived, LiveSource, State, Tell, misfit
from catdog_edge.errors import CameraError, CatdogError
from catdog_edge.system.child import child_command

STALLED_AFTER = 1.0
"""Seconds without a frame after which a camera counts as stalled, or three frame intervals."""

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds before the first and before every later attempt; doubled in between."""

STEADY = 5.0
"""Seconds of frames after which earlier failures are forgotten."""

_KNOCK_EVERY = 1.0
_GRACE = 2.0


@dataclass(frozen=True)
class Link:
    """How to hold on to a camera.

    Attributes:
        source: An address, a device index, or a device file.
        roi: x, y, width, height of the part to cut out, pixels.
        timeout: Seconds without a frame after which the connection is given up.
        open_timeout: Seconds for a connection, and again for its first frame.
        retries: Failures in a row after which the camera is given up; `None`: never.
        keep_damaged: Hand on pictures that the decoder complained about.
    """

    source: str | int
    roi: tuple[int, int, int, int] | None = None
    timeout: float = 5.0
    open_timeout: float = 10.0
    retries: int | None = None
    keep_damaged: bool = False


@dataclass(frozen=True, slots=True)
class _Offer:
    frames: SharedFrames
    slot: int
    index: int
    monotonic: float
    wall: float


class Reader(LiveSource):
    """One camera that is held on to; see `LiveSource`.

    Ends by itself only when its retries are used up or a frame does not fit the ROI: then
    `error` is a `CameraError`.
    """

    def __init__(self, link: Link, bell: threading.Condition, tell: Tell, name: str) -> None:
        super().__init__(bell, tell, f"catdog-edge camera {name}")
        if os.name != "posix":
            raise CameraError(
                f"{name}: live cameras are read on Linux and macOS only; "
                "record to a file and give that as the source"
            )
        try:
            child_command("")
        except CatdogError as error:
            raise CameraError(f"{name}: {error}") from error
        self._link = link
        self._name = name
        self._process: CaptureProcess | None = None
        self._frames: SharedFrames | None = None
        self._one_thread = True
        self._interval = 0.0
        self._began = 0.0
        self._last_frame: float | None = None
        self._why = ""
        # What this process told so far, and what those before it told.
        self._told = [0, 0, 0]
        self._before = [0, 0, 0]

    # The thread.

    def _run(self) -> None:
        failures = 0
        while not self._closing:
            self._enter(State.CONNECTING)
            try:
                reason = self._session()
            except OSError as error:  # no process, no memory, no handles: it may get better
                self._kill()
                reason = f"no process can hold the camera ({error.strerror or error})"
            if self._closing:
                return
            if self._last_frame is not None and self._last_frame - self._began > STEADY:
                failures = 0
            self._last_frame = None
            failures += 1
            self.counts.failures += 1
            if self._link.retries is not None and failures > self._link.retries:
                times = "once" if failures == 1 else f"{failures} times in a row"
                raise CameraError(f"{self._name}: given up, failed {times}: {reason}")
            self._enter(State.RETRYING, reason)
            self._back_off(failures)

    def _session(self) -> str:
        """Connect and hand on frames; returns why it is over."""
        link, self._why = self._link, ""
        process = self._running()
        process.tell(
            "open",
            {
                "source": link.source,
                "roi": link.roi,
                "open_timeout": link.open_timeout,
                "timed": isinstance(link.source, str)
                and link.source.partition(":")[0].lower() in ("rtsp", "rtsps", "rtmp", "rtmps"),
                "one_thread": self._one_thread,
                "keep_damaged": link.keep_damaged,
            },
        )
        patience = time.monotonic() + link.open_timeout + _GRACE
        stale, damaged = self.counts.stale, self.counts.damaged
        while not self._closing:
            silence, limit = time.monotonic() - patience, 0.0
            if self._last_frame is not None:
                silence = time.monotonic() - self._last_frame
                usual = max(STALLED_AFTER, 3 * self._interval)
                limit = max(link.timeout, 2 * usual)
            if silence > limit:
                self._kill()
                if self.counts.stale - stale > 10 + self.counts.damaged - damaged:
                    # Perhaps it decodes slower than the camera sends: every core may help.
                    self._one_thread = False
                return self._why or f"no frame within {limit or link.open_timeout:g} s"
            if limit and silence > usual:
                self._enter(State.STALLED, self._why or f"no frame for {usual:.1f} s")
            elif limit:
                limit = usual
            messages = process.messages(limit - silence + 0.001)
            if messages is None:
                return f"the capture process ended by itself (exit code {self._kill(FAREWELL)})"
            for name, value in messages:
                if name == "opened":
                    patience = time.monotonic() + link.open_timeout
                elif name == "failed":
                    return str(value)
                else:
                    self._heed(process, name, value)
        return ""

    def _heed(self, process: CaptureProcess, name: str, value: Any) -> None:
        if name == "buffer":
            self._frames = process.memory(*value)
        elif name == "frame":
            number, slot, index, now, wall, made, stale, damaged = value
            self._count(index + 1, stale, damaged)
            self._pace(now)
            if self._frames is not None and self._frames.number == number:
                offer = _Offer(self._frames, slot, self._before[0] + index, now, wall)
                self._offer(offer, made)
            self._enter(State.LIVE)
        elif name == "lost":
            received, stale, damaged, self._why = value
            self._count(received, stale, damaged)
        elif name == "misfit":
            raise misfit(self._name, self._link.roi or (0, 0, 0, 0), *value)

    def _pace(self, now: float) -> None:
        """Learn how often frames come, to know what a silence is."""
        if self._last_frame is None:
            self.counts.connects += 1
            self._began = now
        else:
            gap = now - self._last_frame
            self._interval += 0.1 * (gap - self._interval) if self._interval else gap
        self._last_frame = now
        self._why = ""

    def _count(self, received: int, stale: int, damaged: int) -> None:
        with self._bell:
            self.counts.stale += stale - self._told[1]
            self.counts.damaged += damaged - self._told[2]
            self.counts.received = self._before[0] + received
        self._told = [received, stale, damaged]

    def _running(self) -> CaptureProcess:
        process = self._process
        if process is None:
            process = CaptureProcess(str(self._link.source))
            with self._bell:
                self._process = process
            if self._closing:
                process.tell("close")
        return process

    def _kill(self, patience: float = 0.0) -> int:
        with self._bell:
            process, self._process = self._process, None
            self._before[0] += self._told[0]
            self._told = [0, 0, 0]
            self._frames = None
        return process.end(patience) if process is not None else 0

    def _back_off(self, failures: int) -> None:
        """Wait before the next attempt, but no longer than until the server answers again."""
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 10))
        delay = min(LONGEST_DELAY, max(FIRST_DELAY, delay * random.uniform(0.75, 1.25)))
        until = time.monotonic() + delay
        address = self._link.source if is_url(str(self._link.source)) else None
        knock_at = time.monotonic()
        was_silent = False
        while not self._closing and (now := time.monotonic()) < until:
            try:
                process = self._running()
            except OSError:
                self._rest(until - now)
                return
            if address is not None and now >= knock_at:
                process.tell("knock", address)
                knock_at = float("inf")
            messages = process.messages(min(until, knock_at) - now + 0.001)
            if messages is None:
                self._kill()
                self._rest(until - now)
                return
            for name, value in messages:
                if name == "knock":
                    if value and was_silent:
                        return
                    was_silent = was_silent or not value
                    knock_at = time.monotonic() + _KNOCK_EVERY

    def _rest(self, seconds: float) -> None:
        with self._bell:
            self._bell.wait_for(lambda: self._closing, seconds)

    def _release(self) -> None:
        self._hurry()
        self._kill(FAREWELL)

    # The consumer.

    def _unpack(self, newest: _Offer) -> Arrived:
        image = newest.frames.images[newest.slot].copy()
        self._discard(newest)
        return Arrived(image, newest.index, newest.monotonic, newest.wall)

    def _discard(self, newest: _Offer) -> None:
        process = self._process
        if process is not None and newest.frames is self._frames:
            process.tell("free", [newest.frames.number, newest.slot])

    def _hurry(self) -> None:
        process = self._process
        if process is not None:
            process.tell("close")

    def _force(self) -> None:
        process = self._process
        if process is not None:
            process.kill()
