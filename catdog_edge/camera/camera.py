"""`Camera`: read current frames, one at a time, from any source.

Live sources deliver their newest frame and reconnect by themselves; recordings deliver every
frame in order.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from catdog_edge.camera.credentials import Mask
from catdog_edge.camera.live_source import Counts, LiveFrame, LiveSource, State, roi_error
from catdog_edge.camera.mjpeg import JpegPipe
from catdog_edge.camera.parse_source import check_source_name, parse_source
from catdog_edge.camera.recording import Recording
from catdog_edge.camera.supervisor import Connection, Supervisor
from catdog_edge.errors import CameraError
from catdog_edge.images.preprocess import Image, crop

if TYPE_CHECKING:
    from catdog_edge.spec import Box

__all__ = ["Camera", "Counts", "Frame", "State"]

MIN_FPS = 1e-6  # an image every eleven days


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of the camera `source` and where it came from.

    Attributes:
        image: `uint8 [H,W,3]`, BGR, writable; only the region where one was given.
        index: Its number among all frames of the source, from 0; gaps are dropped frames.
        monotonic: Seconds on a monotonic clock. Live: `time.monotonic()` when the frame was
            decoded. Recordings: its position in the recording.
        wall: Seconds since 1970. Recordings: the start (see `Camera`) plus the position.
        dropped: Frames of the source that were skipped since the frame before this one.
    """

    image: Image = field(repr=False)
    index: int
    monotonic: float
    wall: float
    dropped: int = 0
    source: str = ""
    live: bool = False


