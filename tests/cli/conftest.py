"""Fixtures of several files of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two cats, a dog below, a text file; the current folder."""
    from support.commands.predict_command import BLUE, RED, paint

    paint(tmp_path / "a.png", RED)
    paint(tmp_path / "b.JPG", RED)
    paint(tmp_path / "below" / "c.png", BLUE)
    (tmp_path / "notes.txt").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path
