from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the exporters' package is tried with a flavour")

from exporters.checks.timing import STUDENT, Latencies, Rounds, Timing, compare


class Clock:
    """Time that passes only while somebody works or sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.calls: list[str] = []
        self.slowness = 1.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.calls.append("sleep")
        self.now += seconds

    def worker(self, name: str, seconds: float):
        def work() -> None:
            self.calls.append(name)
            self.now += seconds * self.slowness

        return work

    def compare(self, workers: dict[str, float], seconds: float, **options: float) -> Timing:
        candidates = {name: self.worker(name, each) for name, each in workers.items()}
        return compare(candidates, seconds, Rounds(**options), clock=self.read, sleep=self.sleep)


def test_a_call_that_takes_twice_as_long_has_ratio_two() -> None:
    timing = Clock().compare({"fp32": 0.010, "int8": 0.020}, seconds=3.0)
    assert timing.rows["fp32"].p50 == pytest.approx(0.010)
    assert timing.rows["int8"].p95 == pytest.approx(0.020)
    ratio = timing.ratio("int8")
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    assert timing.ratio("fp32", to="int8").value == pytest.approx(0.5)


def test_the_machine_growing_slower_does_not_change_the_ratio() -> None:
    clock = Clock()

    def slow_down(seconds: float) -> None:
        Clock.sleep(clock, seconds)
        clock.slowness *= 1.05  # six times slower after forty blocks

    candidates = {"fp32": clock.worker("fp32", 0.01), "int8": clock.worker("int8", 0.005)}
    timing = compare(candidates, 5.0, Rounds(minimum=20), clock=clock.read, sleep=slow_down)
    assert timing.rows["fp32"].block_medians.max() > 5 * timing.rows["fp32"].block_medians.min()
    assert timing.ratio("int8").value == pytest.approx(0.5, rel=0.06)


def test_blocks_take_turns_with_a_pause_before_each() -> None:
    clock = Clock()
    timing = clock.compare(
        {"a": 0.01, "b": 0.01, "c": 0.01},
        seconds=0.0,
        minimum=3,
        min_calls=2,
        block_seconds=0.0,
        warmup_calls=0,
        pause=0.07,
    )
    blocks = " ".join(clock.calls).split("sleep")[1:]
    # A block is one call that is not counted and two that are.
    assert [block.split() for block in blocks] == [[name] * 3 for name in "abcbcacab"]
    assert clock.slept == [0.07] * 9
    assert timing.rounds == 3
    assert timing.rows["a"].calls == 6


def test_a_block_lasts_as_long_as_asked() -> None:
    timing = Clock().compare(
        {"quick": 0.001, "slow": 0.1}, seconds=0.0, minimum=1, block_seconds=0.05, min_calls=3
    )
    assert timing.rows["quick"].calls == pytest.approx(50, abs=1)
    assert timing.rows["slow"].calls == 3


def test_measuring_goes_on_until_the_time_is_spent() -> None:
    clock = Clock()
    timing = clock.compare({"a": 0.01}, seconds=20.0, minimum=2)
    assert clock.now >= 20.0
    assert timing.rounds > 50


def test_the_interval_covers_the_truth_of_noisy_blocks() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for seed in range(100):
        blocks = np.exp(generator.normal(0, 0.2, 40))
        rows = {
            "a": Latencies(np.ones(1), np.ones(40)),
            "b": Latencies(np.ones(1), 1.3 * blocks),
        }
        ratio = Timing(rows, 40, 0.05).ratio("b", seed=seed)
        assert ratio.low <= ratio.value <= ratio.high
        covered += ratio.low <= 1.3 <= ratio.high
    # 95 of 100 are expected; fewer than 87 or all 100 with no width would be another interval.
    assert 87 <= covered < 100


def test_the_document_has_milliseconds_and_ratios() -> None:
    document = Clock().compare({"fp32": 0.010, "int8": 0.004}, seconds=1.0).to_dict()
    assert document["int8"]["p50_ms"] == pytest.approx(4.0)
    assert document["int8"]["ratio_high"] == pytest.approx(0.4)
    assert document["fp32"]["ratio"] == 1.0


def test_nothing_to_time_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to time"):
        compare({}, 1.0)
    with pytest.raises(ValueError, match="at least 1"):
        compare({"a": lambda: None}, 1.0, Rounds(min_calls=0))


def _pass(generator, effect, rounds=12):
    blocks = 0.010 * (1 + 0.002 * generator.standard_normal(rounds))
    rival = 0.5 * blocks * (1 + effect) * (1 + 0.005 * generator.standard_normal(rounds))
    rows = {"a": Latencies(blocks, blocks), "b": Latencies(rival, rival)}
    return Timing(rows, rounds, 0.05)


@pytest.mark.slow
def test_the_interval_knows_what_differs_from_pass_to_pass():
    generator = np.random.default_rng(5)
    covered = covered_by_rounds = 0
    runs = 150
    for _ in range(runs):
        # Sessions that are opened anew are faster or slower by two percent until they close.
        passes = [_pass(generator, 0.02 * generator.standard_normal()) for _ in range(6)]
        joined = Timing.joined(passes)
        assert joined.rounds == 72
        assert joined.starts == (0, 12, 24, 36, 48, 60)
        ratio = joined.ratio("b")
        covered += ratio.low <= 0.5 <= ratio.high
        rounds = Timing(joined.rows, joined.rounds, 0.05).ratio("b")
        covered_by_rounds += rounds.low <= 0.5 <= rounds.high
    assert covered / runs > 0.9
    assert covered_by_rounds / runs < 0.8  # what made two quiet runs of one command disagree


@pytest.mark.slow
@pytest.mark.parametrize("passes", [2, 3, 4, 5])
def test_few_passes_still_hold_the_truth(passes):
    generator = np.random.default_rng(8)
    runs = 200
    covered = 0
    for _ in range(runs):
        made = [_pass(generator, 0.02 * generator.standard_normal()) for _ in range(passes)]
        ratio = Timing.joined(made).ratio("b")
        covered += ratio.low <= 0.5 <= ratio.high
    assert covered / runs > 0.9


def test_few_passes_that_differ_give_an_interval_above_zero():
    passes = []
    for share in (0.5, 0.6):
        blocks = np.full(4, 0.010)
        rows = {"a": Latencies(blocks, blocks), "b": Latencies(share * blocks, share * blocks)}
        passes.append(Timing(rows, 4, 0.05))
    ratio = Timing.joined(passes).ratio("b")
    assert ratio.value == pytest.approx(0.55)
    assert 0 < ratio.low < 0.5  # its inverse is shown as well
    assert ratio.high > 0.6


def test_passes_of_passes_keep_where_they_began():
    generator = np.random.default_rng(9)
    two = Timing.joined([_pass(generator, 0, 5), _pass(generator, 0, 5)])
    assert Timing.joined([two, _pass(generator, 0, 4)]).starts == (0, 5, 10)


def test_passes_that_agree_give_a_narrow_interval_and_the_mean_of_their_medians():
    generator = np.random.default_rng(6)
    joined = Timing.joined([_pass(generator, 0.0) for _ in range(6)])
    ratio = joined.ratio("b")
    medians = [
        np.median(
            joined.rows["b"].block_medians[at : at + 12]
            / joined.rows["a"].block_medians[at : at + 12]
        )
        for at in joined.starts
    ]
    assert ratio.value == pytest.approx(np.mean(medians))
    assert ratio.high - ratio.low < 0.01


@pytest.mark.parametrize(("degrees", "point"), list(enumerate(STUDENT, 1)))
def test_a_point_of_students_distribution_leaves_out_a_fortieth(degrees: int, point: float) -> None:
    half = (degrees + 1) / 2
    places = np.linspace(0, point, 4001)
    density = (1 + places**2 / degrees) ** -half
    density *= math.gamma(half) / math.gamma(degrees / 2) / math.sqrt(degrees * math.pi)
    inside = float((density[1:] + density[:-1]).mean() / 2 * point)
    assert inside == pytest.approx(0.475, abs=1e-4)
