"""Fixtures of several files of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A second provider that really starts: ordinary builds of onnxruntime have this one."""
    import onnxruntime

    from catdog_edge.runtime.providers import selection, start

    name = "AzureExecutionProvider"
    if name not in onnxruntime.get_available_providers():
        pytest.skip(f"this build has no {name}")
    monkeypatch.setitem(start.NAMES, "azure", name)
    monkeypatch.setattr(selection, "AUTO", ("azure",))
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    return name
