"""Supervise one live camera: start its capture process, monitor it, retry.

The process is `catdog_edge.camera.capture_process`. Nothing here blocks on a camera: every wait
has a timeout, after which the process is killed and replaced by a new one.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import random
import socket
import subprocess
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from catdog_edge.camera.credentials import Mask, is_url
from catdog_edge.camera.live_source import (
    LONGEST_TIMEOUT,
    SLOTS,
    LiveFrame,
    LiveSource,
    MessageSplitter,
    OnState,
    State,
    encode_message,
    roi_error,
)
from catdog_edge.errors import CameraError, CatdogError
from catdog_edge.images.preprocess import Image
from catdog_edge.system.child_process import child_command, child_environment

log = logging.getLogger(__name__)

STALLED_AFTER = 1.0
"""Seconds without a frame after which a camera counts as stalled, or three frame intervals."""

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds before the first and before every later attempt; doubled in between."""

STEADY = 5.0  # seconds of frames after which the failure count is reset

_PROBE_EVERY = 1.0
_GRACE = 2.0  # seconds beyond the time to connect before the process is taken to hang

FFMPEG_OPTIONS = (
    "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|analyzeduration;500000|probesize;500000"
)
"""RTSP over TCP, and no more reading ahead than it takes to recognise the stream."""


@dataclass(frozen=True, slots=True)
class SharedFrames:
    """The shared memory with the frames: `uint8 [SLOTS,H,W,3]` BGR, read-only.

    `number` identifies it, from 0; a new shape needs a new one.
    """

    number: int
    images: Image


class CaptureProcess:
    """A running process and the connection to it; `OSError` if it cannot be started.

    Environment variables that contain the source or its password are not passed on, since other
    programs can read the environment of a process.
    """

    def __init__(self, source: str = "") -> None:
        self._connection, theirs = socket.socketpair()
        mask = Mask(source)
        environment = {
            name: value
            for name, value in child_environment().items()
            if name == "PYTHONPATH" or not mask.holds(value)
        }
        # What goes to the log is read there; another level or format would hide complaints.
        for name in ("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_DEBUG", "OPENCV_VIDEOIO_DEBUG"):
            environment.pop(name, None)
        environment.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
        environment["OPENCV_LOG_LEVEL"] = "ERROR"
        with theirs:
            self._process = subprocess.Popen(
                child_command("catdog_edge.camera.capture_process", str(theirs.fileno())),
                stdin=subprocess.PIPE,  # closing it tells the process that this one has ended
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
                process_group=0,  # this process handles Ctrl-C
            )
        self._messages = MessageSplitter()
        self._files: deque[int] = deque()
        self._sending = threading.Lock()

    def send(self, name: str, value: object = None) -> None:
        """Send a command; if the process has ended, the next read reports it."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(encode_message(name, value))

    def messages(self, seconds: float) -> list[tuple[str, Any]] | None:
        """Wait some seconds for messages; return `None` if the process has ended."""
        try:
            self._connection.settimeout(min(max(0.001, seconds), LONGEST_TIMEOUT))
            data, files, _flags, _address = socket.recv_fds(self._connection, 1 << 16, 4)
        except TimeoutError:
            return []
        except OSError:
            return None
        self._files.extend(files)
        if not data:
            return None
        return self._messages.feed(data)

    def map_frames(self, number: int, *shape: int) -> SharedFrames:
        """Map the memory of the last received file descriptor."""
        file = self._files.popleft()
        try:
            memory = mmap.mmap(file, SLOTS * int(np.prod(shape)), access=mmap.ACCESS_READ)
        finally:
            os.close(file)
        return SharedFrames(number, np.frombuffer(memory, np.uint8).reshape(SLOTS, *shape))

    def kill(self) -> None:
        """Kill the process; call `stop` afterwards."""
        self._process.kill()

    def stop(self, timeout: float = 0.0) -> int:
        """Wait for the process, kill it after the timeout; return its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self._process.kill()
        code = self._process.wait()
        with self._sending:
            self._connection.close()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        while self._files:
            os.close(self._files.popleft())
        return code


@dataclass(frozen=True)
class Connection:
    """How to connect to a camera; see `catdog_edge.camera.camera.Camera`."""

    source: str | int
    roi: tuple[int, int, int, int] | None
    timeout: float
    open_timeout: float
    retries: int | None
    keep_damaged: bool
    fps: float


