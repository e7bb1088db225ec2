from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = pytest.mark.train

import onnx_ir as ir
from support.models.tiny_nets import (
    FRAMES,
    TinyNet,
    answers,
    compared,
    fit_head,
    named_export,
    pictures,
    settle,
    spec_for,
    trained,
    truth,
)
from torch import nn

from catdog_edge.runtime.model_file import read_spec
from catdog_edge.training.models.imagenet_head import ClassGroups
from catdog_edge.training.models.registry import IMAGENET, architecture
from exporters.checks.predictors import open_session
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.formats.fp16 import convert_fp16
from exporters.formats.torch_export import export_onnx
from exporters.graph.onnx_file import operators, write_model
from exporters.static_int8 import quantize
from exporters.static_int8.optimized_graph import integer_layers, optimized_graph


def write(model: ir.Model, calibrated: quantize.Calibrated, path: Path) -> Path:
    write_model(model, path, calibrated.spec)
    return path


def float_layers(model: ir.Model) -> int:
    """How many layers with weights ONNX Runtime runs in float, from `optimized_graph`."""
    kinds = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
    return sum(node.op_type in kinds for node in model.graph)


@pytest.fixture(scope="module")
def calibrated(fp32: Path) -> quantize.Calibrated:
    return quantize.calibrate(fp32, pictures(40, seed=9))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["simple_cnn", "edge_cnn", pytest.param("efficientnet_lite0", marks=pytest.mark.slow)],
)
def test_the_frame_itself_feeds_the_first_integer_convolution(name: str, tmp_path: Path) -> None:
    source = named_export(name, tmp_path)
    calibrated = quantize.calibrate(source, pictures(4, architecture(name).size))
    path = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    runtime = optimized_graph(path)
    first, *others = runtime.graph
    frames = runtime.graph.inputs[0]
    assert [use.node for use in frames.uses()] == [first]
    if name == "simple_cnn":
        assert first.op_type == "QLinearConv"
    else:
        # Stride 2: over four pixels at once, two outputs at a time, and no pixel is moved for it.
        assert [node.op_type for node in (first, *others[:3])] == [
            "Reshape", "QLinearConv", "Reshape", "QLinearConv",
        ]  # fmt: skip
        assert others[0].inputs[3].shape.numpy()[1:3] == (12, 3)
    kinds = operators(runtime)
    assert not {"QuantizeLinear", "Cast", "Conv", "FusedConv"} & set(kinds)
    # Every layer in integers, temperature and softmax in float.
    assert integer_layers(runtime, calibrated.layers) == set(calibrated.layers)
    assert runtime.graph[-1].op_type == "Softmax"
    if name == "simple_cnn":
        assert path.stat().st_size <= 850_000


def test_static_answers_are_close_and_sum_to_one(
    fp32: Path, calibrated: quantize.Calibrated, tmp_path: Path
) -> None:
    path = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    result = compared(fp32, path)
    assert result.passed, result.failures
    assert 1e-6 < result.comparison.difference < 0.1
    found = answers(path, FRAMES)
    assert np.abs(found.sum(1) - 1).max() < 1e-6
    # In steps of 1/256 there would be few different values.
    assert len(np.unique(found.round(6))) > 60
    assert read_spec(path).precision == "int8-static"


@pytest.mark.slow
def test_a_mean_that_is_no_grey_level_stays_exact(tmp_path: Path) -> None:
    network, spec = trained(normalization=IMAGENET)
    source = export_onnx(network, spec, tmp_path / "model.onnx").path
    calibrated = quantize.calibrate(source, pictures(40, seed=9))
    assert calibrated.grey is None
    path = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    assert compared(source, path).passed
    assert integer_layers(optimized_graph(path), calibrated.layers) == set(calibrated.layers)


@pytest.mark.parametrize("scheme", quantize.SCHEMES)
def test_every_scheme_loads_and_answers(
    scheme: quantize.Scheme, fp32: Path, calibrated: quantize.Calibrated, tmp_path: Path
) -> None:
    path = write(quantize.quantize(calibrated, scheme), calibrated, tmp_path / "static.onnx")
    assert compared(fp32, path).comparison.clear_agreement > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["nhwc-uint8", "nchw-float"])
