from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from support.models.tiny_nets import LABELS, answers, pictures, settle, spec_for

from catdog_edge.runtime.model_file import read_spec
from catdog_edge.training.models.registry import architecture
from exporters.checks.predictors import open_session
from exporters.formats.fp16 import convert_fp16, pack_weights
from exporters.formats.torch_export import export_onnx


@pytest.mark.parametrize("layout", ["nhwc-uint8", "nchw-float"])
def test_half_is_half_the_size_and_close(layout: str, tmp_path: Path) -> None:
    arch = architecture("edge_cnn")
    torch.manual_seed(0)
    spec = spec_for(arch.normalization, LABELS, arch.size, "edge_cnn")
    frames = pictures(6, arch.size)
    network = settle(arch.build(3), spec, frames)
    source = export_onnx(network, spec, tmp_path / "model.onnx", layout=layout).path
    path = tmp_path / "half.onnx"
    convert_fp16(source, path)
    assert path.stat().st_size < 0.52 * source.stat().st_size
    found, expected = answers(path, frames), answers(source, frames)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 1e-2
    session = open_session(path)
    assert session.get_inputs()[0].type == open_session(source).get_inputs()[0].type
    assert read_spec(path).precision == "fp16"

    packed = tmp_path / "packed.onnx"
    pack_weights(path, packed)
    assert packed.stat().st_size < 0.56 * path.stat().st_size
    assert np.abs(answers(packed, frames) - found).max() < 2e-2
    assert read_spec(packed).precision == "fp16"
    # onnxruntime multiplies the weights out as it loads the file, not at every call.
    optimized = tmp_path / "optimized.onnx"
    open_session(packed, optimized=optimized)
    nodes = onnx.load(optimized).graph.node
    assert not [node for node in nodes if any(".int8" in name for name in node.input)]
