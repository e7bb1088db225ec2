"""Base of live sources: a state, counters, the newest frame, and a thread that supplies it.

Also what a capture process and its supervisor must agree on: the slots and the messages.
"""

from __future__ import annotations

import enum
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from catdog_edge.camera.freshness import STALE
from catdog_edge.errors import CameraError
from catdog_edge.images.preprocess import Image

Packed = TypeVar("Packed")

SLOTS = 4  # frames in the shared memory: one newest, one being read, one being written, one spare

LONGEST_TIMEOUT = 3600.0  # seconds; a socket refuses to wait as long as a caller may ask


class State(enum.StrEnum):
    """State of a source."""

    CONNECTING = "connecting"  # no frame received yet
    LIVE = "live"  # receiving frames
    STALLED = "stalled"  # connected, but without a frame for longer than usual
    RETRYING = "retrying"  # the connection is lost or was refused; waiting for the next attempt
    ENDED = "ended"  # no further frames: closed, at its end, or failed for good


@dataclass
class Counts:
    """Frame counters of one source.

    After it is closed, `received` is the sum of the next four.
    """

    received: int = 0
    delivered: int = 0  # to the consumer
    replaced: int = 0  # by a newer one before they were read, or left over
    stale: int = 0  # more than a second old: a burst after a connect, a network that lagged
    damaged: int = 0  # not decoded, or reported damaged by the decoder
    connects: int = 0  # connections with at least one frame
    failures: int = 0  # attempts and connections that failed

    def count_damaged(self, picture: str, reason: object) -> str:
        """Count a damaged picture; return the note about it."""
        before, self.damaged = self.damaged, self.damaged + 1
        more = f" (and {before} before it)" if before else ""
        return f"skipped {picture}: {reason}{more}"


@dataclass(frozen=True, slots=True)
class LiveFrame(Generic[Packed]):
    """A frame before the consumer reads it, decoded or not; see `camera.Frame`."""

    image: Packed
    index: int
    monotonic: float
    wall: float


OnState = Callable[[State, str], None]


class LiveSource(ABC, Generic[Packed]):
    """The consumer's side of a live source; all methods may be called from any thread.

    `changed` is notified of each new frame and state, `on_state` is called with each new state
    and its reason, and then `listeners`, both in the source's thread. `note` describes problems
    of the frames, `error` is the exception that ended the thread.
    """

    SHUTDOWN_TIMEOUT = 0.3  # seconds for a source to stop by itself before it is killed

    def __init__(self, changed: threading.Condition, on_state: OnState, thread_name: str) -> None:
        self.counts = Counts()
        self.state = State.CONNECTING
        self.reason = ""
        self.note = ""
        self.error: BaseException | None = None
        self.listeners: list[Callable[[], object]] = []
        self._changed, self._on_state = changed, on_state
        self._closing = False
        self._newest: LiveFrame[Packed] | None = None
        self._made = 0.0
        self._thread = threading.Thread(target=self._run_guarded, name=thread_name, daemon=True)

    def start(self) -> None:
        """Start to connect."""
        self._thread.start()

    def take(self) -> LiveFrame[Image] | None:
        """Return the newest frame; `None` if it was already taken, is old, or is damaged."""
        with self._changed:
            newest, self._newest = self._newest, None
            if newest is None:
                return None
            if time.monotonic() - self._made > STALE:
                self.counts.stale += 1
                self._discard(newest.image)
                return None
        image = self._unpack(newest)
        if image is None:
            return None
        with self._changed:
            self.counts.delivered += 1
        return LiveFrame(image, newest.index, newest.monotonic, newest.wall)

    def is_empty(self) -> bool:
        """Check whether there is no frame now, but there may be one later."""
        return self._newest is None and self.state is not State.ENDED

    def close(self) -> None:
        """Release all resources; return when the thread has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._request_stop()
            self._thread.join(self.SHUTDOWN_TIMEOUT)
            if self._thread.is_alive():
                self._kill()
                self._thread.join()
        with self._changed:
            self.counts.replaced += self._newest is not None
            self._newest = None

    def _publish(self, newest: LiveFrame[Packed], made: float) -> None:
        """Replace the available frame by a newer one."""
        with self._changed:
            if self._newest is not None:
                self.counts.replaced += 1
                self._discard(self._newest.image)
            self._newest, self._made = newest, made
        self._notify()

    def _set_state(self, state: State, reason: str = "") -> None:
        """Enter a state and report it; in the same state, note another reason."""
        with self._changed:
            entered = state is not self.state
            self.state, self.reason = state, reason
        if entered:
            self._notify()
            self._on_state(state, reason)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
        for listener in self.listeners:
            listener()

    def _run_guarded(self) -> None:
        try:
            self._on_state(self.state, "")
            self._run()
        except BaseException as error:  # raised to the consumer, who reads in another thread
            self.error = error
        finally:
            self._release()
            failed = self.error if isinstance(self.error, CameraError) else None
            try:
                self._set_state(State.ENDED, str(failed or self.note))
            except BaseException as error:  # the callback's own
                self.error = self.error or error

    @abstractmethod
    def _run(self) -> None:
        """Publish frames until closed; the body of the thread."""

    @abstractmethod
    def _unpack(self, newest: LiveFrame[Packed]) -> Image | None:
        """Return a published frame's image, without the lock; `None` if it does not decode."""

    def _discard(self, packed: Packed) -> None:
        """Free what a published frame holds; with the lock held."""

    def _request_stop(self) -> None:
        """Signal the thread to stop."""

    def _kill(self) -> None:
        """Interrupt any wait of the thread."""

    def _release(self) -> None:
        """Free the thread's resources; called last in the thread."""


class MessageSplitter:
    """Splits the bytes that a process receives into messages: names with their values."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[str, Any]]:
        """Return the messages that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [item for line in lines for item in json.loads(line).items()]


def encode_message(name: str, value: object) -> bytes:
    """Return a message as a line of JSON, for `MessageSplitter`."""
    return json.dumps({name: value}).encode() + b"\n"


def roi_error(name: str, roi: tuple[int, int, int, int], width: int, height: int) -> CameraError:
    """Make the error for a region that is not inside the frames."""
    what = f"the region {','.join(map(str, roi))} is not inside its frames of {width}x{height}"
    return CameraError(f"{name}: {what}; give another --roi x,y,w,h")
