"""Bound buffers and CUDA graphs of a session, with the buffers on the CPU."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.images.toy_frames import images
from support.paths import DATA, TINY

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from catdog_edge import Classifier
from catdog_edge.runtime.model_file import find_model
from catdog_edge.runtime.onnxruntime_errors import TooManyThreadsError
from catdog_edge.runtime.providers import io_binding, start
from catdog_edge.runtime.providers.io_binding import BoundRunner, CaptureGate

CPU = [("CPUExecutionProvider", dict[str, str]())]
KNOWN = DATA / "tiny_known.onnx"
ONE = start.Settings(1, spin=False)


def test_a_graph_has_its_own_number_and_buffers_for_good() -> None:
    session = start.start_session(find_model(KNOWN), CPU, ONE)
    numbers = []
    for _ in range(2):
        runner = BoundRunner(session, ["probabilities", "known"], "cpu", sizes=2, graphs=True)
        for count in (*range(1, 13), 1, 12):
            expected = session.run(None, {"frames": images(count)})
            for got, wanted in zip(runner(images(count)), expected, strict=True):
                np.testing.assert_allclose(got, wanted, atol=1e-6)
        with_graph = {size: one for size, one in runner._bound.items() if one.graph}
        assert list(with_graph) == list(range(1, io_binding.GRAPH_SIZES + 1))
        assert set(runner._bound) - set(with_graph) == {11, 12}  # the last ones
        key = "gpu_graph_id"
        assert runner._bound[12].options.get_run_config_entry(key) == "-1"
        numbers += [one.options.get_run_config_entry(key) for one in with_graph.values()]
    assert len(set(numbers)) == 2 * io_binding.GRAPH_SIZES


def test_an_output_of_unknown_size_has_no_graph() -> None:
    session = start.start_session(find_model(TINY), CPU, ONE)

    class Unknown:
        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

        def get_outputs(self) -> list[Any]:
            return [SimpleNamespace(name="probabilities", shape=["N", "K"])]

    runner = BoundRunner(Unknown(), ["probabilities"], "cpu", graphs=True)  # type: ignore[arg-type]
    expected = Classifier(TINY, "cpu").probabilities(images(2))
    np.testing.assert_allclose(runner(images(2))[0], expected, atol=1e-6)
    assert not runner._bound[2].graph


def test_a_thread_captures_each_size_once(monkeypatch: pytest.MonkeyPatch) -> None:
    session = start.start_session(find_model(TINY), CPU, ONE)
    runner = BoundRunner(session, ["probabilities"], "cpu", graphs=True)
    before = []
    for count in (1, 2, 1, 2):
        before.append(runner._captures(count))
        runner(images(count))
    assert before == [True, True, False, False]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(runner._captures, 1).result()
    runner._threads = io_binding.GRAPH_THREADS
    with ThreadPoolExecutor(1) as pool, pytest.raises(TooManyThreadsError):
        pool.submit(runner, images(1)).result()
    alone, captures = CaptureGate.alone, []
    monkeypatch.setattr(CaptureGate, "alone", lambda self: captures.append(1) or alone(self))
    runner(images(1))
    assert captures == []
    for _ in range(2):
        runner(images(3))
    assert captures == [1]


def test_a_call_after_one_that_failed_captures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    session = start.start_session(find_model(TINY), CPU, ONE)
    fails, alone = [True, False, False], []

    class Short:
        """A session that has too little memory for its first call."""

        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

        def run_with_iobinding(self, *arguments: Any) -> None:
            alone.append(io_binding.GATE._captures == 1)
            if fails.pop(0):
                raise RuntimeError("CUDA failure 2: out of memory")
            session.run_with_iobinding(*arguments)

    runner = BoundRunner(Short(), ["probabilities"], "cpu", graphs=True)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="out of memory"):
        runner(images(1))
    for _ in range(2):
        runner(images(1))
    assert alone == [True, True, False]


def test_a_capture_is_alone() -> None:
    gate, order = CaptureGate(), []
    inside, leave = threading.Event(), threading.Event()

    def call() -> None:
        with gate:
            inside.set()
            leave.wait(10)
            order.append("call")

    def capture() -> None:
        with gate.alone():
            order.append("capture")

    def late() -> None:
        with gate:
            order.append("late")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(call)
        assert inside.wait(10)
        with gate:  # calls do not exclude each other
            pass
        second = pool.submit(capture)
        while not gate._captures:
            time.sleep(0.001)
        third = pool.submit(late)  # it waits for the capture, which would wait for ever otherwise
        leave.set()
        first.result(10)
        second.result(10)
        third.result(10)
    assert order == ["call", "capture", "late"]


def test_page_locked_memory_is_an_array_like_any_other() -> None:
    array = io_binding.page_locked((2, 3, 4), np.dtype(np.float32))
    array[:] = 7
    assert (array.shape, array.dtype, array.flags.c_contiguous) == ((2, 3, 4), np.float32, True)
    assert array.sum() == 7 * 24


def test_bound_buffers_answer_like_plain_calls() -> None:
    """What runs on CUDA, with its buffers on the CPU."""
    session = start.start_session(find_model(KNOWN), CPU, ONE)
    runner = BoundRunner(session, ["probabilities", "known"], "cpu", sizes=2)
    random = np.random.default_rng(0)
    kept = []
    for count in (1, 3, 1, 2, 4, 3, 1):
        batch = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        expected = session.run(None, {"frames": batch})
        kept += [(runner(rows), expected) for rows in (batch, [*batch])]
    for got, expected in kept:  # later calls must not write into earlier results
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
