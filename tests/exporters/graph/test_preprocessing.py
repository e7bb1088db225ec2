"""Preprocessing in the graph, folded into the first convolution where that is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="exporting needs onnx; install [train]")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from support.models.tiny_nets import (
    TinyNet,
    answers,
    pictures,
    spec_for,
    unsettle,
)

from catdog_edge.spec import Normalization
from catdog_edge.training.evaluation.inference import logits, probabilities
from catdog_edge.training.models.registry import CENTRED, IMAGENET, UNIT_RANGE
from exporters.checks.predictors import OnnxPredictor
from exporters.formats.torch_export import export_onnx

LAYOUTS = ("nhwc-uint8", "nchw-float")


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(
    ("normalization", "folded"),
    [
        (UNIT_RANGE, {0: True, 1: True}),
        (CENTRED, {0: True, 1: True}),
        (IMAGENET, {0: True, 1: False}),  # its mean is no grey level: no pad is the same
        (Normalization((127.5,) * 3, (64.0,) * 3), {0: True, 1: False}),
    ],
)
def test_folding_is_exact_at_the_border_too(
    normalization: Normalization, folded: dict[int, bool], padding: int, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    network = unsettle(TinyNet(padding=padding))
    spec = spec_for(normalization)
    frames = pictures(4)
    frames[0], frames[1] = 0, 255  # where a wrong pad value stands out most
    expected = logits(network, normalization, frames)
    for layout in LAYOUTS:
        path = tmp_path / f"{layout}.onnx"
        report = export_onnx(network, spec, path, layout=layout, logits=True)
        found = OnnxPredictor(path).predict(frames).logits
        assert np.abs(found - expected).max() < 2e-5 * max(1.0, np.abs(expected).max())
        if layout == "nhwc-uint8":
            assert ("Sub" not in report.operators) == folded[padding]
            assert "Div" not in report.operators or spec.temperature != 1
            assert "Mul" not in report.operators
            assert "Gather" not in report.operators  # BGR to RGB is in the weights


def test_a_network_that_does_not_start_with_a_convolution_keeps_its_nodes(tmp_path: Path) -> None:
    class Pooled(TinyNet):
        def forward(self, frames):
            return super().forward(torch.nn.functional.avg_pool2d(frames, 2))

    class Twice(TinyNet):
        def forward(self, frames):
            return super().forward(frames) + frames.mean((2, 3))

    for kind in (Pooled, Twice):
        torch.manual_seed(2)
        network = unsettle(kind())
        spec = spec_for(IMAGENET)
        report = export_onnx(network, spec, tmp_path / "model.onnx")
        frames = pictures(3)
        assert np.abs(answers(report.path, frames) - probabilities(network, spec, frames)).max() < (
            1e-5
        )
        assert {"Gather", "Sub", "Div"} <= set(report.operators)
        assert report.folded.startswith("nothing in the first convolution")
