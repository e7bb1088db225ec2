"""What every live source has: a state, counts, the newest frame, and a thread that fills it in.

Knows nothing of where frames come from; `reader` and `jpegstream` do.
"""

from __future__ import annotations

import enum
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.camera.freshness import STALE
from catdog_edge.errors import CameraError

Image = npt.NDArray[np.uint8]


FAREWELL = 0.3
"""Seconds for a source to end in order before it is made to."""


class State(enum.StrEnum):
    """What a source is doing."""

    CONNECTING = "connecting"
    """A first frame is on its way, or is hoped for."""
    LIVE = "live"
    """Frames come."""
    STALLED = "stalled"
    """Connected, but no frame has come for longer than is usual."""
    RETRYING = "retrying"
    """The connection is lost or was refused; the next attempt is being waited for."""
    ENDED = "ended"
    """No frame will come any more: closed, at its end, or failed for good."""


@dataclass
class Counts:
    """What became of the frames of one source.

    Once a source is closed, `received` is the sum of the four that follow it.

    Attributes:
        received: Frames that came out of the source.
        delivered: Handed to the consumer.
        replaced: Not asked for before a newer one came, or before the end.
        stale: More than a second old: a burst after a connect, a network that lagged.
        damaged: Could not be decoded, or the decoder complained about them.
        connects: Connections that gave at least one frame.
        failures: Attempts and connections that failed.
    """

    received: int = 0
    delivered: int = 0
    replaced: int = 0
    stale: int = 0
    damaged: int = 0
    connects: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Arrived:
    """A frame on its way to the consumer."""

    image: Image
    index: int
    monotonic: float
    wall: float


Tell = Callable[[State, str], None]


class LiveSource(ABC):
    """The consumer's side of a live source; all methods may be called from any thread.

    `note` says what was found wrong with its frames, for people; most sources have none.

    Args:
        bell: Notified whenever there is something new: a frame or a state.
        tell: Called with each new state and its reason, in the source's thread.
        name: Of the thread.
    """

    def __init__(self, bell: threading.Condition, tell: Tell, name: str) -> None:
        self.counts = Counts()
        self.state = State.CONNECTING
        self.reason = ""
        self.note = ""
        self.error: BaseException | None = None
        self.listeners: list[Callable[[], object]] = []
        self._bell = bell
        self._tell = tell
        self._closing = False
        self._newest: Any = None
        self._made = 0.0
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def take(self) -> Arrived | None:
        """The newest frame, if there is one that was not taken yet and is not old."""
        with self._bell:
            newest, self._newest = self._newest, None
            if newest is None:
                return None
            if time.monotonic() - self._made > STALE:
                self.counts.stale += 1
                self._discard(newest)
                return None
            self.counts.delivered += 1
        return self._unpack(newest)

    def waits(self) -> bool:
        """Whether there is nothing to take but there may be later."""
        return self._newest is None and self.state is not State.ENDED

    def close(self) -> None:
        """Let go of everything; returns when the thread is gone."""
        with self._bell:
            self._closing = True
            self._bell.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._hurry()
            self._thread.join(FAREWELL)
            if self._thread.is_alive():
                self._force()
                self._thread.join()
        with self._bell:
            self.counts.replaced += self._newest is not None
            self._newest = None

    def _offer(self, newest: Any, made: float) -> None:
        """Put a frame where the consumer finds it; the one that lay there is replaced."""
        with self._bell:
            if self._newest is not None:
                self.counts.replaced += 1
                self._discard(self._newest)
            self._newest, self._made = newest, made
        self._ring()

    def _enter(self, state: State, reason: str = "") -> None:
        """Go to a state, and tell of it; in the same state, note another reason."""
        with self._bell:
            entered = state is not self.state
            self.state, self.reason = state, reason
        if not entered:
            return
        self._ring()
        self._tell(state, reason)

    def _ring(self) -> None:
        with self._bell:
            self._bell.notify_all()
        for listener in self.listeners:
            listener()

    def _guarded(self) -> None:
        try:
            self._tell(self.state, "")
            self._run()
        except BaseException as error:  # handed to the consumer, who reads in another thread
            self.error = error
        finally:
            self._release()
            failed = self.error if isinstance(self.error, CameraError) else None
            try:
                self._enter(State.ENDED, str(failed or self.note))
            except BaseException as error:  # the callback's own
                self.error = self.error or error

    @abstractmethod
    def _run(self) -> None:
        """Fill in frames until closed; the body of the thread."""

    @abstractmethod
    def _unpack(self, newest: Any) -> Arrived:
        """Turn what was offered into a frame; outside of the lock."""

    @abstractmethod
    def _discard(self, newest: Any) -> None:
        """Free what an offered frame holds; inside the lock."""

    @abstractmethod
    def _hurry(self) -> None:
        """Make the thread notice that it is to close."""

    @abstractmethod
    def _force(self) -> None:
        """Make the thread come back from whatever it waits for."""

    @abstractmethod
    def _release(self) -> None:
        """Free what the thread holds; the last thing that it does."""


def misfit(name: str, region: tuple[int, int, int, int], width: int, height: int) -> CameraError:
    """The one line for a region that is not inside the frames."""
    listed = ",".join(str(value) for value in region)
    return CameraError(
        f"{name}: the region {listed} is not inside its frames of {width}x{height}; "
        "give another --roi x,y,w,h"
    )
