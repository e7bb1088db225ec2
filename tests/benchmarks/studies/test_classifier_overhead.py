"""The study of what `Classifier` costs: every part, on a model of microseconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.paths import TINY

from benchmarks.studies import classifier_overhead
from benchmarks.studies.classifier_overhead import Study, _cold_row, _paced, busy_camera, picture
from catdog_edge import Classifier

pytestmark = pytest.mark.train


def test_a_paced_loop_counts_the_processor_time_of_its_frames_alone() -> None:
    with Classifier(TINY, "cpu", threads=1) as pets:
        found = _paced(pets, picture(*pets.spec.size), seconds=0.15)
    assert 0 <= found["processor_ms"] < 50
    assert 0 < found["wait_p50_ms"] <= found["wait_p95_ms"] < 1000


def test_a_busy_camera_decodes_in_every_thread_until_its_block_ends() -> None:
    with busy_camera(2) as counts:
        while not all(counts):
            pass
        assert len(counts) == 2
    after = list(counts)
    assert after == counts


def test_a_cold_row_is_of_the_middle_run_and_its_ratios_are_of_one_round() -> None:
    def runs(*seconds: float) -> list[dict[str, float]]:
        return [{"first_answer_s": s, "VmRSS": 10 * s, "VmHWM": 30 * s} for s in seconds]

    found = _cold_row(runs(2.0, 4.0, 9.0), runs(1.0, 4.0, 3.0))
    assert found == {
        "runs": 3, "first_answer_s": 4.0, "resident_mb": 40.0, "peak_mb": 120.0,
        "time_ratio": 2.0, "memory_ratio": 2.0,
    }  # fmt: skip


@pytest.mark.slow
def test_every_part_has_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classifier_overhead, "LIMITS", dict.fromkeys(classifier_overhead.LIMITS, 9))
    monkeypatch.setitem(classifier_overhead.LIMITS, "growth_mb", -1.0)
    kept = tmp_path / "figures.json"
    options = ["--model", str(TINY), "--threads", "1", "--seconds", "0.2", "--runs", "1"]
    options += ["--calls", "1100", "--json", str(kept)]
    only = [word for part in ("overhead", "cold", "leak") for word in ("--only", part)]
    assert classifier_overhead.main([*options, *only]) == 3
    printed = capsys.readouterr()
    assert printed.err.strip() == "classifier_overhead: limits not met: growth_mb"
    assert printed.out.count(" ok\n") == 4
    assert printed.out.count("MISSED") == 1
    figures = json.loads(kept.read_text())
    assert list(figures) == ["machine", "model", "overhead", "cold", "leak"]
    large = figures["overhead"]["1080p"]
    assert large["Classifier"]["ratio"] == pytest.approx(1, rel=0.9)
    assert large["Classifier"]["p50_ms"] > figures["overhead"]["native"]["Classifier"]["p50_ms"]
    bare, ours = figures["cold"]["bare script"], figures["cold"]["catdog_edge"]
    assert bare["time_ratio"] == bare["memory_ratio"] == 1
    assert ours["memory_ratio"] == pytest.approx(ours["resident_mb"] / bare["resident_mb"])
    assert 10 < ours["resident_mb"] <= ours["peak_mb"] < 1000
    assert 0.01 < ours["first_answer_s"] < 60
    assert list(figures["leak"]) == ["1", "10", "100", "1000"]
    assert all(10 < size < 1000 for size in figures["leak"].values())


@pytest.mark.slow
def test_every_way_to_wait_is_timed_in_every_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--model", str(TINY), "--threads", "1", "--seconds", "0.1"]
    options = classifier_overhead.main.parse_args(arguments)
    monkeypatch.setattr(classifier_overhead, "picture", lambda h, w: np.zeros((h, w, 3), np.uint8))
    found = Study(options).spinning()
    beside = [scene for scene in found if scene.startswith("beside")]
    assert [scene[-11:] for scene in beside] == ["(1 threads)", "(2 threads)"]
    for timing in (found["alone"], found["two alternating sessions"], *map(found.get, beside)):
        assert set(classifier_overhead.WAITS) <= set(timing)
    assert all(found[scene]["decoded frames per second"] > 1 for scene in beside)
    paced = found["processor time per frame at 30 frames per second"]
    assert list(paced) == list(classifier_overhead.WAITS)
