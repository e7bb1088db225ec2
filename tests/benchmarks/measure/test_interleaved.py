"""The instrument: what it reports about calls whose cost is known."""

from __future__ import annotations

import gc
import time
import weakref
from itertools import cycle

import numpy as np
import pytest

from benchmarks.measure.interleaved import PASSES, Summary, _schedule, measure, warm_up
from exporters.checks.timing import Latencies


class World:
    """A clock that only moves when a call works or somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.log.append("pause")

    def call(self, name, costs):
        steps = cycle(costs)

        def work() -> None:
            self.now += next(steps)
            self.log.append(name)

        return work


def _measure(world: World, calls, seconds, **options):
    return measure(calls, seconds, clock=world.clock, sleep=world.sleep, **options)


def test_ratios_and_percentiles_of_known_costs():
    world = World()
    result = _measure(
        world,
        {"slow": world.call("slow", [0.010]), "fast": world.call("fast", [0.002, 0.003])},
        20.0,
    )
    assert result.ratios["slow"].value == pytest.approx(1.0)
    assert result.ratios["fast"].value == pytest.approx(0.25, abs=0.051)
    assert result.ratios["fast"].low <= result.ratios["fast"].value <= result.ratios["fast"].high
    slow = result.summaries["slow"]
    assert (slow.p50_ms, slow.p99_ms, slow.mean_ms) == pytest.approx((10.0, 10.0, 10.0))
    assert slow.std_ms == pytest.approx(0.0, abs=1e-6)
    assert slow.drift == pytest.approx(0.0, abs=1e-6)
    assert result.unsettled == ["fast"]
    assert result.summaries["fast"].mean_ms == pytest.approx(2.5, abs=0.02)
    assert result.timing.rounds >= 20
    # Three seconds in which the fast one does not settle; a round is finished, never cut.
    assert 23.0 <= world.now < 24.0


def test_rows_take_turns_with_a_pause_before_each_block():
    world = World()
    calls = {name: world.call(name, [0.005]) for name in "ABC"}
    _measure(world, calls, 6.0)
    blocks = [
        name for name, before in zip(world.log[1:], world.log, strict=False) if before == "pause"
    ]
    warm, measured = blocks[:3], blocks[3:]
    assert warm == ["A", "B", "C"]
    assert measured[:9] == ["A", "B", "C", "B", "C", "A", "C", "A", "B"] or measured[:9] == [
        "A", "B", "C", "C", "A", "B", "B", "C", "A",
    ]  # fmt: skip
    assert len(measured) % 3 == 0


def test_a_ratio_is_to_the_row_it_names():
    world = World()
    costs = {"t1": 0.008, "t2": 0.004, "model:t1": 0.004, "model:t2": 0.001}
    calls = {name: world.call(name, [cost]) for name, cost in costs.items()}
    result = _measure(
        world, calls, 8.0, references={"model:t1": "t1", "model:t2": "t2", "t2": "t2"}
    )
    assert result.ratios["model:t1"].value == pytest.approx(0.5)
    assert result.ratios["model:t2"].value == pytest.approx(0.25)
    assert result.references["t1"] == "t1"


def test_rows_are_opened_anew_and_each_opening_has_its_share_of_the_time():
    world = World()
    opened = []

    def open_rows(cost=0.002):
        opened.append(cost)
        return {"slow": world.call("slow", [0.010]), "fast": world.call("fast", [cost])}

    costs = iter([0.0021, 0.0022, 0.0019, 0.0018, 0.0020])
    result = _measure(world, open_rows(), 30.0, reopen=lambda: open_rows(next(costs)))
    assert len(opened) == PASSES
    assert len(result.timing.starts) == PASSES
    assert result.ratios["fast"].value == pytest.approx(0.2, abs=0.001)
    assert result.ratios["fast"].low < 0.19
    assert result.ratios["fast"].high > 0.21
    assert 30.0 <= world.now < 33.0


def test_too_little_time_for_two_rounds_of_each_pass_means_a_single_pass():
    world = World()

    def rows():
        return {"a": world.call("a", [0.4]), "b": world.call("b", [0.2])}

    enough = _measure(world, rows(), 24.0, reopen=rows)
    assert len(enough.timing.starts) == PASSES
    assert np.diff([*enough.timing.starts, enough.timing.rounds]).min() >= 2
    # Calls too slow for three in a block of 0.3 s and twelve rounds of these.
    tight = _measure(world, rows(), 20.0, reopen=rows)
    assert tight.summaries["a"].calls == tight.timing.rounds
    short = _measure(world, rows(), 8.0, reopen=rows)
    assert short.timing.starts == (0,)
    assert short.timing.rounds >= 4


def test_one_slow_first_call_does_not_pass_for_the_usual():
    world = World()
    first = iter([8.0])

    def call() -> None:
        world.now += next(first, 0.003)

    def rows():
        return {"a": call, "b": world.call("b", [0.003])}

    result = _measure(world, rows(), 30.0, reopen=rows)
    assert result.warm_ups["a"].calls >= 3
    assert len(result.timing.starts) == PASSES


def test_rows_that_cannot_be_opened_again_cost_nothing_that_was_measured():
    world = World()

    def rows():
        return {"a": world.call("a", [0.004]), "b": world.call("b", [0.002])}

    answers = iter([rows(), rows(), None])
    result = _measure(world, rows(), 30.0, reopen=lambda: next(answers))
    assert len(result.timing.starts) == 3
    assert result.ratios["b"].value == pytest.approx(0.5)


@pytest.mark.slow
def test_a_pass_is_closed_before_the_next_one_opens():
    world = World()
    alive = weakref.WeakSet()
    most = 0

    class Opened:
        def __call__(self) -> None:
            world.now += 0.002

    def rows():
        nonlocal most
        made = {name: Opened() for name in "ab"}
        gc.collect()
        alive.update(made.values())
        most = max(most, len(alive))
        return made

    # As `time_rows` does it: no name holds what the first pass opened.
    measure(rows(), 20.0, reopen=rows, clock=world.clock, sleep=world.sleep)
    assert most == 2


def test_progress_rises_over_the_passes_to_the_budget():
    world, spent = World(), []

    def rows():
        return {name: world.call(name, [0.01]) for name in "ab"}

    _measure(world, rows(), 20.0, reopen=rows, progress=spent.append)
    assert spent[0] == 0
    assert 19.5 < spent[-1] < 20.5
    # A pass ends with a whole round, and the next one starts at its share of the budget.
    assert min(np.diff(spent)) > -1


@pytest.mark.parametrize(
    ("medians", "seconds", "most", "wanted"),
    [
        ([0.002, 0.002], 60.0, 6, (6, 0.3, 3, 10)),
        ([0.002, 0.002], 60.0, 1, (1, 0.3, 3, 10)),
        ([0.4, 0.2], 8.0, 6, (1, 0.15, 1, 6)),
        ([0.01], 2.0, 6, (6, 0.05, 3, 3)),
        ([2.0, 1.0], 1.0, 6, (1, 0.02, 1, 4)),
    ],
)
def test_a_budget_is_divided_into_passes_rounds_and_blocks(medians, seconds, most, wanted):
    """Passes, seconds of a block, its calls and the least rounds of a pass."""
    assert _schedule(medians, seconds, 0.05, most) == pytest.approx(wanted)


def test_a_budget_too_small_for_slow_calls_still_gives_four_rounds():
    world = World()
    calls = {"a": world.call("a", [2.0]), "b": world.call("b", [1.0])}
    result = _measure(world, calls, 1.0)
    assert result.timing.rounds == 4
    assert result.ratios["b"].value == pytest.approx(0.5)


def test_drift_that_hits_all_rows_alike_leaves_the_ratio_alone():
    world = World()

    def drifting(share):
        def work() -> None:  # the machine slows down to half its speed over the run
            world.now += share * (0.004 + 0.00008 * world.now)

        return work

    result = _measure(world, {"a": drifting(1.0), "b": drifting(0.5)}, 50.0)
    assert result.summaries["a"].drift > 0.2
    assert result.ratios["b"].value == pytest.approx(0.5, rel=0.02)
    assert result.ratios["b"].high - result.ratios["b"].low < 0.02


def test_warm_up_goes_on_until_the_median_settles():
    world = World()
    costs = [0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.02] + [0.01] * 1000
    steady = warm_up(world.call("x", costs), clock=world.clock)
    assert steady.settled
    assert steady.calls >= 15  # five slow, five quick and five that prove it
    assert steady.median == pytest.approx(0.01)
    before = world.now
    restless = warm_up(world.call("y", np.geomspace(0.001, 1.0, 60)), clock=world.clock)
    assert not restless.settled
    assert 3.0 <= restless.seconds < 3.0 + 1.0  # the call that exceeds the timeout is the last
    assert restless.seconds == pytest.approx(world.now - before)


def test_summary_keeps_enough_to_draw_the_distribution_again():
    rng = np.random.default_rng(0)
    seconds = rng.gamma(9.0, 0.001, size=5000)
    summary = Summary.of(Latencies(seconds, np.full(10, np.median(seconds))))
    assert len(summary.quantiles_ms) == 101
    assert summary.quantiles_ms[50] == pytest.approx(summary.p50_ms, abs=1e-4)
    assert summary.quantiles_ms[0] == pytest.approx(seconds.min() * 1e3, abs=1e-4)
    assert summary.iqr_ms == pytest.approx(
        summary.quantiles_ms[75] - summary.quantiles_ms[25], abs=1e-3
    )
    assert summary.calls == 5000


def test_real_calls_are_measured_by_the_real_clock():
    # Sleeps of 4 ms and 2 ms: whatever the machine does, a sleep is never shorter.
    result = measure({"a": lambda: time.sleep(0.004), "b": lambda: time.sleep(0.002)}, 1.0)
    assert min(result.summaries["a"].quantiles_ms) >= 4.0
    assert min(result.summaries["b"].quantiles_ms) >= 2.0
    assert result.ratios["b"].value < 1.0
