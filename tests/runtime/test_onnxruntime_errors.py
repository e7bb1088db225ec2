"""ONNX Runtime's errors, each in one line with a remedy."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
from support.fresh_python import fresh, in_fresh_python
from support.images.toy_frames import RED
from support.paths import DATA, TINY

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from catdog_edge import Classifier, ModelError
from catdog_edge.runtime import onnxruntime_errors
from catdog_edge.runtime.model_file import read_spec


def test_what_onnxruntime_cannot_run_is_one_line() -> None:
    pets = Classifier(DATA / "tiny_batch4.onnx", "cpu")
    pets._session.fixed_batch = None  # as if its shape did not tell
    with pytest.raises(ModelError) as caught:
        pets.batch([RED] * 3)
    said = str(caught.value)
    assert "tiny_batch4.onnx: onnxruntime" in said
    assert "cannot run it on 3 frames (" in said
    assert said.endswith("export the model again or give one frame at a time")
    assert "\n" not in said
    assert len(pets.batch([RED] * 4)) == 4


@pytest.mark.clock  # qemu's user mode ignores the limit
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory")
def test_too_little_memory_is_one_line_and_no_red_one(tmp_path: Path) -> None:
    done = fresh(
        textwrap.dedent("""
        import resource
        from pathlib import Path
        import numpy as np
        from catdog_edge import Classifier, ModelError
        pets, frame = Classifier(provider="cpu", threads=1), np.zeros((128, 128, 3), np.uint8)
        pets(frame)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 4 * 2**20, resource.RLIM_INFINITY))
        try:
            pets.batch([frame] * 32)
        except ModelError as error:
            print(error)
        print(pets(frame).label)
        """),
        tmp_path,
    )
    said, after = done.stdout.splitlines()
    assert said.endswith("not enough memory to run it; free some, or give fewer frames at a time")
    assert after in ("cat", "dog", "neither")
    assert not done.stderr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std::bad_alloc"),
        RuntimeError("env.cc:327 PosixThread() pthread_create failed, error code: 12"),
        RuntimeError("bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 1"),
    ],
)
def test_too_little_memory_is_not_the_models_fault(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(ModelError, match=r"tiny\.onnx: there is not enough memory .*; free some"):
        read_spec(TINY)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA failure 2: out of memory ; GPU=0",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
    ],
)
def test_too_little_memory_of_a_gpu_has_remedies_for_it(message: str) -> None:
    error = RuntimeError(message)
    said = "x.onnx: there is not enough memory to run it; free some of the GPU's memory, or "
    cpu = "take the provider cpu"
    assert str(onnxruntime_errors.call_error("x.onnx", error, 1, "cuda")) == said + cpu
    several = onnxruntime_errors.call_error("x.onnx", error, 9, "cuda")
    assert str(several) == f"{said}give fewer frames at a time, or {cpu}"
    of_numpy = onnxruntime_errors.call_error("x.onnx", MemoryError(), 9, "cuda")
    assert str(of_numpy).endswith("; free some, or give fewer frames at a time")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "libcublasLt.so.13: cannot open shared object file: No such file or directory",
            "the library libcublasLt.so.13 failed to load",
        ),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=0", "there is no CUDA device"),
        ("CUDA driver version is insufficient for CUDA runtime", "the NVIDIA driver is too old"),
        (
            "/onnxruntime_src/onnxruntime/python/state.cc:729 void onnxruntime::Register() "
            "[ONNXRuntimeError] : 1 : FAIL : Please install TensorRT\nlibraries.",
            "Please install TensorRT libraries.",
        ),
    ],
)
def test_why_a_provider_does_not_start_is_one_line(
    message: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_errors, "installed_build", lambda: "onnxruntime-gpu 1.31.1")
    assert str(onnxruntime_errors.start_error("cuda", message)) == (
        f"cuda does not run here: {reason} (onnxruntime-gpu 1.31.1); install NVIDIA's driver and: "
        "pip install --upgrade 'onnxruntime-gpu[cuda,cudnn]'; or take the provider cpu"
    )


def test_a_process_without_stderr_is_no_obstacle() -> None:
    program = f"""
        import os
        os.close(2)
        from catdog_edge import Classifier, ProviderError
        import numpy as np
        try:
            Classifier({str(TINY)!r}, provider="cuda")
        except ProviderError as error:
            print("said")
        print(Classifier({str(TINY)!r})(np.zeros((4, 4, 3), np.uint8)).labels)
    """
    assert "('cat', 'dog')" in in_fresh_python(program).stdout
