"""Turn probabilities over time into visits: a deterministic state machine.

`docs/stream.md` has a diagram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

FORGOTTEN = 0.1
"""Smoothed score below which earlier sightings of a label no longer count as its start."""

Reason = Literal["left", "changed", "lost", "ended", "stopped"]


@dataclass(frozen=True)
class Rules:
    """Thresholds and times of a visit.

    Attributes:
        smoothing: Time constant of the smoothed score, seconds.
        enter: Entry threshold of the smoothed score, 0..1.
        leave: Exit threshold of the smoothed score, 0..1, at most `enter`. It is also the score
            from which a single frame shows a label.
        minimum: Shortest visit that is reported, seconds.
        absence: Shortest absence that ends a visit, seconds.
        lost: Seconds without a frame of a live source after which a visit ends.

    Examples:
        >>> Events(model, Rules(enter=0.8, absence=2.0))
    """

    smoothing: float = 0.3
    enter: float = 0.6
    leave: float = 0.4
    minimum: float = 0.3
    absence: float = 0.5
    lost: float = 10.0

    def __post_init__(self) -> None:
        for name in ("smoothing", "minimum", "absence", "lost"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 seconds or more, got {value}")
        if not 0 < self.leave <= self.enter <= 1:
            got = f"leave {self.leave} and enter {self.enter}"
            raise ValueError(f"expected 0 < leave <= enter <= 1, got {got}")


@dataclass(frozen=True)
class Transition:
    """The start or end of a visit."""

    kind: Literal["enter", "exit"]
    label: int  # its index
    time: float  # when it happened; earlier than it was detected
    began: float  # when the visit started
    reason: Reason | None = None  # why it ended


class Tracker:
    """The visits of one source: one of `labels` labels at a time, never overlapping."""

    def __init__(self, labels: int, rules: Rules) -> None:
        self.present: int | None = None  # the label of the current visit
        self.smoothed = np.zeros(labels)  # score of each, 0..1
        self._rules = rules
        self._seen_since: list[float | None] = [None] * labels
        self._time: float | None = None
        self._began = 0.0
        self._gone_since: list[float | None] = [None] * labels
        self._left = -math.inf

    def is_seen(self, label: int) -> bool:
        """Check whether a label is visible, confirmed or not."""
        return self._seen_since[label] is not None

    def update(self, time: float, scores: Sequence[float]) -> list[Transition]:
        """Process the scores of one frame.

        Args:
            time: Seconds, never decreasing.
            scores: Probability of each label, 0..1; all 0 for a frame of `neither`.
        """
        rules = self._rules
        step = 0.0 if self._time is None else max(0.0, time - self._time)
        self._time = time
        weight = -math.expm1(-step / rules.smoothing) if rules.smoothing else 1.0
        self.smoothed += weight * (np.asarray(scores, float) - self.smoothed)
        for label, score in enumerate(scores):
            if score >= rules.leave:
                self._gone_since[label] = None
                if self._seen_since[label] is None:
                    self._seen_since[label] = time
                continue
            if (gone := self._gone_since[label]) is None:
                gone = self._gone_since[label] = time
            # What would have ended a visit ends what was no visit yet.
            absent = self.smoothed[label] < rules.leave and time - gone >= rules.absence
            if label != self.present and (absent or self.smoothed[label] < FORGOTTEN):
                self._seen_since[label] = None
        if self.present is None:
            return self._enter(time)
        left = self._gone_since[self.present]
        if left is None or self.smoothed[self.present] >= rules.leave:
            return []
        if self._entering(time) is not None:
            return [self._exit(left, "changed"), *self._enter(time)]
        return [self._exit(left, "left")] if time - left >= rules.absence else []

    def finish(self, reason: Reason) -> list[Transition]:
        """End the current visit and reset the tracker."""
        transitions = []
        if self.present is not None and self._time is not None:
            gone = self._gone_since[self.present]
            transitions.append(self._exit(self._time if gone is None else gone, reason))
        self.smoothed[:] = 0
        self._seen_since = [None] * len(self._seen_since)
        self._gone_since = [None] * len(self._gone_since)
        self._time = None
        self._left = -math.inf  # the times of the next recording begin at 0 again
        return transitions

    def _entering(self, time: float) -> tuple[int, float] | None:
        """Return the label that may enter now, and since when it has been visible."""
        label = int(np.argmax(self.smoothed))
        since = self._seen_since[label]
        if label == self.present or since is None or self.smoothed[label] < self._rules.enter:
            return None
        return (label, since) if time - since >= self._rules.minimum else None

    def _enter(self, time: float) -> list[Transition]:
        entering = self._entering(time)
        if entering is None:
            return []
        label, since = entering
        # It may have been seen while the one before it was still there.
        self.present, self._began = label, max(since, self._left)
        return [Transition("enter", label, self._began, self._began)]

    def _exit(self, time: float, reason: Reason) -> Transition:
        label = self.present
        assert label is not None
        self._left = max(time, self._began)
        self.present, self._seen_since[label] = None, None
        return Transition("exit", label, self._left, self._began, reason)
