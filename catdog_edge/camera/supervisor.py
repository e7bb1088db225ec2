"""Keep one live camera running: start the process that holds it, watch it, retry.

The other side is `catdog_edge.camera.capture_process`. Nothing here waits on a camera: every wait
has an end, after which the process is killed and a new one takes its place.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import random
import socket
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from catdog_edge.camera.credentials import Mask, is_url
from catdog_edge.camera.live_source import (
    SHUTDOWN_TIMEOUT,
    LiveFrame,
    LiveSource,
    OnState,
    State,
    roi_error,
)
from catdog_edge.errors import CameraError, CatdogError
from catdog_edge.system.child import child_command, child_environment

if TYPE_CHECKING:
    from catdog_edge.images.preprocess import Image

logger = logging.getLogger(__name__)

STALLED_AFTER = 1.0
"""Seconds without a frame after which a camera counts as stalled, or three frame intervals."""

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds before the first and before every later attempt; doubled in between."""

STEADY = 5.0
"""Seconds of frames after which earlier failures are forgotten."""

_PROBE_EVERY = 1.0
_GRACE = 2.0
"""Seconds beyond the time to connect before the process is taken to hang."""

SLOTS = 4
"""Frames in the shared memory: one newest, one being read, one being written, one spare."""

FFMPEG_OPTIONS = (
    "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|analyzeduration;500000|probesize;500000"
)
"""RTSP over TCP, and no more reading ahead than it takes to recognise the stream."""

LONGEST_WAIT = 3600.0
"""Seconds; a socket refuses to wait as long as a caller may ask."""


@dataclass(frozen=True, slots=True)
class SharedFrames:
    """The memory that the process writes frames to.

    Attributes:
        number: Which one of the process's memories, from 0; a new one for a new shape.
        images: `uint8 [SLOTS,H,W,3]` BGR, read-only.
    """

    number: int
    images: Image


class CaptureProcess:
    """A running process and the connection to it.

    Args:
        source: What it will be told to open. A variable that holds it, or its password, is not
            passed on, since whoever may look at a process sees its environment.

    Raises:
        OSError: It cannot be started.
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
                stdin=subprocess.PIPE,  # its end tells the process that we are gone
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
                process_group=0,  # Ctrl-C in a terminal is for us to act upon
            )
        self._received = b""
        self._files: deque[int] = deque()
        self._sending = threading.Lock()

    def send(self, name: str, value: object = None) -> None:
        """Send a command; that the process is gone shows when it is read from."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps({name: value}).encode() + b"\n")

    def messages(self, seconds: float) -> list[tuple[str, Any]] | None:
        """Wait some seconds for messages; `None` when the process is gone."""
        try:
            self._connection.settimeout(min(max(0.001, seconds), LONGEST_WAIT))
            data, files, _flags, _address = socket.recv_fds(self._connection, 1 << 16, 4)
        except TimeoutError:
            return []
        except OSError:
            return None
        self._files.extend(files)
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [item for line in lines for item in json.loads(line).items()]

    def map_frames(self, number: int, *shape: int) -> SharedFrames:
        """Map the memory whose file descriptor came last."""
        file = self._files.popleft()
        try:
            memory = mmap.mmap(file, SLOTS * int(np.prod(shape)), access=mmap.ACCESS_READ)
        finally:
            os.close(file)
        return SharedFrames(number, np.frombuffer(memory, np.uint8).reshape(SLOTS, *shape))

    def kill(self) -> None:
        """Kill it; `stop` must still follow."""
        self._process.kill()

    def stop(self, timeout: float = 0.0) -> int:
        """Wait for its end, kill it after the timeout; return its exit code."""
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
    """How to connect to a camera.

    Attributes:
        source: An address, a device index, or a device file.
        roi: x, y, width, height of the part to cut out, pixels.
        timeout: Seconds without a frame after which the connection is given up.
        open_timeout: Seconds for a connection, and again for its first frame.
        retries: Failures in a row after which the camera is given up; `None`: never.
        keep_damaged: Keep pictures that the decoder complained about.
        fps: Pictures a second that are asked of a snapshot address.
    """

    source: str | int
    roi: tuple[int, int, int, int] | None = None
    timeout: float = 5.0
    open_timeout: float = 10.0
    retries: int | None = None
    keep_damaged: bool = False
    fps: float = 1.0


@dataclass(frozen=True, slots=True)
class _Slot:
    """A frame in the shared memory."""

    frames: SharedFrames
    slot: int
    index: int
    monotonic: float
    wall: float