class Supervisor(LiveSource[tuple[SharedFrames, int]]):
    """Runs one camera until its retries are used up or the ROI is outside a frame."""

    def __init__(
        self, connection: Connection, changed: threading.Condition, on_state: OnState, name: str
    ) -> None:
        super().__init__(changed, on_state, f"catdog-edge camera {name}")
        if os.name != "posix":
            remedy = "record to a file and give that as the source"
            raise CameraError(f"{name}: live cameras are read on Linux and macOS only; {remedy}")
        try:
            child_command("")
        except CatdogError as error:
            raise CameraError(f"{name}: {error}") from error
        self._connection, self._name = connection, name
        self._process: CaptureProcess | None = None
        self._frames: SharedFrames | None = None
        self._one_thread = True
        self._interval = self._first_frame = 0.0
        self._last_frame: float | None = None
        self._reason = ""  # why what comes is not used

    def _run(self) -> None:
        failures = 0
        while not self._closing:
            self._set_state(State.CONNECTING)
            try:
                reason = self._run_connection()
            except OSError as error:  # no process, no memory, no handles: may be temporary
                self._stop_process()
                reason = f"cannot start the capture process ({error.strerror or error})"
            if self._closing:
                return
            if self._last_frame is not None and self._last_frame - self._first_frame > STEADY:
                failures = 0
            self._last_frame = None
            failures += 1
            self.counts.failures += 1
            if self._connection.retries is not None and failures > self._connection.retries:
                times = "once" if failures == 1 else f"{failures} times in a row"
                raise CameraError(f"{self._name}: given up, failed {times}: {reason}")
            self._set_state(State.RETRYING, reason)
            self._back_off(failures)

    def _run_connection(self) -> str:
        """Connect and publish frames; return why the connection ended."""
        connection = self._connection
        self._reason = ""
        process = self._running_process()
        process.send("open", {**asdict(connection), "one_thread": self._one_thread})
        first_by = time.monotonic() + connection.open_timeout + _GRACE
        stale, damaged = self.counts.stale, self.counts.damaged
        while not self._closing:
            silence, limit = time.monotonic() - first_by, 0.0
            if self._last_frame is not None:
                silence = time.monotonic() - self._last_frame
                usual = max(STALLED_AFTER, 3 * self._interval)
                limit = max(connection.timeout, 2 * usual)
            if silence > limit:
                self._stop_process()
                if self.counts.stale - stale > 10 + self.counts.damaged - damaged:
                    # Perhaps it decodes slower than the camera sends: every core may help.
                    self._one_thread = False
                return self._reason or f"no frame within {limit or connection.open_timeout:g} s"
            if limit and silence > usual:
                self._set_state(State.STALLED, self._reason or f"no frame for {usual:.1f} s")
            elif limit:
                limit = usual
            messages = process.messages(limit - silence + 0.001)
            if messages is None:
                code = self._stop_process(self.SHUTDOWN_TIMEOUT)
                return f"the capture process ended by itself (exit code {code})"
            for name, value in messages:
                if name == "opened":
                    first_by = time.monotonic() + connection.open_timeout
                elif name == "failed":
                    reason, detail = value
                    log.debug("%s: %s: %s", self._name, reason, detail)
                    return str(reason)
                else:
                    self._handle(process, name, value)
        return ""

    def _handle(self, process: CaptureProcess, name: str, value: Any) -> None:
        if name == "buffer":
            self._frames = process.map_frames(*value)
        elif name == "frame":
            number, slot, now, wall, made, *counts = value
            index = self._count(*counts) - 1
            self._learn_interval(now)
            if self._frames is not None and self._frames.number == number:
                self._publish(LiveFrame((self._frames, slot), index, now, wall), made)
            self._set_state(State.LIVE)
        elif name == "skipped":
            self._reason, *counts = value
            self._count(*counts)
        elif name == "interval":
            self._interval = max(self._interval, value)
        elif name == "misfit":
            raise roi_error(self._name, self._connection.roi or (0, 0, 0, 0), *value)

    def _learn_interval(self, now: float) -> None:
        """Measure the frame interval, to detect stalls."""
        if self._last_frame is None:
            self.counts.connects += 1
            self._first_frame = now
        else:
            gap = now - self._last_frame
            self._interval += 0.1 * (gap - self._interval) if self._interval else gap
        self._last_frame = now
        self._reason = ""

    def _count(self, received: int, replaced: int, stale: int, damaged: int) -> int:
        """Update the counts; return the total number of received frames."""
        with self._changed:
            self.counts.replaced += replaced
            self.counts.stale += stale
            self.counts.damaged += damaged
            self.counts.received += received
            return self.counts.received

    def _running_process(self) -> CaptureProcess:
        process = self._process
        if process is None:
            process = CaptureProcess(str(self._connection.source))
            with self._changed:
                self._process = process
            if self._closing:
                process.send("close")
        return process

    def _stop_process(self, timeout: float = 0.0) -> int:
        with self._changed:
            process, self._process = self._process, None
            self._frames = None
        return process.stop(timeout) if process is not None else 0

    def _back_off(self, failures: int) -> None:
        """Wait before the next attempt, at most until the server responds again."""
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 10))
        delay = min(LONGEST_DELAY, max(FIRST_DELAY, delay * random.uniform(0.75, 1.25)))
        until = time.monotonic() + delay
        address = self._connection.source if is_url(str(self._connection.source)) else None
        probe_at = time.monotonic()
        was_silent = False
        while not self._closing and (now := time.monotonic()) < until:
            messages = None
            with contextlib.suppress(OSError):
                process = self._running_process()
                if address is not None and now >= probe_at:
                    process.send("probe", address)
                    probe_at = float("inf")
                messages = process.messages(min(until, probe_at) - now + 0.001)
            if messages is None:
                self._stop_process()
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, until - now)
                return
            for name, value in messages:
                if name == "probe":
                    if value and was_silent:
                        return
                    was_silent = was_silent or not value
                    probe_at = time.monotonic() + _PROBE_EVERY

    def _release(self) -> None:
        self._request_stop()
        self._stop_process(self.SHUTDOWN_TIMEOUT)

    def _unpack(self, newest: LiveFrame[tuple[SharedFrames, int]]) -> Image:
        frames, slot = newest.image
        image: Image = frames.images[slot].copy()
        self._discard(newest.image)
        return image

    def _discard(self, packed: tuple[SharedFrames, int]) -> None:
        frames, slot = packed
        if (process := self._process) is not None and frames is self._frames:
            process.send("free", [frames.number, slot])

    def _request_stop(self) -> None:
        if (process := self._process) is not None:
            process.send("close")

    def _kill(self) -> None:
        if (process := self._process) is not None:
            process.kill()
