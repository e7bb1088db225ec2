"""The instrument: rival calls, warmed up, timed in turns until a budget of time is spent.

Knows calls by name and seconds, nothing of models, pictures or files. The block timer and
the interval of a ratio are those of `exporters.checks.timing`, where an exporter that looks
whether a file is slow opens it once; here rows can be opened anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from exporters.checks.timing import Latencies, Ratio, Timing, compare

QUANTILES = tuple(range(101))
"""The percentiles that are kept of every row, enough to draw its distribution again."""

PASSES = 6
"""How often the rows are opened anew. Two sessions of one file differ by a few percent for as
long as they live, by where their memory came to lie; no number of rounds shows that."""

PAUSE = 0.05
"""Seconds of sleep before a block: ONNX Runtime's threads have stopped spinning by then."""


@dataclass(frozen=True)
class WarmUp:
    """What it took until a call had settled.

    Attributes:
        calls: How many were made.
        seconds: How long they took.
        settled: Whether the running median had settled; otherwise the time was up.
        median: Of the last calls, in seconds.
    """

    calls: int
    seconds: float
    settled: bool
    median: float


@dataclass(frozen=True)
class Summary:
    """One row's calls, in milliseconds.

    Attributes:
        calls: Counted calls.
        p50_ms: The median; the other percentiles likewise.
        p75_ms: See above.
        p90_ms: See above.
        p95_ms: See above.
        p99_ms: See above.
        mean_ms: The mean.
        std_ms: The standard deviation.
        iqr_ms: The distance from the first quartile to the third.
        drift: Distance of the quartiles of the block medians, over their median: how much
            the row's speed wandered from round to round.
        quantiles_ms: The percentiles 0, 1, ..., 100.
        rounds_ms: The median of each block, in the order of the rounds.
    """

    calls: int
    p50_ms: float
    p75_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    std_ms: float
    iqr_ms: float
    drift: float
    quantiles_ms: tuple[float, ...]
    rounds_ms: tuple[float, ...]

    @classmethod
    def of(cls, latencies: Latencies) -> Summary:
        """Summarise the calls of one row."""
        calls = latencies.seconds * 1e3
        blocks = latencies.block_medians * 1e3
        quantiles = np.percentile(calls, QUANTILES)
        low, high = np.percentile(blocks, (25, 75))
        return cls(
            calls=latencies.calls,
            p50_ms=float(quantiles[50]),
            p75_ms=float(quantiles[75]),
            p90_ms=float(quantiles[90]),
            p95_ms=float(quantiles[95]),
            p99_ms=float(quantiles[99]),
            mean_ms=float(calls.mean()),
            std_ms=float(calls.std()),
            iqr_ms=float(quantiles[75] - quantiles[25]),
            drift=float((high - low) / np.median(blocks)),
            quantiles_ms=tuple(round(float(value), 5) for value in quantiles),
            rounds_ms=tuple(round(float(value), 5) for value in blocks),
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Measurement:
    """What `measure` found.

    Attributes:
        timing: All calls of all rows.
        summaries: By row.
        warm_ups: By row.
        ratios: By row, to the row named in `references`.
        references: By row: the row that its ratio is to.
        seconds: How long the measured rounds took.
        block_seconds: How long a block was meant to last.
    """

    timing: Timing
    summaries: Mapping[str, Summary]
    warm_ups: Mapping[str, WarmUp]
    ratios: Mapping[str, Ratio]
    references: Mapping[str, str]
    seconds: float
    block_seconds: float

    @property
    def unsettled(self) -> list[str]:
        """Rows whose time still changed when warming up had to end."""
        return [name for name, warm in self.warm_ups.items() if not warm.settled]


def warm_up(
    call: Callable[[], object],
    *,
    window: int = 5,
    tolerance: float = 0.05,
    max_seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> WarmUp:
    """Call until the running median settles.

    Settled: the median of the last `window` calls is within `tolerance` of the median of the
    `window` calls before them. A call that never settles is given up after `max_seconds` and at
    least three calls, so that a slow first one is not taken for the usual; the caller is told.

    Args:
        call: What to warm up.
        window: Calls per median.
        tolerance: The relative change that still counts as none.
        max_seconds: When to give up.
        clock: Gives seconds; replaced in tests alone.
    """
    taken: list[float] = []
    start = clock()
    while True:
        before = clock()
        call()
        now = clock()
        taken.append(now - before)
        last = float(np.median(taken[-window:]))
        settled = False
        if len(taken) >= 2 * window:
            earlier = float(np.median(taken[-2 * window : -window]))
            settled = abs(last - earlier) <= tolerance * earlier
        if settled or (now - start >= max_seconds and len(taken) >= 3):
            return WarmUp(len(taken), now - start, settled, last)


def measure(
    calls: Mapping[str, Callable[[], object]],
    seconds: float = 60.0,
    *,
    references: Mapping[str, str] | None = None,
    reopen: Callable[[], Mapping[str, Callable[[], object]] | None] | None = None,
    pause: float = PAUSE,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Measurement:
    """Time rival calls in interleaved rounds of blocks until a budget of time is spent.

    The order of the rows turns by one each round. Blocks are as long as lets about twenty
    rounds fit into the budget, 0.02 to 0.3 seconds each: the interval of a ratio comes from
    the rounds, so many short rounds tell more than few long ones. Where the calls are too
    slow for the budget, there are at least four rounds all the same.

    Where rows can be opened anew, there are `PASSES` passes, each on rows of its own, if the
    budget has two rounds for each; see `Timing.ratio` for what the interval makes of it.
    Opening and warming up come on top of the budget, as before the first pass.

    Args:
        calls: A call by name of the row.
        seconds: The budget for the rounds, pauses included; warming up is not in it.
        references: By row, the row that its ratio is to; missing rows are compared with the
            first.
        reopen: Gives the same calls on rows that are opened anew; `None` where that fails,
            and the passes so far are what there is.
        pause: Sleep before each block, in seconds.
        clock: Gives seconds; replaced in tests alone.
        sleep: Takes seconds; replaced in tests alone.

    Raises:
        ValueError: There are no rows, or a reference is none of them.
    """
    if not calls:
        raise ValueError("there is nothing to time")
    first = next(iter(calls))
    against = {name: (references or {}).get(name, first) for name in calls}
    for name, reference in against.items():
        if reference not in calls:
            raise ValueError(f"{name} is to be compared with {reference}, which is not measured")
    warm_ups = _warm_ups(calls, pause, clock, sleep)
    block = min(0.3, max(0.02, seconds / (20 * len(calls)) - pause))
    medians = [warm.median for warm in warm_ups.values()]

    def round_seconds(least: int) -> float:
        return sum(pause + max(block + call, (least + 1) * call) for call in medians)

    min_calls = 3 if round_seconds(3) * 10 <= seconds else 1
    rounds = int(seconds / round_seconds(min_calls))
    passes = PASSES if reopen is not None and rounds >= 2 * PASSES else 1
    min_rounds = min(10, max(4 if passes == 1 else 2, rounds // passes))
    start = clock()
    timings: list[Timing] = []
    for number in range(passes):
        if number:
            assert reopen is not None
            before = clock()
            calls = {}  # what the last pass opened is closed before the next one opens
            opened = reopen()
            if opened is None:
                break
            calls = opened
            del opened
            for name, warm in _warm_ups(calls, pause, clock, sleep).items():
                if not warm.settled:
                    warm_ups[name] = warm
            start += clock() - before  # the first pass was warmed up outside of the time as well
        timings.append(
            compare(
                calls,
                seconds / passes,
                pause=pause,
                block_seconds=block,
                min_calls=min_calls,
                min_rounds=min_rounds,
                warmup_calls=0,
                clock=clock,
                sleep=sleep,
            )
        )
    timing = Timing.joined(timings)
    return Measurement(
        timing=timing,
        summaries={name: Summary.of(row) for name, row in timing.rows.items()},
        warm_ups=warm_ups,
        ratios={name: timing.ratio(name, to=against[name]) for name in against},
        references=against,
        seconds=clock() - start,
        block_seconds=block,
    )


def _warm_ups(
    calls: Mapping[str, Callable[[], object]],
    pause: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> dict[str, WarmUp]:
    found = {}
    for name, call in calls.items():
        sleep(pause)
        found[name] = warm_up(call, clock=clock)
    return found
