"""Rows in fresh processes: first answers, memory, and what can go wrong."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnx", reason="needs onnx (the [train] extra)")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")


from support.models.bench_run import onnx_row

from benchmarks.bench_rows import BenchRow, open_row
from benchmarks.measure import cold_start, latency
from benchmarks.measure.cold_start import cold_starts, start_row, summarize_runs
from catdog_edge.errors import CatdogError

pytestmark = [pytest.mark.train, pytest.mark.slow]


def test_fresh_processes_are_measured_and_summarised(run, picture, tmp_path):
    rows = [onnx_row(run), BenchRow("broken", "onnxruntime", str(tmp_path / "none.onnx"), 1)]
    found, failed = cold_starts(rows, picture, runs=2)
    assert found["model"]["runs"] == 2
    assert len(found["model"]["first_answers_s"]) == 2
    assert not found["model"]["torch_loaded"]
    assert found["model"]["first_answer_s"] > found["model"]["load_s"]
    assert list(failed) == ["broken"]
    assert "none.onnx" in failed["broken"]


def test_memory_of_the_bench_is_not_charged_to_a_row(run, picture, tmp_path):
    before = start_row(onnx_row(run), picture, seconds=0.1)
    ballast = np.ones(400_000_000, np.uint8)  # 400 MB, touched
    after = start_row(onnx_row(run), picture, seconds=0.1)
    assert ballast.sum() == 400_000_000
    assert abs(after["peak_rss_bytes"] - before["peak_rss_bytes"]) < 60_000_000


def test_a_child_that_fails_is_one_line(run, tmp_path):
    with pytest.raises(CatdogError, match="does not run in a fresh process") as caught:
        start_row(onnx_row(run), tmp_path / "no-picture.jpg")
    assert "\n" not in str(caught.value)


def test_a_fresh_process_answers_as_the_row_does(run, picture):
    found = start_row(onnx_row(run), picture, seconds=0.0)
    runner = open_row(onnx_row(run))
    expected = runner.probabilities([latency.decode_picture(picture.read_bytes())])
    assert np.allclose(found["answer"], expected, atol=1e-6)
    assert found["peak_rss_bytes"] >= found["rss_bytes"]
    assert found["first_answer_s"] > found["load_s"] > 0


@pytest.mark.parametrize(
    ("program", "says"),
    [("print(1); raise SystemExit('no memory')", "no memory"), ("pass", "exit code 0")],
)
def test_a_process_that_fails_or_says_nothing_is_one_line(program, says):
    with pytest.raises(CatdogError, match=rf"row: it does not run in a fresh process \({says}\)"):
        cold_start.run_fresh(["-c", program], "row")


def test_summary_of_runs_takes_the_middle_one():
    one = {"load_s": 0.1, "rss_bytes": 1, "peak_rss_bytes": 2, "cpu_ms": 1.0, "wall_ms": 1.0,
           "torch_loaded": False, "gpu_bytes": None}  # fmt: skip
    runs = [{**one, "first_answer_s": value} for value in (0.3, 9.0, 0.4)]
    assert summarize_runs(runs)["first_answer_s"] == 0.4
    assert summarize_runs(runs)["first_answers_s"] == [0.3, 9.0, 0.4]
    assert not summarize_runs(runs)["torch_loaded"]
    assert summarize_runs([*runs, {**runs[0], "torch_loaded": True}])["torch_loaded"]


def test_a_fresh_process_that_hangs_is_ended(run, tmp_path, monkeypatch):
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 30\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    monkeypatch.setattr(cold_start, "TIMEOUT", 0.5)
    started = time.monotonic()
    with pytest.raises(CatdogError, match=r"no answer for 0\.5 s"):
        start_row(onnx_row(run), tmp_path / "picture.jpg")
    assert time.monotonic() - started < 20


def test_a_fresh_process_takes_nothing_from_the_current_folder(run, picture, tmp_path, monkeypatch):
    for name in ("benchmarks", "catdog_edge"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not this one')\n")
    monkeypatch.chdir(tmp_path)
    assert start_row(onnx_row(run), picture, seconds=0.1)["first_answer_s"] > 0


def test_a_fresh_process_that_says_a_lot_is_not_held_up(run, picture, tmp_path, monkeypatch):
    noisy = tmp_path / "python"
    noisy.write_text(
        f'#!/bin/sh\nhead -c 300000 /dev/zero | tr "\\0" "x" >&2\nexec {sys.executable} "$@"\n'
    )
    noisy.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(noisy))
    assert start_row(onnx_row(run), picture, seconds=0.1)["first_answer_s"] > 0
