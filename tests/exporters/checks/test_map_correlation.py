"""How alike two files' heat maps are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting needs torch; install [train]")
pytest.importorskip("onnx", reason="exporting needs onnx; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import FRAMES

from exporters.checks import map_correlation
from exporters.graph.add_heat_map import add_heat_map


def test_a_file_correlates_with_itself_on_images_of_all_parts(
    fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shutil.copy(fp32, tmp_path / "model.onnx")
    add_heat_map(file)
    monkeypatch.setattr(map_correlation, "MOST", 5)
    found = map_correlation.map_correlation(file, file, FRAMES[:12])
    assert found.images == 4
    assert (found.median, found.lowest) == pytest.approx((1, 1))
    values = [0.0, *[1.0] * 3]
    monkeypatch.setattr(map_correlation, "_pearson", lambda *maps: values.pop())
    found = map_correlation.map_correlation(file, file, FRAMES[:12])
    assert (found.median, found.lowest) == pytest.approx((1, 0.15))


def test_pearsons_correlation() -> None:
    one, other = np.float32([[0, 1], [2, 4]]), np.float32([[1, 0], [5, 3]])
    wanted = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert map_correlation._pearson(one, other) == pytest.approx(wanted)
    assert map_correlation._pearson(one, np.float32([[2, 2], [2, 2]])) == 0
