from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import FRAMES, answers, named_export, pictures

from catdog_edge.errors import ModelError
from catdog_edge.runtime.model_file import read_spec
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.formats.fp16 import convert_fp16
from exporters.graph.onnx_file import operators, read_model, write_model
from exporters.static_int8 import quantize


@pytest.mark.slow
def test_dynamic_quantizes_linear_layers_and_nothing_else(tmp_path: Path) -> None:
    source = named_export("simple_cnn", tmp_path)
    report = quantize_dynamic(source, tmp_path / "dynamic.onnx")
    assert report.quantized == ("classifier.1", "classifier.3", "classifier.5")
    assert report.share == pytest.approx(0.856, abs=0.001)
    assert report.path.stat().st_size <= 1_200_000 < 3_000_000 < source.stat().st_size
    found = operators(read_model(report.path))
    assert found["MatMulInteger"] == 3
    assert found["Conv"] == 6
    assert "ConvInteger" not in found
    spec = read_spec(report.path)
    assert spec == read_spec(source).replace(precision="int8-dynamic")
    frames = pictures(3, 224)
    assert np.abs(answers(report.path, frames) - answers(source, frames)).max() < 0.02


def test_a_dynamic_answer_depends_on_its_company_and_a_static_one_does_not(
    fp32: Path, tmp_path: Path
) -> None:
    """Why int8 is checked and timed at batch 1."""
    dynamic = quantize_dynamic(fp32, tmp_path / "dynamic.onnx").path
    calibrated = quantize.calibrate(fp32, pictures(40, seed=9))
    still = tmp_path / "static.onnx"
    write_model(quantize.quantize(calibrated), still, calibrated.spec)
    changes = {}
    for path in (dynamic, still):
        alone, together = (answers(path, FRAMES, batch) for batch in (1, len(FRAMES)))
        changes[path] = np.abs(alone - together).max()
    assert changes[dynamic] > 1e-6
    assert changes[still] < 1e-7


def test_a_quantized_file_is_not_quantized_again(fp32: Path, tmp_path: Path) -> None:
    dynamic = quantize_dynamic(fp32, tmp_path / "dynamic.onnx").path
    for again in (
        lambda: quantize_dynamic(dynamic, tmp_path / "twice.onnx"),
        lambda: quantize.calibrate(dynamic, FRAMES),
        lambda: convert_fp16(dynamic, tmp_path / "half.onnx"),
    ):
        with pytest.raises(ModelError, match="int8-dynamic already"):
            again()
