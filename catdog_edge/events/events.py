"""`Events`: a stream of frames becomes "cat came", "cat left".

Asks the model where something moved, smooths its answers over time and tells of visits.
Knows `Camera` only as something to read from, the model only as something to ask; where
events go is up to `catdog_edge.events.sinks`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from catdog_edge.camera.camera import Camera, Frame, State
from catdog_edge.errors import CameraError
from catdog_edge.events.motion import MotionGate
from catdog_edge.events.tracker import Change, Reason, Rules, Tracker
from catdog_edge.images.preprocess import preprocess
from catdog_edge.spec import NEITHER, ModelSpec, Prediction
from catdog_edge.system.console import plain

__all__ = ["SCHEMA", "Event", "Events", "Rules", "Tally", "View", "state_to_json"]

SCHEMA = 1
"""Version of an event's JSON form, see `docs/stream.md`."""

_LOOK = 0.25
"""Seconds at most between two looks at the clock while no frame comes."""


class Model(Protocol):
    """What `Events` asks: a `Classifier`, or anything else that answers a frame."""

    @property
    def spec(self) -> ModelSpec: ...

    def __call__(self, frame: Any) -> Prediction: ...


@dataclass(frozen=True)
class Event:
    """A pet came, or a pet left.

    Attributes:
        event: `enter` or `exit`.
        label: Which pet, a label of the model.
        confidence: 0..1, the best of the visit so far; of the whole visit at its `exit`.
        source: The camera's name.
        wall: When it happened, seconds since 1970. That is earlier than it was certain.
        decided: When the frame was taken that made it certain, seconds since 1970.
        visit: Number of the visit of this source, from 1; an `exit` has that of its `enter`.
        position: The moment in the recording, seconds; `None` for a live source.
        duration: Of the visit, seconds; `None` for an `enter`.
        reason: Of an `exit`: `left`, `changed` (another pet took its place), `lost` (no more
            frames), `ended` (the recording did), `stopped` (we did); `None` for an `enter`.
        snapshot: The file that shows the best frame, where one was written.
        picture: The best frame, `uint8 [H,W,3]` BGR; not a part of the JSON form.
    """

    event: Literal["enter", "exit"]
    label: str
    confidence: float
    source: str
    wall: float
    decided: float
    visit: int
    position: float | None = None
    duration: float | None = None
    reason: Reason | None = None
    snapshot: str | None = None
    picture: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    @property
    def time(self) -> str:
        """When it happened, ISO 8601 in UTC to the millisecond."""
        return _iso(self.wall)

    def __str__(self) -> str:
        stayed = "" if self.duration is None else f" after {self.duration:.1f} s"
        second = datetime.fromtimestamp(self.wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        who = plain(f"{self.source} {self.label}")
        return f"{second} {who} {self.event} {self.confidence:.2f}{stayed}"

    def to_json(self) -> str:
        """One line of JSON; keys and their meaning are in `docs/stream.md`."""
        document = {
            "schema": SCHEMA,
            "event": self.event,
            "label": self.label,
            "confidence": round(self.confidence, 4),
            "source": self.source,
            "time": self.time,
            "decided": _iso(self.decided),
            "visit": self.visit,
            "position": _rounded(self.position),
            "duration": _rounded(self.duration),
            "reason": self.reason,
            "snapshot": self.snapshot,
        }
        return json.dumps(document, ensure_ascii=False)


@dataclass(frozen=True)
class View:
    """What is known at one frame, for whoever draws it.

    Attributes:
        prediction: The model's latest answer.
        asked: Whether the model was asked for this frame; otherwise nothing had moved.
        present: The label that is there, or `neither`.
        smoothed: Smoothed evidence per label, 0..1, in the order of the model's labels.
    """

    prediction: Prediction
    asked: bool
    present: str
    smoothed: tuple[float, ...]


@dataclass
class Tally:
    """What was done for one source."""

    frames: int = 0
    asked: int = 0
    events: int = 0


class _Watch:
    """One source: its gate, its tracker, and the best frame of each label that is in sight."""

    def __init__(self, labels: int, rules: Rules, gate: MotionGate | None) -> None:
        self.gate = gate
        self.tracker = Tracker(labels, rules)
        self.tally = Tally()
        self.visits = 0
        self.prediction: Prediction | None = None
        self.frame: Frame | None = None
        self.best: list[tuple[float, npt.NDArray[np.uint8] | None]] = [(0.0, None)] * labels


class Events:
    """Tells of visits.

        for event in Events(Classifier()).over(camera):
            print(event)          # 2026-11-22T15:04:05Z door cat enter 0.97

    Args:
        model: A `Classifier`. It must say `neither` where there is no pet: a model without a
            rejection sees a pet in every frame (`model.spec.rejection` is `None` then, unless
            `Classifier` was given `reject=`).
        rules: When a pet counts as come and gone.
        motion: Ask the model only where something moved since it was last asked.
        pictures: Keep the best frame of each visit for `Event.picture`.
    """

    def __init__(
        self,
        model: Model,
        rules: Rules | None = None,
        *,
        motion: bool = True,
        pictures: bool = True,
    ) -> None:
        self.rules = rules or Rules()
        self._model = model
        self._motion = motion
        self._pictures = pictures
        self._watches: dict[str, _Watch] = {}
        self._view: View | None = None

    def over(
        self,
        cameras: Camera | Iterable[Camera],
        *,
        each: Callable[[Frame, View], object] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Event]:
        """Events of one or several cameras until all of them have ended.

        Args:
            cameras: Cameras with different names; the caller closes them.
            each: Called with every frame and what is known then.
            stop: Ends it when set, within a quarter of a second; visits under way are ended.

        Raises:
            CameraError: Two cameras have one name; or, once all others have ended, the first
                camera's error.
        """
        running = [cameras] if isinstance(cameras, Camera) else list(cameras)
        names = [camera.name for camera in running]
        for name in names:
            if names.count(name) > 1:
                raise CameraError(f"two sources are called {name}; name them with NAME=SOURCE")
        wake = threading.Event()
        for camera in running:
            camera.listen(wake.set)
        failure: CameraError | None = None
        while running and not (stop is not None and stop.is_set()):
            wake.clear()
            idle = True
            for camera in list(running):
                try:
                    frame = camera.read(timeout=0)
                except CameraError as error:
                    failure = failure or error
                    running.remove(camera)
                    yield from self.finish(camera.name, "lost")
                    continue
                if frame is not None:
                    idle = False
                    found = self.feed(frame)
                    if each is not None and self._view is not None:
                        each(frame, self._view)
                    yield from found
                elif camera.ended:
                    running.remove(camera)
                    yield from self.finish(camera.name, "ended")
                elif camera.is_live:
                    yield from self._check(camera.name)
            if idle and running:
                wake.wait(min(_LOOK, *(camera.due() for camera in running)))
        for camera in running:
            yield from self.finish(camera.name, "stopped")
        if failure is not None:
            raise failure

    def feed(self, frame: Frame) -> list[Event]:
        """Take one frame of any source; returns what became certain with it."""
        labels = self._model.spec.labels
        watch = self._watches.get(frame.source)
        if watch is None:
            gate = MotionGate() if self._motion else None
            watch = self._watches[frame.source] = _Watch(len(labels), self.rules, gate)
        found = []
        if frame.live and self._is_lost(watch, frame.monotonic):
            found += self.finish(frame.source, "lost")
        watch.tally.frames += 1
        # At the model's size nothing is left to do for the model's own preprocessing.
        picture = preprocess(frame.image, self._model.spec.resize)
        asked = watch.gate is None or watch.gate.must_ask(picture, frame.monotonic)
        if asked or watch.prediction is None:
            watch.tally.asked += 1
            watch.prediction = self._model(picture)
        prediction = watch.prediction
        evidence = self._evidence(watch, prediction)
        watch.frame = frame
        changes = watch.tracker.update(frame.monotonic, evidence)
        found += [self._event(watch, change) for change in changes if change.kind == "exit"]
        for label, value in enumerate(evidence):
            if watch.tracker.sighted(label) is None:
                watch.best[label] = (0.0, None)
            elif asked and value > watch.best[label][0]:
                watch.best[label] = (value, frame.image if self._pictures else None)
        found += [self._event(watch, change) for change in changes if change.kind == "enter"]
        present = watch.tracker.present
        self._view = View(
            prediction,
            asked,
            NEITHER if present is None else labels[present],
            tuple(float(value) for value in watch.tracker.smoothed),
        )
        return found

    def finish(self, source: str, reason: Reason) -> list[Event]:
        """End the visit that is under way at a source."""
        watch = self._watches.get(source)
        if watch is None:
            return []
        found = [self._event(watch, change) for change in watch.tracker.finish(reason)]
        watch.gate = MotionGate() if self._motion else None
        watch.prediction = None
        return found

    def tally(self, source: str) -> Tally:
        """What was done for a source so far."""
        watch = self._watches.get(source)
        return watch.tally if watch is not None else Tally()

    def _evidence(self, watch: _Watch, prediction: Prediction) -> list[float]:
        """Per label 0..1: what a frame says for it.

        A frame that shows neither says nothing, but for a pet that is in sight already: then a
        score just below the threshold, as a turned head or the noise of the night brings it, is
        weaker evidence, not none. So rejection has two thresholds, as entering and leaving have.
        """
        if prediction.label != NEITHER:
            return list(prediction.probabilities)
        return [
            0.0 if watch.tracker.sighted(label) is None else value * prediction.nearness
            for label, value in enumerate(prediction.probabilities)
        ]

    def _is_lost(self, watch: _Watch, now: float) -> bool:
        return watch.frame is not None and now - watch.frame.monotonic > self.rules.lost

    def _check(self, source: str) -> list[Event]:
        watch = self._watches.get(source)
        if watch is None or not self._is_lost(watch, time.monotonic()):
            return []
        return self.finish(source, "lost")

    def _event(self, watch: _Watch, change: Change) -> Event:
        frame = watch.frame
        assert frame is not None
        confidence, picture = watch.best[change.label]
        watch.visits += change.kind == "enter"
        watch.tally.events += 1
        return Event(
            change.kind,
            self._model.spec.labels[change.label],
            confidence,
            frame.source,
            wall=frame.wall - (frame.monotonic - change.time),
            decided=frame.wall,
            visit=watch.visits,
            position=None if frame.live else change.time,
            duration=change.time - change.began if change.kind == "exit" else None,
            reason=change.reason,
            picture=picture,
        )


def state_to_json(source: str, state: State, reason: str, wall: float) -> str:
    """One line of JSON for a live source that went to another state; see `docs/stream.md`."""
    document = {
        "schema": SCHEMA,
        "event": "state",
        "source": source,
        "state": state.value,
        "reason": plain(reason) or None,
        "time": _iso(wall),
    }
    return json.dumps(document, ensure_ascii=False)


def _iso(wall: float) -> str:
    moment = datetime.fromtimestamp(wall, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
