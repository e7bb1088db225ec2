"""`Events`: turn a stream of frames into enter and exit events.

Runs the model when something moves, smooths its predictions over time and reports visits.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import numpy as np

from catdog_edge.camera.camera import Camera, Frame, State
from catdog_edge.errors import CameraError, escaped
from catdog_edge.events.motion import MotionCrop, MotionGate
from catdog_edge.events.tracker import Reason, Rules, Tracker, Transition
from catdog_edge.images.preprocess import Image, crop, preprocess
from catdog_edge.spec import NEITHER, Box, ModelSpec, Prediction, squash

__all__ = ["SCHEMA", "Event", "Events", "Rules", "Tally", "View", "state_to_json"]

SCHEMA = 1
"""Version of an event's JSON form, see `docs/stream.md`."""

_LONGEST_WAIT = 0.25
"""Longest wait for a frame, seconds, before the timeouts are checked."""


class Model(Protocol):
    """A `Classifier`, or anything else that classifies a frame."""

    @property
    def spec(self) -> ModelSpec: ...

    def __call__(self, frame: Any) -> Prediction: ...


@dataclass(frozen=True)
class Event:
    """A class appeared or left.

    `str(event)` is a human-readable line, `event.to_json()` a line of JSON.

    Attributes:
        event: `enter` or `exit`.
        label: The class, a label of the model.
        confidence: 0..1, the highest of the visit so far; at an `exit`, of the whole visit.
        source: The camera's name.
        wall: When it happened, seconds since 1970; earlier than `decided`.
        decided: Time of the frame at which it was detected, seconds since 1970.
        visit: Number of the visit of this source, from 1; the same for `enter` and `exit`.
        position: Position in the recording, seconds; `None` for a live source.
        duration: Duration of the visit, seconds; `None` for an `enter`.
        reason: Reason of an `exit`: `left`, `changed` (another class replaced it), `lost` (no
            more frames), `ended` (end of the recording), `stopped`; `None` for an `enter`.
        snapshot: The file with the best frame, if one was written.
        picture: The best frame, `uint8 [H,W,3]` BGR; not part of the JSON form.
        box: The part of the best frame that was classified; `None`: the whole frame.
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
    picture: Image | None = field(default=None, repr=False, compare=False)
    box: Box | None = None

    @property
    def time(self) -> str:
        """When it happened, ISO 8601 in UTC to the millisecond."""
        return _iso(self.wall)

    def __str__(self) -> str:
        stayed = "" if self.duration is None else f" after {self.duration:.1f} s"
        second = datetime.fromtimestamp(self.wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        who = escaped(f"{self.source} {self.label}")
        return f"{second} {who} {self.event} {self.confidence:.2f}{stayed}"

    def to_json(self) -> str:
        """Return one line of JSON; `docs/stream.md` describes the keys."""
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
            "box": self.box,
        }
        return json.dumps(document, ensure_ascii=False)


@dataclass(frozen=True)
class View:
    """State of a source at one frame, for display."""

    prediction: Prediction  # the latest
    classified: bool  # whether it is for this frame; otherwise nothing has moved since
    present: str  # the label of the current visit, or `neither`
    smoothed: tuple[float, ...]  # score per label, 0..1, in the order of the model's labels


@dataclass
class Tally:
    """Counters of one source."""

    frames: int = 0  # read
    classified: int = 0  # by the model; the others showed no movement
    events: int = 0  # reported


_Best = tuple[float, Image | None, Box | None]

_NO_FRAME: _Best = (0.0, None, None)


class _Source:
    """State of one source, and the best frame of each label that is visible."""

    def __init__(self, labels: int, rules: Rules) -> None:
        self.gate: MotionGate | None = None
        self.crop: MotionCrop | None = None
        self.tracker = Tracker(labels, rules)
        self.tally = Tally()
        self.visits = 0
        self.prediction: Prediction | None = None
        self.frame: Frame | None = None
        self.best = [_NO_FRAME] * labels


class Events:
    """Detects visits: when a class appears and when it leaves.

        for event in Events(Classifier()).over(camera):
            print(event)          # 2026-11-22T15:04:05Z door cat enter 0.97

    Args:
        model: A `Classifier` with a rejection rule, so that it predicts `neither` for frames
            without its classes: `spec.rejection` is not `None`, or it was made with `reject=`.
            Without one, every frame shows some class.
        rules: Thresholds and times of a visit.
        motion: Run the model only if something has moved since it last ran.
        pictures: Keep the best frame of each visit for `Event.picture`.
        focus: Input of the model. `motion`: the whole frame and a square around the movement at
            full resolution, as a batch of two if the model has a method `batch`; the prediction
            with the higher score is used. `frame`: the whole frame. `none`: every whole frame,
            even without movement, as with `motion=False`.
    """

    def __init__(
        self,
        model: Model,
        rules: Rules | None = None,
        *,
        motion: bool = True,
        pictures: bool = True,
        focus: Literal["motion", "frame", "none"] = "motion",
    ) -> None:
        if focus not in ("motion", "frame", "none"):
            raise ValueError(f"focus must be motion, frame or none, got {focus!r}")
        self.rules = rules or Rules()
        self._model = model
        self._focus = focus if motion else "none"
        self._pictures = pictures
        # Whether the model's own preprocessing returns a resized frame unchanged; not where it
        # crops to another shape.
        blank = np.empty((*model.spec.size, 3), np.uint8)
        again = preprocess(blank, model.spec.resize)
        self._resizes_here = np.may_share_memory(again, blank)
        self._sources: dict[str, _Source] = {}
        self._view: View | None = None

    def over(
        self,
        cameras: Camera | Iterable[Camera],
        *,
        each: Callable[[Frame, View], object] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Event]:
        """Yield events of one or several cameras until all of them have ended.

        Args:
            cameras: Cameras with different names; the caller closes them.
            each: Called with every frame and its `View`.
            stop: When set, all visits end and the iterator stops within 0.25 seconds.

        Raises:
            CameraError: Two cameras have the same name; or a camera failed, raised once all
                others have ended.

        Examples:
            >>> with Camera("visit.mp4") as door, Camera(0) as yard:
            ...     for event in Events(Classifier()).over([door, yard]):
            ...         print(event)
        """
        running = [cameras] if isinstance(cameras, Camera) else list(cameras)
        for name, number in Counter(camera.name for camera in running).items():
            if number > 1:
                raise CameraError(f"two sources are called {name}; name them with NAME=SOURCE")
        wake = threading.Event()
        for camera in running:
            camera.listen(wake.set)
        failure: CameraError | None = None
        while running and not (stop is not None and stop.is_set()):
            wake.clear()
            idle = True
            for camera in list(running):
                frame: Frame | None = None
                over: Reason | None = None
                try:
                    frame = camera.read(timeout=0)
                    over = "ended" if frame is None and camera.ended else None
                except CameraError as error:
                    failure, over = failure or error, "lost"
                if frame is not None:
                    idle = False
                    found = self.feed(frame)
                    if each is not None and self._view is not None:
                        each(frame, self._view)
                    yield from found
                elif over is not None:
                    running.remove(camera)
                    yield from self.finish(camera.name, over)
                elif camera.is_live and self._is_lost(camera.name, time.monotonic()):
                    yield from self.finish(camera.name, "lost")
            if idle and running:
                wake.wait(min(_LONGEST_WAIT, *(camera.due() for camera in running)))
        for camera in running:
            yield from self.finish(camera.name, "stopped")
        if failure is not None:
            raise failure

    def feed(self, frame: Frame) -> list[Event]:
        """Process one frame of any source; return the events that it completes.

        Examples:
            >>> for frame in camera:
            ...     for event in events.feed(frame):
            ...         print(event)
        """
        labels = self._model.spec.labels
        if frame.source not in self._sources:
            self._sources[frame.source] = _Source(len(labels), self.rules)
            self._reset_motion(self._sources[frame.source])
        source = self._sources[frame.source]
        events = []
        if frame.live and self._is_lost(frame.source, frame.monotonic):
            events += self.finish(frame.source, "lost")
        if source.frame is not None and source.frame.image.shape != frame.image.shape:
            source.prediction = None  # its box is in pixels of another size
        source.frame = frame
        source.tally.frames += 1
        prediction, classified = self._classify(source, frame)
        scores = self._scores(source, prediction)
        transitions = source.tracker.update(frame.monotonic, scores)
        # A frame classified as `neither` may prolong a visit, but is never its best frame.
        answered = classified and prediction.label != NEITHER
        # An exit has the best frame of its visit, an enter that of the next visit.
        events += [self._event(source, change) for change in transitions if change.kind == "exit"]
        for label, score in enumerate(scores):
            if not source.tracker.is_seen(label):
                source.best[label] = _NO_FRAME
            elif answered and score > source.best[label][0]:
                image = frame.image if self._pictures else None
                source.best[label] = (score, image, prediction.box)
        events += [self._event(source, change) for change in transitions if change.kind == "enter"]
        present = source.tracker.present
        there = NEITHER if present is None else labels[present]
        smoothed = tuple(map(float, source.tracker.smoothed))
        self._view = View(prediction, classified, there, smoothed)
        return events

    def finish(self, source: str, reason: Reason) -> list[Event]:
        """End the current visit of a source; return its events."""
        known = self._sources.get(source)
        if known is None:
            return []
        events = [self._event(known, change) for change in known.tracker.finish(reason)]
        known.best = [_NO_FRAME] * len(known.best)
        self._reset_motion(known)
        return events

    def tally(self, source: str) -> Tally:
        """Return the counters of a source."""
        known = self._sources.get(source)
        return known.tally if known is not None else Tally()

    def _reset_motion(self, source: _Source) -> None:
        source.prediction = None
        source.gate = MotionGate() if self._focus != "none" else None
        source.crop = MotionCrop(max(self._model.spec.size)) if self._focus == "motion" else None

    def _classify(self, source: _Source, frame: Frame) -> tuple[Prediction, bool]:
        """Return the latest prediction, and whether it is for this frame."""
        spec, gate, crop = self._model.spec, source.gate, source.crop
        # With a motion crop the gate also needs the sides of the frame, which a rule may crop.
        rule = spec.resize if crop is None else squash(*spec.size)
        image = preprocess(frame.image, rule)
        due = gate is None or gate.must_classify(image, frame.monotonic)
        if source.prediction is not None and not due:
            return source.prediction, False
        source.tally.classified += 1
        if rule != spec.resize or not self._resizes_here:
            image = frame.image
        box = None
        if crop is not None and gate is not None:
            height, width = frame.image.shape[:2]
            box = crop.follow(height, width, gate.moved, source.prediction)
        source.prediction = self._answer(image, frame.image, box)
        return source.prediction, True

    def _answer(self, image: Image, whole: Image, box: Box | None) -> Prediction:
        """Classify a frame and a part of it; return the better prediction."""
        if box is None:
            return self._model(image)
        both = [image, crop(whole, box)]
        batch = getattr(self._model, "batch", None)
        first, second = batch(both) if batch is not None else map(self._model, both)
        best = max(first, second, key=lambda one: (one.label != NEITHER, one.certainty))
        return replace(second, box=box) if best is second else first

    def _scores(self, source: _Source, prediction: Prediction) -> list[float]:
        """Return the score of each label for a frame, 0..1.

        A frame classified as `neither` scores 0, except for labels that are already visible:
        these get a reduced score, since a turned head or noise at night may bring the score just
        below the threshold. So rejection has two thresholds, as entering and leaving have.
        """
        if prediction.label != NEITHER:
            return list(prediction.probabilities)
        return [
            value * prediction.nearness if source.tracker.is_seen(label) else 0.0
            for label, value in enumerate(prediction.probabilities)
        ]

    def _is_lost(self, source: str, now: float) -> bool:
        known = self._sources.get(source)
        if known is None or known.frame is None:
            return False
        return now - known.frame.monotonic > self.rules.lost

    def _event(self, source: _Source, change: Transition) -> Event:
        frame = source.frame
        assert frame is not None
        confidence, picture, box = source.best[change.label]
        source.visits += change.kind == "enter"
        source.tally.events += 1
        return Event(
            change.kind,
            self._model.spec.labels[change.label],
            confidence,
            frame.source,
            wall=frame.wall - (frame.monotonic - change.time),
            decided=frame.wall,
            visit=source.visits,
            position=None if frame.live else change.time,
            duration=change.time - change.began if change.kind == "exit" else None,
            reason=change.reason,
            picture=picture,
            box=box,
        )


def state_to_json(source: str, state: State, reason: str, wall: float) -> str:
    """Return one line of JSON for a live source's new state; see `docs/stream.md`."""
    document = {"schema": SCHEMA, "event": "state", "source": source, "state": state.value}
    document |= {"reason": escaped(reason) or None, "time": _iso(wall)}
    return json.dumps(document, ensure_ascii=False)


def _iso(wall: float) -> str:
    moment = datetime.fromtimestamp(wall, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
