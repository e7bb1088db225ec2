"""The peers that are installed: they answer alike before they are timed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from support.paths import ROOT

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnx", reason="needs onnx (the [train] extra)")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.benchrun import make_run

from benchmarks.studies import peers
from catdog_edge.runtime.model_file import find_model, read_spec

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def run(tmp_path_factory, easy_set):
    # With a logit for none of the classes: each peer has to leave it out of its probabilities.
    return make_run(tmp_path_factory.mktemp("peers") / "lamps", easy_set, others=True)


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


def test_a_model_of_other_weights_is_no_file_of_ours(run):
    result = CliRunner().invoke(
        peers.main, ["--weights", str(run.weights), "--model", str(find_model("fast").path)]
    )
    assert result.exit_code == 1
    assert "was not exported from" in result.stderr
    assert "its architecture is efficientnet_lite0" in result.stderr


def test_a_peer_that_answers_in_another_shape_is_left_out(run, few, tmp_path, monkeypatch):
    def odd(setting):
        return lambda frame: np.zeros((1, 3), np.float32)

    monkeypatch.setattr(peers, "PEERS", {**peers.PEERS, "odd": odd})
    model = run.folder / "model.onnx"
    setting = peers.Setting(run.weights, model, read_spec(model), 1, tmp_path)
    found, left = peers.open_peers(setting, np.zeros((128, 128, 3), np.uint8))
    assert "odd" not in found
    assert left["odd"]


def test_a_signal_after_openvino_reaches_its_handler(run, few, tmp_path):
    """In a process of its own: it ended in a crash when every peer had its own core."""
    pytest.importorskip("openvino", reason="needs openvino (the [peers] extra)")
    model = run.folder / "model.onnx"
    program = f"""
import gc, signal
from pathlib import Path
from benchmarks.studies.peer_runtimes import Setting, openvino, openvino_f32
from catdog_edge.runtime.model_file import read_spec
model = Path({str(model)!r})
setting = Setting(Path({str(run.weights)!r}), model, read_spec(model), 1, Path({str(tmp_path)!r}))
peers = [openvino(setting), openvino_f32(setting)]
while peers:
    peers.pop(0)
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("handled")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False,
        cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "handled"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--threads", "1000"], 2, "1<=x<=256"),
        (["--seconds", "nan"], 2, "give a number of seconds"),
        (["--out", "/proc/nowhere"], 1, "/proc/nowhere"),
        (["--picture", "nope.jpg"], 1, "nope.jpg"),
    ],
)
def test_bad_input_is_told_before_anything_is_measured(run, arguments, code, words, monkeypatch):
    monkeypatch.setattr(peers, "run", lambda *_: pytest.fail("measured all the same"))
    result = CliRunner().invoke(peers.main, ["--weights", str(run.weights), *arguments])
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_missing_checkpoint_is_what_the_line_names(run):
    result = CliRunner().invoke(peers.main, ["--weights", str(run.folder / "nope.pt")])
    assert result.exit_code == 1
    assert "nope.pt" in result.stderr