class Camera:
    """A source of frames.

        with Camera("rtsp://user:secret@camera/stream", name="door") as camera:
            for frame in camera:
                print(frame.index, frame.image.shape)

    A live source (device, address, pipe of JPEGs) is read by a separate thread that keeps only
    the newest frame. A device or an address is opened in a separate process, which is killed
    when it hangs. Connections are retried for ever or `retries` times: after 0.5 s, then with a
    backoff that doubles up to 30 s, and at once when a server responds again.

    Args:
        source: A device index, an `rtsp://`, `rtmp://` or `http://` address, a video file, a
            folder or glob of images, or `-` for a stream of JPEGs on standard input.
        name: Name in events and messages; default: the host or the file's name.
        roi: Crop each frame to x, y, width, height, pixels.
        realtime: Play a recording at its own speed rather than as fast as possible.
        fps: Frames per second of sources without timestamps: image files, a file of JPEGs,
            and snapshot addresses, which are requested at this rate.
        start: Wall time of a recording's first frame, in the years 1000 to 8999; default: the
            time of opening.
        timeout: Seconds without a frame after which a live connection is closed and retried.
        open_timeout: Timeout in seconds for a connection, and again for its first frame.
        retries: A live source ends after more consecutive failures than this; `None`: never.
        keep_damaged: Keep frames that the decoder reports damaged.
        on_state: Called with the camera, its new state and the reason, from another thread
            for live sources. An exception in it ends the camera and is raised by `read`.

    Attributes:
        described: Name and source, human-readable: `door (rtsp://***@camera/stream)`.
        counts: Number of frames received, delivered, dropped and so on; see `Counts`.
        state: The state of the source.
        ended: `read` has returned the last frame.

    Raises:
        CameraError: The device or file does not exist, or a region, name or number is invalid.
            Messages never contain credentials.
    """

    def __init__(
        self,
        source: str | int | os.PathLike[str],
        name: str | None = None,
        roi: Box | None = None,
        *,
        realtime: bool = False,
        fps: float = 1.0,
        start: datetime | None = None,
        timeout: float = 5.0,
        open_timeout: float = 10.0,
        retries: int | None = None,
        keep_damaged: bool = False,
        on_state: Callable[[Camera, State, str], None] | None = None,
    ) -> None:
        parsed = parse_source(source)
        self.name = check_source_name(name) if name is not None else parsed.name
        self.is_live = parsed.is_live
        self._shown = parsed.shown
        self.described = f"{self.name} ({parsed.shown})"
        self._roi = _checked_region(roi, self.name)
        for option, value in (("timeout", timeout), ("open_timeout", open_timeout), ("fps", fps)):
            if not (math.isfinite(value) and value > 0):
                raise CameraError(f"{option} must be a positive number, got {value}")
        if fps < MIN_FPS:
            raise CameraError(f"fps must be at least {MIN_FPS:g}, got {fps}")
        if start is not None and not 1000 <= start.year < 9000:  # its last frame has a date, too
            raise CameraError(f"start must be in the years 1000 to 8999, got {start.isoformat()}")
        if retries is not None and retries < 0:
            raise CameraError(f"retries must be 0 or more, got {retries}")
        self._on_state = on_state
        self._mask = Mask(str(parsed.target) if parsed.kind == "url" else "")
        self._changed = threading.Condition()
        self._realtime = realtime
        self._start = start.timestamp() if start is not None else None
        self._began: float | None = None
        self._ahead: tuple[Image, float] | None = None
        self._last_index = -1
        self.state = State.CONNECTING
        self._started = False
        self.ended = False
        self._crops_here = parsed.kind not in ("device", "url")
        self._source: LiveSource[Any] | Recording
        if not self._crops_here:
            options = (self._roi, timeout, open_timeout, retries, keep_damaged, fps)
            connection = Connection(parsed.target, *options)
            self._source = Supervisor(connection, self._changed, self._set_state, self.name)
        elif parsed.kind == "pipe":
            pipe = sys.stdin.fileno()
            self._source = JpegPipe(pipe, keep_damaged, self._changed, self._set_state)
        else:
            self._source = Recording(parsed, fps=fps, keep_damaged=keep_damaged)
        self.counts = self._source.counts

    @property
    def reason(self) -> str:
        """Why it is in that state, human-readable; may be empty. Contains no credentials."""
        source = self._source
        return self._mask(source.reason) if isinstance(source, LiveSource) else source.note

    @property
    def note(self) -> str:
        """Problems of a recording or a pipe (truncated, damaged images); may be empty."""
        return self._source.note

    def start(self) -> Camera:
        """Start to connect; otherwise the first `read` does."""
        if not self._started:
            self._started = True
            if isinstance(self._source, LiveSource):
                self._source.start()
            else:
                self._set_state(State.CONNECTING, "")
        return self

    def read(self, timeout: float | None = None) -> Frame | None:
        """Read the newest frame of a live source, or the next frame of a recording.

        Args:
            timeout: Seconds to wait; `None`: without limit, 0: do not wait.

        Returns:
            The frame; `None` after the timeout or, if `ended` is true, at the end of the source.

        Raises:
            CameraError: A recording cannot be read, the region does not fit the frames, or
                a live source has failed more than `retries` times in a row. Raised once; the
                camera has then ended.

        Examples:
            >>> if (frame := camera.read(timeout=5)) is not None:
            ...     print(frame.index, frame.image.shape)
            17 (720, 1280, 3)
        """
        self.start()
        deadline = None if timeout is None else time.monotonic() + timeout
        if isinstance(self._source, Recording):
            return self._read_recording(self._source, deadline)
        return self._read_live(self._source, deadline)

    def due(self) -> float:
        """Return the seconds until the next `read` can succeed; infinite for a live source."""
        if self.is_live:
            return math.inf
        if self._ahead is None or self._began is None:
            return 0.0
        return max(0.0, self._began + self._ahead[1] - time.monotonic())

    def listen(self, listener: Callable[[], object]) -> None:
        """Call a function, from another thread, at every new frame or state of a live source.

        Examples:
            >>> wake = threading.Event()
            >>> camera.listen(wake.set)
        """
        if isinstance(self._source, LiveSource):
            self._source.listeners.append(listener)

    def close(self) -> None:
        """Release the source: its thread, process and files. May be called twice."""
        self._source.close()
        if self._started and self.state is not State.ENDED:
            self._set_state(State.ENDED, "")
        self.ended, self.state = True, State.ENDED

    def __enter__(self) -> Camera:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the source ends."""
        while (frame := self.read()) is not None:
            yield frame

    def __repr__(self) -> str:
        return f"Camera({self._shown!r}, name={self.name!r}, state={self.state.value!r})"

    def _read_live(self, live: LiveSource[Any], deadline: float | None) -> Frame | None:
        while not self.ended:
            ended = live.state is State.ENDED
            if (taken := live.take()) is not None:
                return self._frame(taken)
            if ended:
                self.ended = True
                if live.error is not None:
                    error, live.error = live.error, None
                    raise error
                return None
            with self._changed:
                if live.is_empty():
                    left = math.inf if deadline is None else deadline - time.monotonic()
                    if left <= 0:
                        return None
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
        return None

    def _read_recording(self, recording: Recording, deadline: float | None) -> Frame | None:
        if self.ended or self.state is State.ENDED:
            self.ended = True
            return None
        try:
            found = self._ahead or recording.next()
        except CameraError as error:
            self._exhaust(str(error))
            raise
        if found is None:
            self._exhaust(recording.note)
            return None
        if self._began is None:
            self._began = time.monotonic() - found[1]
            self._start = time.time() if self._start is None else self._start
            self._set_state(State.LIVE, "")
        self._ahead = found
        if self._realtime:
            wait = self.due()
            if wait and deadline is not None and time.monotonic() + wait > deadline:
                time.sleep(max(0.0, deadline - time.monotonic()))
                return None
            time.sleep(wait)
        self._ahead = None
        image, place = found
        assert self._start is not None
        index = recording.counts.received - 1
        return self._frame(LiveFrame(image, index, place, self._start + place))

    def _frame(self, taken: LiveFrame[Image]) -> Frame:
        """Crop a frame, and count the frames skipped before it."""
        image = taken.image
        if self._roi is not None and self._crops_here:
            image = np.ascontiguousarray(crop(image, self._roi))
            if image.shape[1::-1] != self._roi[2:]:
                error = roi_error(self.name, self._roi, *taken.image.shape[1::-1])
                self._exhaust(str(error))
                raise error
        index, dropped = taken.index, taken.index - self._last_index - 1
        self._last_index = index
        return Frame(image, index, taken.monotonic, taken.wall, dropped, self.name, self.is_live)

    def _exhaust(self, reason: str) -> None:
        self.ended = True
        self._set_state(State.ENDED, reason)

    def _set_state(self, state: State, reason: str) -> None:
        with self._changed:
            if self.state is State.ENDED:
                return  # a callback has closed the camera
            self.state = state
        if self._on_state is not None:
            self._on_state(self, state, self._mask(reason))


def _checked_region(region: Box | None, name: str) -> Box | None:
    if region is None:
        return None
    try:
        if isinstance(region, str):
            raise TypeError
        x, y, width, height = (int(value) for value in region)
    except (TypeError, ValueError, OverflowError):
        wanted = f"{name}: a region is four numbers, (x, y, width, height)"
        raise CameraError(f"{wanted}, not {region!r}") from None
    if min(x, y) < 0 or min(width, height) < 1:
        what = f"{name}: the region {x},{y},{width},{height} is impossible"
        raise CameraError(f"{what}; give --roi x,y,w,h in pixels, x and y from 0, w and h from 1")
    return x, y, width, height
