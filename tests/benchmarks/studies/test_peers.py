"""The peers that are installed: they answer alike before they are timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.paths import ROOT

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnx", reason="needs onnx (the [train] extra)")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.models.bench_document import document
from support.models.bench_run import SIZE, make_run

from benchmarks.studies import peers
from catdog_edge.runtime.model_file import find_model, read_spec

pytestmark = [pytest.mark.train, pytest.mark.slow]


@pytest.fixture(scope="module")
def run(tmp_path_factory, easy_set):
    # With a logit for none of the classes: each peer has to leave it out of its probabilities.
    return make_run(tmp_path_factory.mktemp("peers") / "lamps", easy_set, others=True)


@pytest.fixture
def call(capsys):
    """The command line: exit code, standard output and standard error."""

    def called(*arguments):
        try:
            code = peers.main([str(one) for one in arguments])
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return called


@pytest.fixture
def few(monkeypatch):
    """Without `torch.compile`, which takes a quarter of a minute to compile."""
    kept = {name: build for name, build in peers.PEERS.items() if name != "pytorch, compiled"}
    monkeypatch.setattr(peers, "PEERS", kept)


def test_peers_on_our_file_give_our_answer(run, few, tmp_path):
    model = run.folder / "model.onnx"
    setting = peers.PeerConfig(run.weights, model, read_spec(model), 1, tmp_path)
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


def test_the_command_writes_its_document_and_a_table_that_fits(run, few, call):
    code, out, err = call("--weights", run.weights, "--threads", 1, "--seconds", 1)
    assert code == 0, err
    assert max(len(line) for line in out.splitlines() if "/" not in line) <= 100
    written = json.loads((run.folder / "peers.json").read_text())
    small, large = written["frames"]
    assert (small["height"], small["width"]) == (SIZE, SIZE)
    assert (large["height"], large["width"]) == (1080, 1920)
    assert small["rows"][0]["ratio"]["value"] == 1.0
    assert small["rows"][0]["bytes"] == (run.folder / "model.onnx").stat().st_size
    assert written["threads"] == 1
    for name in written["left_out"]:
        assert f"left out: {name}" in out.replace("\n", " ")


def test_a_missing_model_is_one_line(run, tmp_path, call):
    code, _, err = call("--weights", run.weights, "--model", tmp_path / "none.onnx")
    assert code == 1
    assert "none.onnx" in err


def test_a_model_of_other_weights_is_no_file_of_ours(run, call):
    code, _, err = call("--weights", run.weights, "--model", find_model("fast").path)
    assert code == 1
    assert "was not exported from" in err
    assert "its architecture is efficientnet_lite0" in err


def test_a_peer_that_answers_in_another_shape_is_left_out(run, few, tmp_path, monkeypatch):
    def odd(setting):
        return lambda frame: np.zeros((1, 3), np.float32)

    monkeypatch.setattr(peers, "PEERS", {**peers.PEERS, "odd": odd})
    model = run.folder / "model.onnx"
    setting = peers.PeerConfig(run.weights, model, read_spec(model), 1, tmp_path)
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
from benchmarks.studies.peers import PeerConfig, openvino
from catdog_edge.runtime.model_file import read_spec
model = Path({str(model)!r})
weights, scratch = Path({str(run.weights)!r}), Path({str(tmp_path)!r})
setting = PeerConfig(weights, model, read_spec(model), 1, scratch)
peers = [openvino(setting), openvino(setting, "f32")]
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
        (["--threads", "1000"], 2, "a whole number in 1..256"),
        (["--seconds", "nan"], 2, "a number of seconds above 0"),
        (["--out", "/proc/nowhere"], 1, "/proc/nowhere"),
        (["--picture", "nope.jpg"], 1, "nope.jpg"),
    ],
)
def test_bad_input_is_told_before_anything_is_measured(
    run, arguments, code, words, monkeypatch, call
):
    monkeypatch.setattr(peers, "run", lambda *_: pytest.fail("measured all the same"))
    found, _, err = call("--weights", run.weights, *arguments)
    assert found == code, err
    assert words in err


def test_a_missing_checkpoint_is_what_the_line_names(run, call):
    code, _, err = call("--weights", run.folder / "nope.pt")
    assert code == 1
    assert "nope.pt" in err


def test_a_table_has_a_line_for_each_peer_and_what_was_left_out():
    latency = {"p50_ms": 1.234, "p95_ms": 23.45, "p99_ms": 345.6, "mean_ms": 2.0}
    ratio = {"value": 1.25, "low": 1.2, "high": 1.3}
    row = {"difference": 1.5e-4, "bytes": 1_500_000, "latency": latency}
    rows = [
        {"name": "Classifier", **row, "ratio": {**ratio, "to": "Classifier"}},
        {"name": "theirs", **row, "difference": None, "ratio": {**ratio, "to": "Classifier"}},
    ]
    frame = {"height": 9, "width": 16, "rounds": 18, "pass_starts": [0, 3], "rows": rows}
    shown = document()
    shown |= {
        "model": {"file": "m.onnx", "architecture": "net", "precision": "fp32"},
        "threads": 2, "frames": [frame], "left_out": {"ncnn": "not here"}, "rows": [],
        "noise": ["a neighbour"],
    }  # fmt: skip
    lines = peers.text(shown).splitlines()
    assert lines[0] == "NOISY RUN: a neighbour."
    assert lines[2].startswith("m.onnx (net, fp32), a frame of 16x9, 2 threads, 18 interleaved")
    cells = [line.split() for line in lines if line.startswith(("Classifier", "theirs"))]
    assert cells == [
        ["Classifier", "1", "1.23", "23.4", "346", "2.00", "1.5e-04", "1.50"],
        ["theirs", "1.25", "(1.20-1.30)", "1.23", "23.4", "346", "2.00", "-", "1.50"],
    ]
    assert "left out: ncnn: not here" in lines
    assert not peers.text({**shown, "noise": []}).startswith("NOISY")


def test_the_process_is_kept_to_as_many_processors_as_threads():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity on this system")
    before = os.sched_getaffinity(0)
    with peers._only(1):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_what_is_not_installed_names_the_extra(tmp_path):
    missing = ModuleNotFoundError("no", name="ncnn")
    assert peers._reason(missing) == "ncnn is not installed; the extra [peers] brings it"
    assert peers._reason(ValueError("one\ntwo")) == "one"
    (tmp_path / "best.pt").write_bytes(bytes(5))
    (tmp_path / "m.onnx").write_bytes(bytes(7))
    for number, kind in enumerate(("param", "bin")):
        (tmp_path / f"peer.ncnn.{kind}").write_bytes(bytes(10 + number))
    config = peers.PeerConfig(tmp_path / "best.pt", tmp_path / "m.onnx", None, 1, tmp_path)
    sizes = {"pytorch, compiled": 5, "openvino": 7, "ncnn": 21}
    assert {name: peers._size(config, name) for name in sizes} == sizes
