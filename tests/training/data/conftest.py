"""A cache of its own for each test of the modules that use it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a-cache"
    monkeypatch.setenv("CATDOG_CACHE", str(folder))
    return folder
