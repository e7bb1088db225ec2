"""Rows under LoadGen: the real thing where it is installed."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from benchmarks.bench_rows import BenchRow
from benchmarks.measure import loadgen
from catdog_edge.errors import CatdogError, MissingPackageError

SUMMARY = """================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : SingleStream
Mode     : PerformanceOnly
90.0th percentile latency (ns) : 2091300
Result is : VALID
Early Stopping Result:
 * Early stopping 90.0th percentile estimate: 2098021
================================================
QPS w/o loadgen overhead        : 472.42
Mean latency (ns)               : 2116756
50.00 percentile latency (ns)   : 2072382
90.00 percentile latency (ns)   : 2091300
qsl_rng_seed : 0
"""


def test_a_summary_is_read():
    found = loadgen.read_summary(SUMMARY)
    assert found["valid"] is True
    assert found["p50_ns"] == 2072382
    assert found["p90_ns"] == 2091300
    assert found["mean_ns"] == 2116756
    assert found["queries_per_second"] == 472.42
    assert found["early_stopping_p90_ns"] == 2098021
    assert "p99_ns" not in found
    assert loadgen.read_summary(SUMMARY.replace("VALID", "INVALID"))["valid"] is False
    broken = SUMMARY.replace(
        "VALID", "INVALID\n  Min duration satisfied : NO\n  Min queries satisfied : Yes"
    )
    assert loadgen.read_summary(broken)["unsatisfied"] == ["min duration"]
    assert "unsatisfied" not in found
    with pytest.raises(CatdogError, match="no result"):
        loadgen.read_summary("")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(MissingPackageError, match=r"pip install .*\[loadgen\]'"):
        loadgen.import_loadgen()


def test_a_row_that_fails_costs_no_other_row_its_figures(tmp_path):
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen (the [loadgen] extra)")
    bad, good = Counting(1, fails=True), Counting(1)
    bad.row = BenchRow("bad", "onnxruntime", "none.onnx", 1, 1)
    speeds = {"bad": 1000.0, "counting": 1000.0}
    found = loadgen.run_rows([bad, good], FRAMES, "single-stream", 0.05, tmp_path, speeds)
    assert not found["rows"]["bad"]["valid"]
    assert "out of order" in found["rows"]["bad"]["reason"]
    assert found["rows"]["counting"]["p50_ns"] > 0


def test_rows_that_a_scenario_leaves_out_are_said(tmp_path, caplog):
    caplog.set_level("INFO", logger="benchmarks")
    with pytest.raises(CatdogError, match="--batch has no 1"):
        loadgen.check_batches("single-stream", (8, 32))
    loadgen.check_batches("single-stream", (1, 8))
    loadgen.check_batches("offline", (8,))
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen (the [loadgen] extra)")
    many = Counting(8)
    many.row = BenchRow("many", "onnxruntime", "none.onnx", 1, 8)
    speeds = {"many": 1000.0, "counting": 1000.0}
    rows = [Counting(1), many]
    found = loadgen.run_rows(rows, FRAMES, "single-stream", 0.05, tmp_path, speeds)
    assert list(found["rows"]) == ["counting"]
    assert "without: many" in caplog.text


class Counting:
    """A row that counts what it is asked."""

    def __init__(self, batch: int, fails: bool = False) -> None:
        self.row = BenchRow("counting", "onnxruntime", "none.onnx", 1, batch)
        self.spec = SimpleNamespace(labels=("cat", "dog"))
        self.sizes: list[int] = []
        self._fails = fails

    def probabilities(self, frames):
        self.sizes.append(len(frames))
        if self._fails:
            raise RuntimeError("out of order")
        return np.full((len(frames), 2), 0.5, np.float32)


FRAMES = [np.zeros((4, 4, 3), np.uint8)] * 8


def test_single_stream_asks_one_frame_at_a_time(tmp_path):
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen (the [loadgen] extra)")
    subject = Counting(batch=1)
    found = loadgen.run(subject, FRAMES, "single-stream", 0.2, tmp_path / "a", 100_000.0)
    assert found["valid"]
    assert len(subject.sizes) >= 64
    assert set(subject.sizes) == {1}
    assert found["p50_ns"] > 0
    logs = {file.name for file in (tmp_path / "a").iterdir()}
    assert {"mlperf_log_summary.txt", "mlperf_log_detail.txt"} <= logs


def test_offline_is_answered_in_batches(tmp_path):
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen (the [loadgen] extra)")
    subject = Counting(batch=8)
    found = loadgen.run_rows([subject], FRAMES, "offline", 0.2, tmp_path, {"counting": 500.0})
    assert max(subject.sizes) == 8
    assert sum(subject.sizes) >= 100  # expected a second, for 0.2 s, with LoadGen's slack
    assert found["rows"]["counting"]["samples_per_second"] > 0
    assert found["loadgen"][0].isdigit()
    assert (tmp_path / "bench-loadgen/offline/counting/mlperf_log_summary.txt").is_file()
    json.dumps(found)


def test_a_row_that_fails_is_an_error_with_its_name(tmp_path):
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen (the [loadgen] extra)")
    with pytest.raises(CatdogError, match=r"counting failed under LoadGen \(out of order\)"):
        loadgen.run(Counting(1, fails=True), FRAMES, "single-stream", 0.05, tmp_path, 1000.0)
