"""Base of live sources: a state, counters, the newest frame, and a thread that supplies it."""

from __future__ import annotations

import enum
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from catdog_edge.camera.freshness import STALE
from catdog_edge.errors import CameraError
from catdog_edge.images.preprocess import Image

Packed = TypeVar("Packed")


class State(enum.StrEnum):
    """What a source is doing."""

    CONNECTING = "connecting"  # no frame has come yet
    LIVE = "live"  # frames come
    STALLED = "stalled"  # connected, but no frame has come for longer than usual
    RETRYING = "retrying"  # the connection is lost or was refused; waiting for the next attempt
    ENDED = "ended"  # no frame will come any more: closed, at its end, or failed for good


@dataclass
class Counts:
    """What became of the frames of one source.

    Once it is closed, `received` is the sum of the four that follow it.
    """

    received: int = 0
    delivered: int = 0  # to the consumer
    replaced: int = 0  # by a newer one before they were read, or left over
    stale: int = 0  # more than a second old: a burst after a connect, a network that lagged
    damaged: int = 0  # not decoded, or the decoder complained
    connects: int = 0  # connections that gave at least one frame
    failures: int = 0  # attempts and connections that failed

    def pass_over(self, picture: str, reason: object) -> str:
        """Count a damaged picture; return the note about it."""
        before, self.damaged = self.damaged, self.damaged + 1
        more = f" (and {before} before it)" if before else ""
        return f"passed over {picture}: {reason}{more}"


@dataclass(frozen=True, slots=True)
class LiveFrame(Generic[Packed]):
    """A frame on its way to the consumer, unpacked or not; see `camera.Frame`."""

    image: Packed
    index: int
    monotonic: float
    wall: float


OnState = Callable[[State, str], None]


class LiveSource(ABC, Generic[Packed]):
    """The consumer's side of a live source; all methods may be called from any thread.

    `changed` is notified of each new frame and state, `on_state` is called with each new state
    and its reason, and then `listeners`, both in the source's thread. `note` is what was found
    wrong with the frames, `error` what ended the thread.
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
        """Begin to connect."""
        self._thread.start()

    def take(self) -> LiveFrame[Image] | None:
        """Return the newest frame, unless it was taken already, is old, or does not decode."""
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
        """Whether there is no frame to take, but there may be one later."""
        return self._newest is None and self.state is not State.ENDED

    def close(self) -> None:
        """Release everything; returns when the thread is gone."""
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
        """Make a frame available in place of the one before it."""
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
        """Make the thread notice that it is to stop."""

    def _kill(self) -> None:
        """Make the thread return from whatever it waits for."""

    def _release(self) -> None:
        """Free what the thread holds; the last thing that it does."""


def roi_error(name: str, roi: tuple[int, int, int, int], width: int, height: int) -> CameraError:
    """The error for a region that is not inside the frames."""
    what = f"the region {','.join(map(str, roi))} is not inside its frames of {width}x{height}"
    return CameraError(f"{name}: {what}; give another --roi x,y,w,h")
