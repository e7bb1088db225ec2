"""A network becomes an ONNX file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT

torch = pytest.importorskip("torch", reason="exporting needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="exporting needs onnx; install [train]")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from support.models.tiny_nets import (
    LABELS,
    SIZE,
    TinyNet,
    answers,
    pictures,
    settle,
    spec_for,
    trained,
)

from catdog_edge.errors import CatdogError, ModelError
from catdog_edge.runtime.model_file import read_spec
from catdog_edge.spec import METADATA_KEY, ModelSpec, squash
from catdog_edge.training.evaluation.inference import logits, probabilities
from catdog_edge.training.models.registry import architecture
from exporters.checks.predictors import OnnxPredictor, open_session
from exporters.formats.torch_export import export_onnx


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("edge_cnn", "nhwc-uint8"),
        ("simple_cnn", "nhwc-uint8"),
        ("mobilenet_v3_small", "nchw-float"),
        ("resnet18", "nhwc-uint8"),
        ("efficientnet_b0", "nhwc-uint8"),
        ("efficientnet_lite0", "nhwc-uint8"),
        ("efficientnet_lite0", "nchw-float"),
    ],
)
def test_every_architecture_answers_as_in_pytorch(name: str, layout: str, tmp_path: Path) -> None:
    arch = architecture(name)
    torch.manual_seed(0)
    network = arch.build(3)
    frames = pictures(12, arch.size)
    spec = spec_for(arch.normalization, LABELS, arch.size, name)
    settle(network, spec, frames)
    head = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    # A fresh network answers alike to all pictures, and equality would say nothing.
    head.weight.data *= 2 / float(logits(network, arch.normalization, frames).std(0).mean())
    head.bias.data -= torch.from_numpy(logits(network, arch.normalization, frames).mean(0))
    expected = probabilities(network, spec, frames)
    assert expected.std(0).max() > 0.1

    report = export_onnx(network, spec, tmp_path / "model.onnx", layout=layout)
    assert np.abs(answers(report.path, frames) - expected).max() <= 1e-4
    assert (report.opset, report.ir_version) == (17, 8)
    assert report.nodes < report.nodes_before
    assert "BatchNormalization" not in report.operators
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]  # no .data beside it


def test_the_batch_is_free_or_fixed_as_asked(tmp_path: Path) -> None:
    network, spec = trained()
    frames = pictures(7)
    free = export_onnx(network, spec, tmp_path / "free.onnx").path
    session = open_session(free)
    assert session.get_inputs()[0].shape == ["N", SIZE, SIZE, 3]
    assert session.get_outputs()[0].shape == ["N", 3]
    for batch in (1, 2, 7):
        assert np.abs(answers(free, frames, batch) - answers(free, frames, 1)).max() < 1e-6
    fixed = export_onnx(network, spec, tmp_path / "fixed.onnx", batch=3).path
    session = open_session(fixed)
    assert session.get_inputs()[0].shape == [3, SIZE, SIZE, 3]
    assert np.abs(answers(fixed, frames) - answers(free, frames)).max() < 1e-6
    with pytest.raises(Exception, match="Got: 2 Expected: 3"):
        session.run(None, {"frames": frames[:2]})


def test_probabilities_are_tempered_and_logits_are_not(tmp_path: Path) -> None:
    network, spec = trained()
    hot = spec.replace(temperature=3.0)
    frames = pictures(6)
    path = export_onnx(network, hot, tmp_path / "hot.onnx", logits=True).path
    assert [value.name for value in open_session(path).get_outputs()] == ["probabilities", "logits"]
    raw = OnnxPredictor(path).predict(frames).logits
    assert np.abs(raw - logits(network, spec.normalization, frames)).max() < 1e-4
    expected = np.exp(raw / 3.0) / np.exp(raw / 3.0).sum(1, keepdims=True)
    assert np.abs(answers(path, frames) - expected).max() < 1e-5
    plain = export_onnx(network, spec.replace(temperature=1.0), tmp_path / "plain.onnx")
    assert [value.name for value in open_session(plain.path).get_outputs()] == ["probabilities"]
    assert "Div" not in plain.operators


@pytest.mark.parametrize(("opset", "ir_version"), [(16, 8), (17, 8), (18, 8), (20, 9), (21, 10)])
def test_the_file_has_the_opset_that_was_asked_for(
    opset: int, ir_version: int, tmp_path: Path
) -> None:
    network, spec = trained()
    report = export_onnx(network, spec, tmp_path / "model.onnx", opset=opset)
    model = onnx.load(report.path)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [opset]
    assert model.ir_version == ir_version
    frames = pictures(3)
    assert np.abs(answers(report.path, frames) - probabilities(network, spec, frames)).max() < 1e-5


@pytest.mark.parametrize("opset", [7, 13, 99])
def test_an_opset_that_cannot_be_made_is_an_error_and_no_file(opset: int, tmp_path: Path) -> None:
    network, spec = trained()
    with pytest.raises(ModelError, match=f"opset {opset}") as caught:
        export_onnx(network, spec, tmp_path / "model.onnx", opset=opset)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_path_of_this_machine_is_in_the_file(tmp_path: Path) -> None:
    network, spec = trained()
    data = export_onnx(network, spec, tmp_path / "model.onnx").path.read_bytes()
    for trace in (b".py", b"site-packages", b"stack_trace", str(Path.cwd()).encode(), b"/home/"):
        assert trace not in data
    # torch does write them: without the stripping this test would not hold.
    program = torch.onnx.export(
        network, (torch.zeros(2, 3, SIZE, SIZE),), dynamo=True, verbose=False
    )
    assert b".py" in program.model_proto.SerializeToString()


def test_the_spec_and_the_plain_keys_are_in_the_file(tmp_path: Path) -> None:
    network, spec = trained()
    path = export_onnx(network, spec, tmp_path / "model.onnx", layout="nchw-float").path
    assert read_spec(path) == spec.replace(layout="nchw-float", precision="fp32")
    keys = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert set(keys) == {METADATA_KEY, "names", "imgsz", "task", "producer"}
    assert keys["names"] == "{0: 'bright', 1: 'dark', 2: 'striped'}"
    assert keys["imgsz"] == "[32, 32]"
    assert keys["task"] == "classify"


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    network, spec = trained()
    network.train()
    network.to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    export_onnx(network, spec, tmp_path / "model.onnx")
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_network_that_torch_cannot_export_is_one_line(tmp_path: Path) -> None:
    class Wild(TinyNet):
        def forward(self, frames):
            if frames.sum() > 0:
                return super().forward(frames)
            return super().forward(-frames)

    with pytest.raises(ModelError, match="torch cannot export tiny") as caught:
        export_onnx(Wild().eval(), spec_for(), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        network, spec = trained()
        path = disk / "model.onnx"
        export_onnx(network, spec, path)
        old = path.read_bytes()
        arch = architecture("edge_cnn")
        large = ModelSpec(
            "edge_cnn", ("cat", "dog"), 128, 128, squash(128, 128), arch.normalization
        )
        with pytest.raises(CatdogError, match=r"cannot write .*model\.onnx: No space left"):
            export_onnx(arch.build(2), large, path)
        assert path.read_bytes() == old
        assert [file.name for file in disk.iterdir()] == ["model.onnx"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_file_runs_in_plain_onnxruntime(tmp_path: Path) -> None:
    """In a process with neither torch nor this package, which asserts that itself."""
    import cv2

    network, spec = trained()
    path = export_onnx(network, spec, tmp_path / "model.onnx").path
    picture = tmp_path / "picture.png"
    # Between once and twice the size, so that the second step is no mean of two by two pixels.
    frame = np.random.default_rng(0).integers(0, 256, (41, 50, 3), dtype=np.uint8)
    assert frame.shape[0] > spec.height
    assert frame.shape[1] < 2 * spec.width
    cv2.imwrite(str(picture), frame)
    script = ROOT / "tests" / "support" / "programs" / "plain_onnxruntime.py"
    done = subprocess.run(
        [sys.executable, "-P", str(script), str(path), str(picture)],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    from catdog_edge.images.preprocess import preprocess

    expected = probabilities(network, spec, preprocess(frame, spec.resize)[None])[0]
    label, confidence = done.stdout.split()
    assert label == LABELS[expected.argmax()]
    assert float(confidence) == pytest.approx(expected.max(), abs=1e-5)
