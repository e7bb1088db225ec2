"""The study of `predict --out` runs on photographs of any size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.images.image_sets import images, write
from support.paths import TINY

from benchmarks.studies import bulk_predict

pytestmark = pytest.mark.train


@pytest.mark.slow
def test_every_rival_has_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shots, kept = write(tmp_path / "shots", images("cat", count=6)), tmp_path / "figures.json"
    options = ["--data", str(shots), "--model", str(TINY), "--memory-passes", "2"]
    assert bulk_predict.main([*options, "--seconds", "0.1", "--json", str(kept)]) == 0
    figures = json.loads(kept.read_text())
    rivals = ("plain loop", "predict --out", "predict --out --reduce", "decoder alone")
    assert all(figures["timing"][rival]["p50_ms"] > 0 for rival in rivals)
    assert len(figures["resident_mb"]) == 2
    assert "of the decoder's rate" in capsys.readouterr().out
    assert bulk_predict.main(["--data", str(tmp_path / "none")]) == 1