def test_other_layouts_and_fixed_batches_quantize_too(layout: str, tmp_path: Path) -> None:
    network, spec = trained()
    source = export_onnx(network, spec, tmp_path / "model.onnx", layout=layout, batch=2).path
    calibrated = quantize.calibrate(source, pictures(32, seed=9))
    path = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    assert compared(source, path).comparison.clear_agreement > 0.95
    dynamic = quantize_dynamic(source, tmp_path / "dynamic.onnx").path
    assert compared(source, dynamic).comparison.clear_agreement > 0.95
    assert open_session(path).get_inputs()[0].shape[0] == 2


def test_excluded_layers_run_in_float_in_the_file_as_shipped(
    calibrated: quantize.Calibrated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert calibrated.layers == ("first", "second", "third", "head")
    for in_float in ((), ("first",), ("second", "head"), ("first", "third")):
        path = write(
            quantize.quantize(calibrated, "u8s8", in_float), calibrated, tmp_path / "a.onnx"
        )
        runtime = optimized_graph(path)
        assert integer_layers(runtime, calibrated.layers) == set(calibrated.layers) - set(in_float)
        assert float_layers(runtime) == len(in_float)
    # Left as ONNX Runtime's quantizer leaves it, the layer is quantized at load after all.
    monkeypatch.setattr(quantize, "_keep_layer_float", lambda graph, name: None)
    path = write(
        quantize.quantize(calibrated, "u8s8", ("second",)), calibrated, tmp_path / "b.onnx"
    )
    assert "second" in integer_layers(optimized_graph(path), calibrated.layers)


class Attention(nn.Module):
    """Attention of 16 tokens with 12 channels: layers of tokens, and products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, stride=8)
        self.queries, self.keys, self.values = (nn.Linear(12, 12, bias=False) for _ in range(3))
        self.head = nn.Linear(12, 3)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(frames).flatten(2).transpose(1, 2)
        products = self.queries(tokens) @ self.keys(tokens).transpose(1, 2)
        return self.head((products.softmax(2) @ self.values(tokens)).mean(1))


def test_of_attention_the_layers_with_weights_are_kept_in_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, spec = Attention(), spec_for()
    fit_head(network, network.head, spec, pictures(30, seed=7), truth(30))
    source = export_onnx(network, spec, tmp_path / "model.onnx").path
    calibrated = quantize.calibrate(source, pictures(40, seed=9))
    assert len(calibrated.layers) == 5
    for name in calibrated.layers:
        model = quantize.quantize(calibrated, "u8s8", [name])
        path = write(model, calibrated, tmp_path / "static.onnx")
        integer = integer_layers(optimized_graph(path), calibrated.layers)
        assert integer == set(calibrated.layers) - {name}
        assert np.abs(answers(path, FRAMES) - answers(source, FRAMES)).max() < 0.1


def test_layers_in_float_are_the_very_layers_of_fp32(
    fp32: Path, calibrated: quantize.Calibrated, tmp_path: Path
) -> None:
    everything = quantize.quantize(calibrated, "u8s8", calibrated.layers)
    path = write(everything, calibrated, tmp_path / "static.onnx")
    assert float_layers(optimized_graph(path)) == len(calibrated.layers)
    found = answers(path, FRAMES)
    # Only what lies between the layers (a sum, a pool) may still be in steps.
    assert np.abs(found - answers(fp32, FRAMES)).max() < 0.02


class Grouped(TinyNet):
    """Six categories that are added up to three classes."""

    def __init__(self) -> None:
        super().__init__(6)
        self.groups = ClassGroups((1, 2, 3))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.groups(super().forward(frames))


@pytest.mark.slow
def test_sums_of_categories_stay_in_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, spec = Grouped(), spec_for()
    settle(network, spec, pictures(30, seed=7))
    source = export_onnx(network, spec, tmp_path / "model.onnx").path
    calibrated = quantize.calibrate(source, pictures(40, seed=9))
    assert calibrated.layers == ("first", "second", "third", "head")
    path = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    runtime = optimized_graph(path)
    assert integer_layers(runtime, calibrated.layers) == set(calibrated.layers)
    after = [node.op_type for node in runtime.graph][-12:]
    assert after.count("ReduceLogSumExp") == 3
    assert "QuantizeLinear" not in after
    assert "DequantizeLinear" not in after
    # The logits of the classes take no steps of an integer.
    found = answers(path, pictures(48))
    assert len(np.unique(found.round(6))) > 100
    assert np.abs(found - answers(source, pictures(48))).max() < 0.1
    half = tmp_path / "half.onnx"
    convert_fp16(source, half)
    assert np.abs(answers(half, FRAMES) - answers(source, FRAMES)).max() < 1e-2