class Supervisor(LiveSource[_Slot]):
    """One camera that is kept running; see `LiveSource`.

    Ends by itself only when its retries are used up or a frame does not fit the ROI: then
    `error` is a `CameraError`.
    """

    def __init__(
        self, connection: Connection, changed: threading.Condition, on_state: OnState, name: str
    ) -> None:
        super().__init__(changed, on_state, f"catdog-edge camera {name}")
        if os.name != "posix":
            raise CameraError(
                f"{name}: live cameras are read on Linux and macOS only; "
                "record to a file and give that as the source"
            )
        try:
            child_command("")
        except CatdogError as error:
            raise CameraError(f"{name}: {error}") from error
        self._connection = connection
        self._name = name
        self._process: CaptureProcess | None = None
        self._frames: SharedFrames | None = None
        self._one_thread = True
        self._interval = 0.0
        self._first_frame = 0.0
        self._last_frame: float | None = None
        self._reason = ""
        """Why what comes is not used."""

    def _run(self) -> None:
        failures = 0
        while not self._closing:
            self._set_state(State.CONNECTING)
            try:
                reason = self._run_connection()
            except OSError as error:  # no process, no memory, no handles: it may get better
                self._stop_process()
                reason = f"no process can hold the camera ({error.strerror or error})"
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
        """Connect and publish frames; return why it is over."""
        connection = self._connection
        self._reason = ""
        process = self._running_process()
        process.send(
            "open",
            {
                "source": connection.source,
                "roi": connection.roi,
                "open_timeout": connection.open_timeout,
                "one_thread": self._one_thread,
                "keep_damaged": connection.keep_damaged,
                "fps": connection.fps,
            },
        )
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
                code = self._stop_process(SHUTDOWN_TIMEOUT)
                return f"the capture process ended by itself (exit code {code})"
            for name, value in messages:
                if name == "opened":
                    first_by = time.monotonic() + connection.open_timeout
                elif name == "failed":
                    reason, detail = value
                    logger.debug("%s: %s: %s", self._name, reason, detail)
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
                self._publish(_Slot(self._frames, slot, index, now, wall), made)
            self._set_state(State.LIVE)
        elif name == "skipped":
            self._reason, *counts = value
            self._count(*counts)
        elif name == "interval":
            self._interval = max(self._interval, value)
        elif name == "misfit":
            raise roi_error(self._name, self._connection.roi or (0, 0, 0, 0), *value)

    def _learn_interval(self, now: float) -> None:
        """Learn how often frames come, to know what a silence is."""
        if self._last_frame is None:
            self.counts.connects += 1
            self._first_frame = now
        else:
            gap = now - self._last_frame
            self._interval += 0.1 * (gap - self._interval) if self._interval else gap
        self._last_frame = now
        self._reason = ""

    def _count(self, received: int, replaced: int, stale: int, damaged: int) -> int:
        """Add to the counts; return how many frames were received in all."""
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
        """Wait before the next attempt, but no longer than until the server responds again."""
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 10))
        delay = min(LONGEST_DELAY, max(FIRST_DELAY, delay * random.uniform(0.75, 1.25)))
        until = time.monotonic() + delay
        address = self._connection.source if is_url(str(self._connection.source)) else None
        probe_at = time.monotonic()
        was_silent = False
        while not self._closing and (now := time.monotonic()) < until:
            try:
                process = self._running_process()
            except OSError:
                self._wait(until - now)
                return
            if address is not None and now >= probe_at:
                process.send("probe", address)
                probe_at = float("inf")
            messages = process.messages(min(until, probe_at) - now + 0.001)
            if messages is None:
                self._stop_process()
                self._wait(until - now)
                return
            for name, value in messages:
                if name == "probe":
                    if value and was_silent:
                        return
                    was_silent = was_silent or not value
                    probe_at = time.monotonic() + _PROBE_EVERY

    def _wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    def _release(self) -> None:
        self._request_stop()
        self._stop_process(SHUTDOWN_TIMEOUT)

    def _unpack(self, newest: _Slot) -> LiveFrame:
        image = newest.frames.images[newest.slot].copy()
        self._discard(newest)
        return LiveFrame(image, newest.index, newest.monotonic, newest.wall)

    def _discard(self, newest: _Slot) -> None:
        process = self._process
        if process is not None and newest.frames is self._frames:
            process.send("free", [newest.frames.number, newest.slot])

    def _request_stop(self) -> None:
        process = self._process
        if process is not None:
            process.send("close")

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            process.kill()
