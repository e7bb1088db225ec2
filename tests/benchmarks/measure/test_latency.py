"""Timed rows: real sessions, the stages of a call, fresh processes."""

from __future__ import annotations

import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnx", reason="needs onnx (the [train] extra)")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

import onnxruntime
from support.models.bench_run import onnx_row

from benchmarks.bench_rows import BenchRow, OnnxRunner, TorchRunner, open_row, plan_rows
from benchmarks.measure import interleaved, latency
from benchmarks.measure.environment import ActivityMonitor
from catdog_edge.runtime.model_file import ZOO
from catdog_edge.system.threads import choose_threads

pytestmark = [pytest.mark.train, pytest.mark.slow]


def test_every_kind_of_row_answers_alike(run, frames):
    rows = plan_rows(run.weights, [run.folder / "model.onnx"], threads=(1,))
    answers = [open_row(row).probabilities(frames) for row in rows]
    assert [type(open_row(row)) for row in rows] == [TorchRunner, TorchRunner, OnnxRunner]
    for answer in answers:
        assert answer.shape == (8, 2)
        assert np.abs(answer - answers[0]).max() < 1e-4


def test_a_stage_is_a_part_of_its_call(run, frames):
    found = latency.stages(open_row(onnx_row(run)), frames, seconds=0.5)
    assert list(found) == ["decode", "resize", "session", "rest", "answer"]
    assert 0 < found["resize"] < found["session"] < found["answer"] * 2
    assert abs(found["rest"]) < found["answer"]
    assert found["decode"] > 0


def test_a_batch_goes_through_all_frames(run, frames):
    subject = open_row(onnx_row(run, batch=3))
    seen = []
    asked = subject.probabilities

    class Spy:
        row, spec = subject.row, subject.spec

        def probabilities(self, batch):
            seen.append([next(i for i, f in enumerate(frames) if f is one) for one in batch])
            return asked(batch)

    call = latency._call(Spy(), frames)
    for _ in range(4):
        call()
    assert seen[:3] == [[0, 1, 2], [3, 4, 5], [6, 7, 0]]
    assert seen[3] == seen[0]


@pytest.mark.clock
def test_a_row_measures_the_same_alone_and_beside_others(run, frames):
    # The quickest blocks are compared, since a neighbour on the machine can make any other block
    # slower; three tries against chance.
    rows = [onnx_row(run, threads=2), onnx_row(run, "model.dynamic", threads=2)]
    torch_row = BenchRow("pytorch", "pytorch", str(run.weights), 2)
    subjects = [open_row(row) for row in (torch_row, *rows)]
    ratios, monitor = [], ActivityMonitor()
    for _ in range(3):
        alone = interleaved.measure({"model": latency._call(subjects[1], frames)}, 2.0)
        beside = latency.time_rows(subjects, frames, 6.0)
        ratios.append(_quickest(beside, "model") / _quickest(alone, "model"))
        if 1 / 1.3 < ratios[-1] < 1.3:
            return
    _fail_if_quiet(f"beside others a row takes {ratios} times what it takes alone", monitor)


def _fail_if_quiet(reason, monitor):
    """A neighbour, such as a second process of tests, slows one part or the other."""
    busy = monitor.stop().others_busy
    if busy > 0.2:
        pytest.skip(f"others took {busy:.1f} processors meanwhile: {reason}")
    pytest.fail(reason)


def _quickest(measured, name):
    return np.percentile(measured.summaries[name].rounds_ms, 10)


@pytest.mark.clock
@pytest.mark.skipif(choose_threads().count < 2, reason="one processor: no threads wait for others")
def test_blocks_and_pauses_are_what_keeps_sessions_from_slowing_one_another():
    """Bare sessions: their threads spin on after a call, which those of `Classifier` soon end."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    frame = np.zeros((1, 192, 192, 3), np.uint8)

    def bare():
        session = onnxruntime.InferenceSession(
            str(ZOO / "fast.onnx"), options, providers=["CPUExecutionProvider"]
        )
        return lambda: session.run(None, {"frames": frame})

    calls = {"one": bare(), "other": bare()}
    found, monitor = [], ActivityMonitor()
    for _ in range(3):
        alone = interleaved.measure({"one": calls["one"]}, 2.0).summaries["one"].mean_ms
        beside = interleaved.measure(calls, 4.0).summaries["one"].mean_ms
        by_turns = []
        for _ in range(400):
            calls["other"]()
            start = time.perf_counter()
            calls["one"]()
            by_turns.append(1e3 * (time.perf_counter() - start))
        found.append((beside / alone, np.mean(by_turns) / alone))
        as_alone = any(1 / 1.3 < ratio < 1.3 for ratio, _ in found)
        slowed = any(control > 1.3 for _, control in found)
        if as_alone and slowed:
            return
    if not slowed:
        pytest.skip(f"sessions that take turns call by call do not slow one another here: {found}")
    _fail_if_quiet(
        f"beside another, and call by call, it takes {found} times what it takes alone", monitor
    )


def test_every_pass_is_timed_on_rows_of_its_own(run, frames, monkeypatch):
    """Those that answered before stay open beside all passes, and none of them is timed."""
    kept = [open_row(row) for row in plan_rows(run.weights, [], threads=(1,))]
    opened = []

    def opening(row):
        opened.append(open_row(row))
        return opened[-1]

    monkeypatch.setattr(latency, "open_row", opening)
    asked = []
    for one in kept:
        monkeypatch.setattr(one, "probabilities", lambda frames: asked.append(frames))
    measured = latency.time_rows(kept, frames, seconds=4.0)
    assert len(measured.timing.starts) == interleaved.PASSES
    assert len(opened) == interleaved.PASSES * len(kept)
    assert not asked
