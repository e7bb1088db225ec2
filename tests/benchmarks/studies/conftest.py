"""The studies' comparisons of two short rounds: their figures need not be good here."""

from __future__ import annotations

import pytest

from exporters.checks.timing import compare


@pytest.fixture(autouse=True)
def _quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = compare.__kwdefaults__
    assert defaults is not None
    for name, value in (("pause", 0.0), ("block_seconds", 0.002), ("min_rounds", 2)):
        monkeypatch.setitem(defaults, name, value)
