"""The studies' comparisons of two short rounds: their figures need not be good here."""

from __future__ import annotations

import pytest

from exporters.checks.timing import Rounds


@pytest.fixture(autouse=True)
def _quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    pause, block_seconds, min_calls, minimum, warmup_calls = 0.0, 0.002, 3, 2, 3
    quick = (pause, block_seconds, min_calls, minimum, warmup_calls)
    monkeypatch.setattr(Rounds.__init__, "__defaults__", quick)
