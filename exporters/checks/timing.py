"""Time calls interleaved, robust to other load on the machine.

Candidates are interleaved in blocks of calls with a pause before each: ONNX Runtime's threads keep
spinning for a while after a call, so two sessions that alternate call by call slow each other down
two to four times. Slow drift (clock rate, other load) affects whole rounds and cancels in the
ratio of blocks of one round.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from catdog_edge.runtime.providers.selection import time_block
from catdog_edge.training.array_types import Float64

RESAMPLES = 4000  # bootstrap resamples behind an interval

DRAWABLE = 5
"""Minimum number of passes to resample: with fewer, the percentiles needed are beyond what
resamples can show (with two, the interval would include the true ratio in 61 % of cases)."""

STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % point of Student's t with 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class Ratio:
    """Time of a candidate relative to the first one; below 1 it is faster.

    The value is the median over rounds of (median call of its block / median call of the first
    candidate's block in the same round); over several passes, the mean of theirs.
    """

    value: float
    low: float  # lower end of the 95 % bootstrap interval, see `Timing.ratio`
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Latencies:
    """The calls of one candidate."""

    seconds: Float64  # `[calls]`, every counted call in the order it was made
    block_medians: Float64  # `[rounds]`, the median call of each block, in seconds

    @property
    def calls(self) -> int:
        """Number of counted calls."""
        return int(self.seconds.size)

    @property
    def p50(self) -> float:
        """The median call, in seconds."""
        return float(np.median(self.seconds))

    @property
    def p95(self) -> float:
        """The 95th percentile of the calls, in seconds."""
        return float(np.percentile(self.seconds, 95))


@dataclass(frozen=True)
class Timing:
    """The result of `compare`.

    Each pass opens the candidates again, since memory layout only differs between passes.
    """

    rows: Mapping[str, Latencies]  # by candidate, in the order given; the first is the baseline
    rounds: int  # number of rounds
    pause: float  # seconds of sleep before each block
    starts: tuple[int, ...] = (0,)  # the rounds with which a pass begins, counted from 0

    @classmethod
    def joined(cls, passes: Sequence[Timing]) -> Timing:
        """Join several passes over the same candidates."""
        begins = itertools.accumulate((one.rounds for one in passes[:-1]), initial=0)
        return cls(
            rows={
                name: Latencies(
                    np.concatenate([one.rows[name].seconds for one in passes]),
                    np.concatenate([one.rows[name].block_medians for one in passes]),
                )
                for name in passes[0].rows
            },
            rounds=sum(one.rounds for one in passes),
            pause=passes[0].pause,
            starts=tuple(
                at + start for at, one in zip(begins, passes, strict=True) for start in one.starts
            ),
        )

    def ratio(self, name: str, to: str | None = None, seed: int = 0) -> Ratio:
        """Return the time of `name` relative to `to`, by default the first candidate.

        The interval is a bootstrap over passes, then rounds within each, with the 95 % percentile
        interval expanded for the small number of passes (Hesterberg: What Teachers Should Know
        About the Bootstrap, 2015, "expanded percentile interval"). With two to four passes it is
        Student's interval of the logarithms of their medians; with a single pass, the bootstrap
        is over its rounds.
        """
        yardstick = self.rows[to or next(iter(self.rows))]
        blocks = self.rows[name].block_medians / yardstick.block_medians
        generator = np.random.default_rng(seed)
        passes = np.split(blocks, self.starts[1:])
        values = np.array([np.median(one) for one in passes])
        value = float(values.mean())
        if 1 < len(passes) < DRAWABLE:
            # Of the logarithms: they are unbounded, and symmetric for a ratio and its inverse.
            logs = np.log(values)
            margin = _student(len(passes)) * float(logs.std(ddof=1)) / math.sqrt(len(passes))
            low, high = (math.exp(float(logs.mean()) + sign * margin) for sign in (-1, 1))
            return Ratio(value, min(low, value), max(high, value))
        # A pass that is drawn twice is drawn with other rounds each time.
        shape = (RESAMPLES, len(passes))
        places = [generator.integers(0, one.size, (*shape, one.size)) for one in passes]
        medians = np.stack([np.median(a[b], 2) for a, b in zip(passes, places, strict=True)])
        drawn = generator.integers(0, len(passes), shape)
        means = medians[drawn, np.arange(RESAMPLES)[:, None], np.arange(len(passes))].mean(axis=1)
        outside = 0.025  # the share of the resamples that is left out on each side
        if len(passes) > 1:
            wider = _student(len(passes)) * math.sqrt(len(passes) / (len(passes) - 1))
            outside = NormalDist().cdf(-wider)
        low, high = np.percentile(means, (100 * outside, 100 * (1 - outside)))
        # Few passes and far percentiles: the value itself is always inside.
        return Ratio(value, min(float(low), value), max(float(high), value))

    def to_dict(self) -> dict[str, Any]:
        """Convert to types of JSON: milliseconds and ratios by candidate."""
        document: dict[str, Any] = {"rounds": self.rounds, "pause_ms": self.pause * 1e3}
        for name, row in self.rows.items():
            ratio = self.ratio(name)
            document[name] = {
                "calls": row.calls,
                "p50_ms": row.p50 * 1e3,
                "p95_ms": row.p95 * 1e3,
                "mean_ms": float(row.seconds.mean()) * 1e3,
                "ratio": ratio.value,
                "ratio_low": ratio.low,
                "ratio_high": ratio.high,
            }
        return document


def _student(passes: int) -> float:
    return STUDENT[min(passes - 1, len(STUDENT)) - 1]


@dataclass(frozen=True)
class Rounds:
    """How `compare` divides its time."""

    pause: float = 0.05  # seconds of sleep before each block
    block_seconds: float = 0.15  # a block is at least as long
    min_calls: int = 3  # and has so many counted calls
    minimum: int = 10  # rounds, also where the time is over
    warmup_calls: int = 3  # of each candidate, before the first round


def compare(
    candidates: Mapping[str, Callable[[], object]],
    seconds: float = 5.0,
    rounds: Rounds | None = None,
    *,
    progress: Callable[[float], object] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Timing:
    """Time candidates in interleaved blocks of calls; the first is the baseline.

    Every round has one block per candidate: a pause, then a `time_block`. The order rotates by one
    each round, so that no candidate always follows the same one. Rounds continue until `seconds`
    have passed, including pauses. `progress` is called before each pause with the elapsed
    seconds; tests replace `clock` and `sleep`.
    """
    rounds = rounds or Rounds()
    if not candidates or min(rounds.min_calls, rounds.minimum) < 1:
        raise ValueError("there is nothing to time, or a count is not at least 1")
    names = list(candidates)
    for call in candidates.values():
        for _ in range(rounds.warmup_calls):
            call()
    calls: dict[str, list[float]] = {name: [] for name in names}
    medians: dict[str, list[float]] = {name: [] for name in names}
    end = (start := clock()) + seconds
    made = 0
    while made < rounds.minimum or clock() < end:
        turn = made % len(names)
        for name in names[turn:] + names[:turn]:
            progress(clock() - start)
            sleep(rounds.pause)
            block = time_block(candidates[name], rounds.block_seconds, rounds.min_calls, clock)
            calls[name].extend(block)
            medians[name].append(float(np.median(block)))
        made += 1
    rows = {name: Latencies(np.array(calls[name]), np.array(medians[name])) for name in names}
    return Timing(rows, made, rounds.pause)
