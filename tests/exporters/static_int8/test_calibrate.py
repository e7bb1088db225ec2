from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import compared, pictures

from exporters.graph.onnx_file import write_model
from exporters.static_int8 import quantize
from exporters.static_int8.calibrate import measure_ranges


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_every_calibration_gives_a_file_that_answers(
    method: str, fp32: Path, tmp_path: Path
) -> None:
    calibrated = quantize.calibrate(fp32, pictures(40, seed=9), method)
    path = tmp_path / "static.onnx"
    write_model(quantize.quantize(calibrated), path, calibrated.spec)
    assert compared(fp32, path).comparison.clear_agreement > 0.9
    assert calibrated.images == 40


def test_ranges_hold_what_they_should() -> None:
    """A network of one ReLU on a known ramp with one far outlier."""
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    value = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 3]) for n in ("x", "y")
    ]
    made = onnx.helper.make_graph([node], "relu", value[:1], value[1:])
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    values = np.concatenate([np.linspace(-1, 3, 29_999), [100.0]]).astype(np.float32)

    def inputs():
        return iter(values.reshape(-1, 10, 3))

    assert measure_ranges(model, ("x", "y"), inputs, "minmax") == {"x": (-1, 100), "y": (0, 100)}
    # One value in 30,000 is fewer than percentile gives up on each side.
    (low, high), of_relu = measure_ranges(model, ("x", "y"), inputs, "percentile").values()
    assert -1.0 <= low < -0.9
    assert 2.9 < high < 3.1
    assert of_relu == pytest.approx((0.0, high), abs=0.05)  # a bin is that wide

    values[:] = np.random.default_rng(0).normal(0, 1, 30_000)
    values[0] = 100.0
    (low, high), of_relu = measure_ranges(model, ("x", "y"), inputs, "entropy").values()
    assert -5 < low < -2
    assert 3 < high < 90
    assert 3 < of_relu[1] < 90  # the zeros, half of all values, do not outvote the rest
    for method in ("minmax", "percentile", "entropy"):
        zeros = [np.zeros((1, 3), np.float32)]
        constant = measure_ranges(model, ("x", "y"), lambda zeros=zeros: iter(zeros), method)
        assert constant == {"x": (0, 0), "y": (0, 0)}


def test_ranges_are_of_activations_alone(fp32: Path) -> None:
    calibrated = quantize.calibrate(fp32, pictures(2))
    constants = {tensor.name for tensor in calibrated.model.graph.initializer}
    assert calibrated.ranges
    assert not constants.intersection(calibrated.ranges)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_calibration_needs_no_more_memory_for_more_pictures(method: str, fp32: Path) -> None:
    def peak(count: int) -> int:
        frames = np.broadcast_to(pictures(1), (count, 32, 32, 3))
        tracemalloc.start()
        quantize.calibrate(fp32, frames, method)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(4)
    few, many = peak(4), peak(200)
    activations_of_one = 4 * (8 * 16 * 16 * 4 + 16 * 16 * 16 * 2)
    assert many - few < 10 * activations_of_one
