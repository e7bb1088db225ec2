from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="files are made with torch; install [train]")
pytest.importorskip("onnx", reason="files are made with onnx; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import pictures, spec_for, trained

from catdog_edge.errors import ModelError
from exporters.checks.predictors import OnnxPredictor, open_predictor
from exporters.formats.torch_export import export_onnx
from exporters.graph.onnx_file import read_model, write_model

FRAMES = pictures(18)


@pytest.mark.slow
def test_int8_is_asked_image_by_image_and_a_fixed_batch_is_filled_up(
    fp32: Path, tmp_path: Path
) -> None:
    sizes = []
    model = OnnxPredictor(fp32)
    expected = model.predict(FRAMES).probabilities

    class Session:
        def run(self, names, feed):
            sizes.append(len(feed["frames"]))
            return honest.run(names, feed)

    honest, model.session = model.session, Session()
    assert np.abs(model.predict(FRAMES).probabilities - expected).max() < 1e-6
    assert sizes == [16, 2]
    model.spec = model.spec.replace(precision="int8-static")
    model.predict(FRAMES[:3])
    assert sizes[2:] == [1, 1, 1]
    network, spec = trained()
    fixed = OnnxPredictor(export_onnx(network, spec, tmp_path / "fixed.onnx", batch=4).path)
    found = fixed.predict(FRAMES[:6]).probabilities
    assert np.abs(found - expected[:6]).max() < 1e-6


def test_a_graph_that_its_spec_does_not_describe_is_refused(fp32: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    spec = OnnxPredictor(fp32).spec
    for wrong in (
        spec.replace(layout="nchw-float"),
        spec.replace(labels=("a", "b")),
        spec_for(size=64),
    ):
        write_model(read_model(fp32), other, wrong)
        with pytest.raises(ModelError, match="its graph is not what its spec says"):
            open_predictor(other)
