from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import FRAMES, answers

from catdog_edge.runtime.model_file import read_spec
from exporters.formats.ort import write_ort


def test_ort_format_answers_the_same_and_keeps_the_spec(fp32: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.ort"
    write_ort(fp32, path)
    assert path.read_bytes()[4:8] == b"ORTM"
    assert read_spec(path) == read_spec(fp32)
    assert np.abs(answers(path, FRAMES) - answers(fp32, FRAMES)).max() < 1e-5
