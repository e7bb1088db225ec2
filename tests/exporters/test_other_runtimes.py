"""Exported files in OpenVINO and OpenCV; docs/export.md has what was seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch; install [train]")
pytest.importorskip("onnx", reason="exporting needs onnx; install [train]")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from support.models.tiny_nets import LABELS, answers, pictures, settle, spec_for

from catdog_edge.training.evaluation.inference import logits
from catdog_edge.training.models.registry import architecture
from exporters.formats.torch_export import export_onnx
from exporters.graph.onnx_file import write_model
from exporters.static_int8 import quantize


@pytest.fixture(scope="module")
def real_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray]]:
    """`simple_cnn` and the default architecture, with pictures of their size."""
    folder = tmp_path_factory.mktemp("files")
    made = {}
    for name in ("simple_cnn", "edge_cnn"):
        arch = architecture(name)
        torch.manual_seed(0)
        frames = pictures(4, arch.size)
        spec = spec_for(arch.normalization, LABELS, arch.size, name)
        network = settle(arch.build(3), spec, frames)
        head = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
        # A fresh network answers alike to all pictures, and equality would say nothing.
        head.weight.data *= 2 / float(logits(network, arch.normalization, frames).std(0).mean())
        head.bias.data -= torch.from_numpy(logits(network, arch.normalization, frames).mean(0))
        made[name] = export_onnx(network, spec, folder / f"{name}.onnx").path, frames
    return made


@pytest.mark.parametrize("name", ["simple_cnn", "edge_cnn"])
def test_the_file_answers_the_same_in_openvino(name: str, real_files: dict) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is a test dependency")
    path, frames = real_files[name]
    expected = answers(path, frames)
    assert expected.std(0).max() > 0.1
    core = openvino.Core()
    # Without the hint it computes in bfloat16 where the processor can.
    compiled = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.abs(compiled([frames])["probabilities"] - expected).max() < 1e-4
    assert np.abs(compiled([frames[:1]])["probabilities"] - expected[:1]).max() < 1e-4


@pytest.mark.parametrize("name", ["simple_cnn", "edge_cnn"])
def test_the_file_answers_the_same_in_opencv(name: str, real_files: dict) -> None:
    import cv2

    path, frames = real_files[name]
    expected = answers(path, frames)
    net = cv2.dnn.readNetFromONNX(str(path))
    for frame, wanted in zip(frames, expected, strict=True):
        net.setInput(frame[None])
        assert np.abs(net.forward("probabilities")[0] - wanted).max() < 1e-4


@pytest.fixture(scope="module")
def static_files(real_files: dict) -> dict[str, tuple[Path, np.ndarray]]:
    """The same in static int8."""
    made = {}
    for name, (source, frames) in real_files.items():
        path = source.with_name(f"{name}.static.onnx")
        calibrated = quantize.calibrate(source, frames)
        write_model(quantize.quantize(calibrated), path, calibrated.spec)
        made[name] = path, frames
    return made


@pytest.mark.parametrize("name", ["simple_cnn", "edge_cnn"])
def test_static_int8_answers_nearly_the_same_in_openvino(name: str, static_files: dict) -> None:
    """It keeps its own roundings: docs/export.md says how far apart that was seen to be."""
    openvino = pytest.importorskip("openvino", reason="OpenVINO is a test dependency")
    path, frames = static_files[name]
    expected = answers(path, frames)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    assert np.abs(compiled([frames])["probabilities"] - expected).max() < 0.05


def test_static_int8_in_opencv_is_for_the_default_architecture_alone(static_files: dict) -> None:
    """docs/export.md says so of OpenCV 5; OpenCV 4 is told there to give other answers."""
    import cv2

    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4's engine gives other answers for int8, as the docs say")
    path, frames = static_files["edge_cnn"]
    expected = answers(path, frames)
    net = cv2.dnn.readNetFromONNX(str(path))
    for frame, wanted in zip(frames, expected, strict=True):
        net.setInput(frame[None])
        assert np.abs(net.forward("probabilities")[0] - wanted).max() < 0.05
    with pytest.raises(cv2.error, match="Assertion failed"):
        cv2.dnn.readNetFromONNX(str(static_files["simple_cnn"][0]))
