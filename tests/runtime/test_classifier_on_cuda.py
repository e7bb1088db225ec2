"""Classifiers on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.images.toy_frames import images
from support.paths import DATA

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from catdog_edge import Classifier
from catdog_edge.runtime import model_file
from catdog_edge.runtime.model_file import ZOO
from catdog_edge.runtime.providers import io_binding, nvidia

CUDA = "CUDAExecutionProvider"
TINY, KNOWN = DATA / "tiny.onnx", DATA / "tiny_known.onnx"

TF32 = 5e-3
"""What its ten bits may change of a probability of the toy models."""

needs_cuda = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        CUDA not in onnxruntime.get_available_providers(),
        reason="this build of onnxruntime has no CUDA",
    ),
]


@pytest.fixture(scope="module")
def on_cuda() -> Classifier:
    return Classifier(KNOWN, "cuda")


class TestOnCuda:
    pytestmark = needs_cuda

    def test_it_has_all_and_answers_as_the_cpu(self, on_cuda: Classifier) -> None:
        assert on_cuda.reason == "asked for by name; NHWC, CUDA graphs, TF32 on"
        cpu, frames = Classifier(KNOWN, "cpu"), list(images(70))
        for _ in range(3):  # captured, replayed, replayed
            for count in (1, 2, 32, 70, 1):
                part = frames[-count:]
                found, wanted = on_cuda.probabilities(part), cpu.probabilities(part)
                np.testing.assert_allclose(found, wanted, atol=TF32)
                np.testing.assert_allclose(on_cuda.scores(part), cpu.scores(part), atol=TF32)

    def test_answers_do_not_depend_on_the_batch(self) -> None:
        pets, frames = Classifier("fast", "cuda"), list(images(300, 192, seed=1))
        assert pets.spec.precision == "fp16"
        every = pets.probabilities(frames)
        for count in (1, 2, 7):
            parts = [pets.probabilities(frames[i : i + count]) for i in range(0, 14, count)]
            np.testing.assert_allclose(np.concatenate(parts)[:14], every[:14], atol=1e-3)

    def test_threads_answer_alike(self) -> None:
        pets, frames = Classifier(TINY, "cuda"), list(images(24))
        other = Classifier(KNOWN, "cuda")
        wanted = [Classifier(TINY, "cpu")(frame).confidence for frame in frames]
        with ThreadPoolExecutor(io_binding.GRAPH_THREADS + 4) as pool:
            beside = [pool.submit(other.warmup, batch=n) for n in range(1, 5)]  # captures
            for _ in range(5):
                found = [answer.confidence for answer in pool.map(pets, frames)]
                np.testing.assert_allclose(found, wanted, atol=TF32)
            for one in beside:
                one.result()

    def test_tf32_can_be_left_out(self) -> None:
        pets = Classifier(TINY, [("cuda", {"use_tf32": 0})])
        assert "TF32 off" in pets.reason
        frames = images(8)
        np.testing.assert_allclose(
            pets.probabilities(frames), Classifier(TINY, "cpu").probabilities(frames), atol=2e-5
        )

    def test_a_shipped_model_runs_its_form_for_gpus(self) -> None:
        for name in model_file.shipped_models():
            pets, cpu = Classifier(name, "cuda"), Classifier(name, "cpu")
            assert (pets.path, pets.spec.precision) == (ZOO / f"{name}.half.onnx", "fp16")
            assert pets.reason == "asked for by name; NHWC, CUDA graphs, TF32 on"
            frames = list(images(40, 192))
            half = Classifier(ZOO / f"{name}.half.onnx", "cpu")
            np.testing.assert_allclose(
                pets.probabilities(frames), half.probabilities(frames), atol=1e-2
            )
            difference = np.abs(pets.probabilities(frames) - cpu.probabilities(frames))
            assert difference.mean() < 0.02

    def test_tensorrt_builds_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if not nvidia.tensorrt_machine()["TensorRT"]:
            pytest.skip("TensorRT is not installed")
        monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
        first = Classifier(TINY, "tensorrt")
        assert "engine built in" in first.reason
        frames = images(5)
        np.testing.assert_allclose(
            first.probabilities(frames), Classifier(TINY, "cpu").probabilities(frames), atol=TF32
        )
        assert "engine from the cache" in Classifier(TINY, "tensorrt").reason

    def test_int8_runs_without_a_graph_and_says_why(self) -> None:
        pets = Classifier(ZOO / "fast.onnx", "cuda")
        answer = pets(images(1, 192)[0])
        assert answer.label in (*pets.spec.labels, "neither")
        assert "CUDA graphs (" in pets.reason
        assert pets.reason.endswith("int8 is slow on cuda; faster is fast.half.onnx beside it")

    def test_page_locked_memory_is(self, on_cuda: Classifier) -> None:
        on_cuda.warmup(batch=5)
        bound = on_cuda._session._bound
        assert bound is not None
        assert not bound._bound[5].host.flags.owndata
        assert type(bound._bound[5].host.base.base).__name__ != "ndarray"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of os.fork itself
    def test_a_forked_child_ends(self, on_cuda: Classifier) -> None:
        """CUDA does not survive a fork; the child is told so, and can use the CPU."""
        on_cuda(images(1)[0])
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            with contextlib.suppress(Exception):
                on_cuda(images(1)[0])
            answer = Classifier(TINY, "cpu")(images(1)[0])
            os._exit(0 if answer.label in ("cat", "dog") else 7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        on_cuda(images(1)[0])
