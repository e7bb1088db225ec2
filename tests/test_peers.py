"""The peers that are installed: they answer alike before they are timed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnx", reason="needs onnx (the [train] extra)")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from benchrun import make_run

from benchmarks import peers
from catdog_edge.modelfile import read_spec

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def run(tmp_path_factory, easy_set):
    return make_run(tmp_path_factory.mktemp("peers") / "lamps", easy_set)


@pytest.fixture
def few(monkeypatch):
    """Without `torch.compile`, which takes a quarter of a minute to compile."""
    kept = {name: build for name, build in peers.PEERS.items() if name != "pytorch, compiled"}
    monkeypatch.setattr(peers, "PEERS", kept)


def test_peers_on_our_file_give_our_answer(run, few, tmp_path):
    model = run.folder / "model.onnx"
    setting = peers.Setting(run.weights, model, read_spec(model), 1, tmp_path)
    frame = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    found, left = peers.open_peers(setting, frame)
    assert list(found)[:2] == ["Classifier", "onnxruntime"]
    assert found["Classifier"].difference == 0.0
    assert {"cv2.dnn", "pytorch"} <= set(found)
    for name, peer in found.items():
        # OpenVINO takes bfloat16 where the processor has it, unless it is held to float32.
        limit = 2e-2 if name == "openvino" else 1e-4
        assert peer.difference is None or peer.difference < limit, name
    assert set(found) | set(left) >= set(peers.PEERS)
    assert all(reason and "\n" not in reason for reason in left.values())


def test_the_command_writes_its_document_and_a_table_that_fits(run, few):
    result = CliRunner().invoke(
        peers.main, ["--weights", str(run.weights), "--threads", "1", "--seconds", "1"]
    )
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.stdout.splitlines() if "/" not in line) <= 100
    document = json.loads((run.folder / "peers.json").read_text())
    small, large = document["frames"]
    assert (small["height"], small["width"]) == (128, 128)
    assert (large["height"], large["width"]) == (1080, 1920)
    assert small["rows"][0]["ratio"]["value"] == 1.0
    assert document["threads"] == 1
    for name in document["left_out"]:
        assert f"left out: {name}" in result.stdout.replace("\n", " ")


def test_a_missing_model_is_one_line(run, tmp_path):
    result = CliRunner().invoke(
        peers.main, ["--weights", str(run.weights), "--model", str(tmp_path / "none.onnx")]
    )
    assert result.exit_code == 1
    assert "none.onnx" in result.stderr
    assert "Traceback" not in result.output
