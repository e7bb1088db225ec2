"""Results by source: shares, intervals, and the lines of the worst."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from catdog_edge.training.evaluation.metrics import wilson
from catdog_edge.training.evaluation.source_report import (
    SourceResult,
    class_results,
    source_lines,
    with_answered,
)


def source(name: str, share: float, left_out: bool = False) -> SourceResult:
    return SourceResult(name, 1000, left_out, (share, share, share), (0.5, 0.4, 0.6))


def test_each_source_has_its_own_shares() -> None:
    names = ["web", "phone", "web", "web"]
    web = np.float32([0.9, 0.5, 0.1])
    found = class_results(np.array([True, False, True, False]), names, ["phone"])
    assert [one.answered for one in found] == [None, None]
    phone, other = with_answered(found, {"web": web, "phone": np.float32([0.2])}, 0.5)
    assert phone == SourceResult("phone", 1, True, (0.0, *wilson(0, 1)), (0.0, *wilson(0, 1)))
    assert other.accuracy == other.answered == (2 / 3, *wilson(2, 3))
    assert (other.name, other.images, other.left_out) == ("web", 3, False)


def test_the_lines_of_sources_are_those_of_the_worst() -> None:
    many = [source(f"s{number}", number / 30) for number in range(21)]
    lines = source_lines(many, "--json")
    assert [line.split()[0] for line in lines[1:-1]] == [f"s{number}" for number in range(10)]
    assert lines[-1] == "the worst 10 of 21 sources; --json has all"
    assert len(source_lines(many[:20], "--json")) == 21
    # Of negatives those are right that are not answered.
    others = [SourceResult(f"car/{n}", 9, False, None, (n / 50, 0, 1)) for n in range(50)]
    never = SourceResult("never", 9, False, None, None)
    known = SourceResult("s", 9, False, (0.105, 0.01, 0.3), None)
    lines = source_lines([never, *others, known], "--json")
    assert [line.split()[0] for line in lines[1:-1]] == [
        *(f"car/{n}" for n in range(49, 44, -1)), "s", *(f"car/{n}" for n in range(44, 40, -1)),
    ]  # fmt: skip
    negative = SourceResult("car/web", 1000, True, None, (0.25, 0.2, 0.3))
    few = source_lines([source("phone", 0.5), negative], "--json")
    assert few == [
        "source   images   top class right, %          answered, %",
        "phone     1,000  50.0 (50.0 to 50.0)  50.0 (40.0 to 60.0)",
        "car/web   1,000                    -  25.0 (20.0 to 30.0)  left out of training",
    ]
