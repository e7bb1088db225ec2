"""From probabilities over time to visits: a pet came, a pet left. Pure arithmetic.

Knows neither frames, clocks nor models: it is told a time and the evidence for each label,
and gives the same answers for the same input whenever it is asked. `docs/stream.md` draws it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FORGOTTEN = 0.1
"""Smoothed evidence below which earlier sightings of a label no longer count as its start."""

Reason = Literal["left", "changed", "lost", "ended", "stopped"]


@dataclass(frozen=True)
class Rules:
    """When a pet counts as come and gone.

    Attributes:
        smoothing: Time constant of the average over time, seconds.
        enter: Smoothed evidence from which a label may enter, 0..1.
        leave: Smoothed evidence below which it may leave, 0..1, at most `enter`. A single
            frame speaks for a label from here on, too.
        minimum: Seconds that a pet must have been in sight to count.
        absence: Seconds that it must have been out of sight to be gone.
        lost: Seconds without a frame of a live source after which a visit is ended.
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
            raise ValueError(
                f"wanted 0 < leave <= enter <= 1, got leave {self.leave} and enter {self.enter}"
            )


@dataclass(frozen=True)
class Change:
    """A visit began or ended.

    Attributes:
        kind: `enter` or `exit`.
        label: Number of the label.
        time: When it happened, which is before it was certain.
        began: When the visit began.
        reason: Why it ended.
    """

    kind: Literal["enter", "exit"]
    label: int
    time: float
    began: float
    reason: Reason | None = None


class Tracker:
    """The visits of one source; one label at a time, nothing in between.

    Args:
        labels: How many labels there are.
        rules: See `Rules`.
    """

    def __init__(self, labels: int, rules: Rules) -> None:
        self._rules = rules
        self._smoothed = np.zeros(labels)
        self._sighted: list[float | None] = [None] * labels
        self._time: float | None = None
        self._present: int | None = None
        self._began = 0.0
        self._gone_since: float | None = None
        self._left = -math.inf

    @property
    def present(self) -> int | None:
        """The label that is there."""
        return self._present

    @property
    def smoothed(self) -> npt.NDArray[np.float64]:
        """Smoothed evidence of each label, 0..1."""
        return self._smoothed

    def sighted(self, label: int) -> float | None:
        """Since when a label has been seen, certain or not; none if it is not seen."""
        return self._sighted[label]

    def update(self, time: float, evidence: Sequence[float]) -> list[Change]:
        """Take the evidence of one frame.

        Args:
            time: Seconds, never falling.
            evidence: Per label 0..1: its probability; all 0 where the frame shows neither.
        """
        rules = self._rules
        step = 0.0 if self._time is None else max(0.0, time - self._time)
        self._time = time
        weight = -math.expm1(-step / rules.smoothing) if rules.smoothing else 1.0
        self._smoothed += weight * (np.asarray(evidence, float) - self._smoothed)
        for label, value in enumerate(evidence):
            if value >= rules.leave:
                if self._sighted[label] is None:
                    self._sighted[label] = time
            elif self._smoothed[label] < FORGOTTEN and label != self._present:
                self._sighted[label] = None
        if self._present is None:
            return self._enter(time)
        seen = evidence[self._present] >= rules.leave
        if seen:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = time
        if self._gone_since is None or self._smoothed[self._present] >= rules.leave:
            return []
        left = self._gone_since
        follower = self._certain(time)
        if follower is not None:
            return [self._exit(left, "changed"), *self._enter(time)]
        if time - left >= rules.absence:
            return [self._exit(left, "left")]
        return []

    def finish(self, reason: Reason) -> list[Change]:
        """End the visit that is under way: no further frame is known."""
        if self._present is None or self._time is None:
            self._forget()
            return []
        left = self._time if self._gone_since is None else self._gone_since
        change = self._exit(left, reason)
        self._forget()
        return [change]

    def _forget(self) -> None:
        self._smoothed[:] = 0
        self._sighted = [None] * len(self._sighted)
        self._time = None

    def _certain(self, time: float) -> int | None:
        """The label that may enter now."""
        label = int(np.argmax(self._smoothed))
        sighted = self._sighted[label]
        if label == self._present or sighted is None or self._smoothed[label] < self._rules.enter:
            return None
        return label if time - sighted >= self._rules.minimum else None

    def _enter(self, time: float) -> list[Change]:
        label = self._certain(time)
        if label is None:
            return []
        sighted = self._sighted[label]
        assert sighted is not None
        # It may have been sighted while the one before it was still there.
        self._present, self._began, self._gone_since = label, max(sighted, self._left), None
        return [Change("enter", label, self._began, self._began)]

    def _exit(self, time: float, reason: Reason) -> Change:
        label = self._present
        assert label is not None
        self._left = max(time, self._began)
        change = Change("exit", label, self._left, self._began, reason)
        self._present, self._gone_since, self._sighted[label] = None, None, None
        return change
