"""Interleaved timing of rival calls: `exporters.checks.timing` after warming up, in passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from exporters.checks.timing import Latencies, Ratio, Rounds, Timing, compare

Calls = Mapping[str, Callable[[], object]]  # a call by name of the row

PASSES = 6
"""How often the rows are opened. Two sessions of one file differ by a few percent for as long as
they live, because of where their memory lies; no number of rounds shows that."""

PAUSE = 0.05  # seconds of sleep before a block: ONNX Runtime's threads stop spinning by then

# Of warming up: calls per median, largest relative change that counts as settled, seconds.
WINDOW, TOLERANCE, WARM_UP_TIMEOUT = 5, 0.05, 3.0


@dataclass(frozen=True)
class WarmUp:
    """The calls until the running median settled; `median` is that of the last ones, in seconds."""

    calls: int
    seconds: float
    settled: bool
    median: float


@dataclass(frozen=True)
class Summary:
    """One row's calls in milliseconds; see `latency` in docs/bench-json.md."""

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
        """Summarize the calls of one row."""
        calls, blocks = latencies.seconds * 1e3, latencies.block_medians * 1e3
        quantiles = np.percentile(calls, np.arange(101)).tolist()
        low, high = np.percentile(blocks, (25, 75))
        return cls(
            calls=latencies.calls,
            **{f"p{share}_ms": quantiles[share] for share in (50, 75, 90, 95, 99)},
            mean_ms=float(calls.mean()),
            std_ms=float(calls.std()),
            iqr_ms=quantiles[75] - quantiles[25],
            drift=float((high - low) / np.median(blocks)),
            quantiles_ms=tuple(round(value, 5) for value in quantiles),
            rounds_ms=tuple(round(float(value), 5) for value in blocks),
        )


@dataclass(frozen=True)
class Measurement:
    """The result of `measure`: all calls, and by row their summary, warm-up and ratio.

    A ratio is to the row named in `references`; a block was to last `block_seconds`.
    """

    timing: Timing
    warm_ups: Mapping[str, WarmUp]
    references: Mapping[str, str]
    block_seconds: float

    @cached_property
    def summaries(self) -> Mapping[str, Summary]:
        """By row, its calls in milliseconds."""
        return {name: Summary.of(row) for name, row in self.timing.rows.items()}

    @cached_property
    def ratios(self) -> Mapping[str, Ratio]:
        """By row, how many times as long it takes as its reference."""
        return {name: self.timing.ratio(name, to) for name, to in self.references.items()}

    @property
    def unsettled(self) -> list[str]:
        """Rows whose time still changed when warming up had to end."""
        return [name for name, warm in self.warm_ups.items() if not warm.settled]

    @property
    def drifts(self) -> list[tuple[str, float]]:
        """By row, how much its time wandered from round to round."""
        return [(name, summary.drift) for name, summary in self.summaries.items()]


def warm_up(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> WarmUp:
    """Call until the running median settles, or a timeout is over and three calls are made.

    Settled: the median of the last `WINDOW` calls is within `TOLERANCE` of the median of the
    `WINDOW` calls before them. Three calls: a slow first one is not taken for the usual one.
    """
    taken: list[float] = []
    start = clock()
    while True:
        before = clock()
        call()
        now = clock()
        taken.append(now - before)
        last = float(np.median(taken[-WINDOW:]))
        settled = False
        if len(taken) >= 2 * WINDOW:
            earlier = float(np.median(taken[-2 * WINDOW : -WINDOW]))
            settled = abs(last - earlier) <= TOLERANCE * earlier
        if settled or (now - start >= WARM_UP_TIMEOUT and len(taken) >= 3):
            return WarmUp(len(taken), now - start, settled, last)


def measure(
    calls: Calls,
    seconds: float = 60.0,
    *,
    references: Mapping[str, str] | None = None,
    reopen: Callable[[], Calls | None] | None = None,
    progress: Callable[[float], object] = lambda _: None,
    pause: float = PAUSE,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Measurement:
    """Time rival calls in interleaved rounds of blocks until a time budget is spent.

    The order of the rows rotates by one each round. With `reopen` there are `PASSES` passes, each
    on reopened rows, if the budget has two rounds for each; see `Timing.ratio` for the
    interval. Opening and warming up are not part of the budget.

    Args:
        calls: The rows.
        seconds: The budget for the rounds, pauses included.
        references: By row, the row that its ratio is to; default: the first.
        reopen: Opens the same rows again, or returns `None`: then the passes so far count.
        progress: Called between blocks with the seconds of the budget that are spent.
        pause: Seconds of sleep before each block.
        clock: Returns seconds; replaced in tests, as is `sleep`.
        sleep: Takes seconds.

    Examples:
        >>> found = measure({"ours": lambda: model(frame), "theirs": lambda: other(frame)}, 10.0)
        >>> found.ratios["theirs"]
        Ratio(value=2.1, low=2.0, high=2.2)
    """
    against = {name: (references or {}).get(name, next(iter(calls))) for name in calls}
    warm = partial(_warm_up_all, pause=pause, clock=clock, sleep=sleep)
    warm_ups = warm(calls)
    medians = [one.median for one in warm_ups.values()]
    passes, block, least, rounds = _schedule(medians, seconds, pause, PASSES if reopen else 1)
    divided = Rounds(pause, block, least, rounds, warmup_calls=0)
    timed = partial(compare, seconds=seconds / passes, rounds=divided, clock=clock, sleep=sleep)
    timings: list[Timing] = []

    def time_pass(calls: Calls) -> None:
        spent = seconds * len(timings) / passes
        timings.append(timed(calls, progress=lambda taken: progress(spent + taken)))

    time_pass(calls)
    while reopen is not None and len(timings) < passes:
        calls = {}  # closes the rows of the last pass before the next ones open
        calls = reopen() or {}
        if not calls:
            break
        warm_ups |= {name: one for name, one in warm(calls).items() if not one.settled}
        time_pass(calls)
    return Measurement(Timing.joined(timings), warm_ups, against, block)


def _warm_up_all(
    calls: Calls, *, pause: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> dict[str, WarmUp]:
    found = {}
    for name, call in calls.items():
        sleep(pause)
        found[name] = warm_up(call, clock)
    return found


def _schedule(
    medians: Sequence[float], seconds: float, pause: float, most_passes: int
) -> tuple[int, float, int, int]:
    """Choose passes, seconds of a block, its calls and the rounds of a pass.

    Blocks of 0.02 to 0.3 s, so that about twenty rounds fit: many short ones tell more than few
    long ones. Calls too slow for the budget still get four rounds.
    """
    block = min(0.3, max(0.02, seconds / (20 * len(medians)) - pause))

    def round_seconds(calls: int) -> float:
        return sum(pause + max(block + call, (calls + 1) * call) for call in medians)

    calls = 3 if round_seconds(3) * 10 <= seconds else 1
    rounds = int(seconds / round_seconds(calls))
    passes = most_passes if rounds >= 2 * most_passes else 1
    return passes, block, calls, min(10, max(4 if passes == 1 else 2, rounds // passes))
