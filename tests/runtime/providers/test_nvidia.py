"""Sessions on NVIDIA's GPUs, without one; with one: `runtime/test_classifier_on_cuda.py`."""

from __future__ import annotations

import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.images.toy_frames import images
from support.paths import DATA

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

from catdog_edge import Classifier, ModelError, ProviderError
from catdog_edge.cli import doctor
from catdog_edge.runtime import model_file
from catdog_edge.runtime.model_file import ZOO, find_model
from catdog_edge.runtime.providers import io_binding, nvidia, selection, start
from catdog_edge.runtime.providers.io_binding import BoundRunner

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
TINY, KNOWN = DATA / "tiny.onnx", DATA / "tiny_known.onnx"
ONE = start.Settings(1, spin=False)


REFUSED = (
    "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture feature as "
    "requested by the user as the model has control flow nodes which can't be supported by "
    "CUDAExecutionProvider"
)


def test_the_best_options_come_first_and_given_ones_stay() -> None:
    ways = nvidia.attempts(find_model(TINY), [(CUDA, {"device_id": "1"}), (CPU, {})])
    assert [dict(way.pairs)[CUDA] for way in ways] == [
        {"prefer_nhwc": "1", "use_tf32": "1", "enable_cuda_graph": "1", "device_id": "1"},
        {"prefer_nhwc": "1", "use_tf32": "1", "device_id": "1"},
        {"device_id": "1"},
    ]
    assert all(way.pairs[1:] == [(CPU, {})] for way in ways)
    given = nvidia.attempts(find_model(TINY), [(CUDA, {"enable_cuda_graph": "0", "use_tf32": "0"})])
    assert [dict(way.pairs)[CUDA]["enable_cuda_graph"] for way in given] == ["0", "0"]
    assert [dict(way.pairs)[CUDA]["use_tf32"] for way in given] == ["0", "0"]


def test_what_is_on_is_named() -> None:
    assert nvidia.features(nvidia.NHWC | nvidia.GRAPHS) == "NHWC, CUDA graphs, TF32 on"
    assert nvidia.features({"prefer_nhwc": "0", "use_tf32": "0"}) == "TF32 off"
    assert nvidia.features({}) == "TF32 on"  # a build that does not say has it on


class OnCuda:
    """A session on the CPU that says that it is one on CUDA, with these options."""

    def __init__(self, file: model_file.ModelFile, options: dict[str, str]) -> None:
        self._options = options
        self._session = start.start_session(file, [(CPU, {})], ONE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {CUDA: self._options}


@pytest.fixture
def cuda_refuses(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Give sessions on the CPU for CUDA; a test adds options that are refused."""
    refused: dict[str, str] = {}

    def start_session(file: Any, pairs: start.Pairs, settings: Any) -> Any:
        if CUDA not in dict(pairs):
            return start.start_session(file, pairs, settings)
        options = dict(pairs)[CUDA]
        for option, error in refused.items():
            if options.get(option) == "1":
                raise ProviderError("cuda does not run here") from RuntimeError(error)
        return OnCuda(file, options)

    def bind(session: Any, provider: str, outputs: list[str]) -> BoundRunner | None:
        if provider != "cuda":
            return None
        graphs = nvidia.captures_graphs(session.get_provider_options()[CUDA])
        return BoundRunner(session._session, outputs, "cpu", graphs=graphs)

    monkeypatch.setattr(selection, "start_session", start_session)
    monkeypatch.setattr(selection, "bind", bind)
    return refused


def test_what_suits_no_model_is_left_out_with_a_reason(cuda_refuses: dict[str, str]) -> None:
    best = Classifier(TINY, "cuda")
    assert best.reason == "asked for by name; NHWC, CUDA graphs, TF32 on"
    cuda_refuses["enable_cuda_graph"] = REFUSED
    plainer = Classifier(TINY, "cuda")
    assert plainer.reason == (
        "asked for by name; NHWC, TF32 on; no CUDA graphs (the model has control flow nodes which "
        "can't be supported by CUDAExecutionProvider)"
    )
    assert plainer.reason in repr(plainer)
    cuda_refuses["prefer_nhwc"] = "Unknown provider option: prefer_nhwc"
    oldest = Classifier(TINY, "cuda").reason
    assert oldest.startswith("asked for by name; TF32 on; neither CUDA graphs nor NHWC (Unknown")
    cuda_refuses["device_id"] = "no CUDA-capable device is detected"
    with pytest.raises(ProviderError):
        Classifier(TINY, [("cuda", {"device_id": 1})])


def let_captures_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: BoundRunner, rows: io_binding.Rows) -> Any:
        if self._graphs:
            raise RuntimeError("CUDA failure 900: operation not permitted")
        return called(self, rows)

    called = BoundRunner.__call__
    monkeypatch.setattr(BoundRunner, "__call__", failing)


def test_a_capture_that_fails_costs_the_graph_and_no_answer(
    cuda_refuses: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pets, frames = Classifier(TINY, "cuda"), list(images(3))
    expected = Classifier(TINY, "cpu").probabilities(frames)

    let_captures_fail(monkeypatch)
    np.testing.assert_allclose(pets.probabilities(frames), expected, atol=1e-6)
    assert "NHWC, TF32 on; no CUDA graphs (CUDA failure 900" in pets.reason
    monkeypatch.setattr(BoundRunner, "__call__", lambda *_: np.stack([np.zeros(1)] * -1))
    with pytest.raises(ValueError, match="need at least"):  # a fault of ours stays one
        pets.probabilities(frames)


@pytest.mark.parametrize("in_trial", [True, False])
def test_a_capture_that_fails_with_auto_costs_the_graph_and_not_the_gpu(
    in_trial: bool, cuda_refuses: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if in_trial:
        let_captures_fail(monkeypatch)
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    monkeypatch.setattr(selection, "accelerators", lambda: ["cuda"])
    compared = selection.time_sessions

    def compare(*sessions: Any) -> tuple[str, str]:
        assert "cuda failed" not in compared(*sessions)[1]
        return "cuda", "fastest"

    monkeypatch.setattr(selection, "time_sessions", compare)
    pets = Classifier(TINY)
    if not in_trial:
        let_captures_fail(monkeypatch)
        pets.warmup(1)
    assert pets.reason == (
        "fastest; NHWC, TF32 on; no CUDA graphs (CUDA failure 900: operation not permitted)"
    )
    assert pets(images(1)[0]) == Classifier(TINY, "cpu")(images(1)[0])


def test_when_nothing_is_left_to_leave_out_the_error_is_one_line(
    cuda_refuses: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("CUDA failure 700: an illegal memory access")

    monkeypatch.setattr(BoundRunner, "__call__", failing)
    pets = Classifier(TINY, "cuda")
    with pytest.raises(ModelError, match=r"illegal memory access.*take the provider cpu"):
        pets(images(1)[0])


def test_many_threads_go_on_without_graphs(cuda_refuses: dict[str, str]) -> None:
    pets, frame = Classifier(TINY, "cuda"), images(1)[0]
    expected = pets(frame)
    for number in range(io_binding.GRAPH_THREADS + 2):  # this thread is one of them
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(pets, frame).result() == expected
        graphs = number + 2 <= io_binding.GRAPH_THREADS
        assert ("TF32 on; no CUDA graphs (more than 8 threads" in pets.reason) is not graphs


def test_chunks_are_larger_on_a_gpu(
    cuda_refuses: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    called = BoundRunner.__call__
    monkeypatch.setattr(
        BoundRunner, "__call__", lambda self, rows: sizes.append(len(rows)) or called(self, rows)
    )
    frames = images(300)
    found = Classifier(TINY, "cuda").probabilities(frames)
    assert sizes == [256, 44]
    np.testing.assert_allclose(found, Classifier(TINY, "cpu").probabilities(frames), atol=1e-6)


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped model, `tiny`, that has a form of its own for GPUs."""
    shutil.copy(TINY, tmp_path / "tiny.onnx")
    shutil.copy(DATA / "tiny_rejecting.onnx", tmp_path / "tiny.half.onnx")
    monkeypatch.setattr(model_file, "ZOO", tmp_path)
    return tmp_path


def test_a_shipped_model_is_a_family(family: Path, cuda_refuses: dict[str, str]) -> None:
    assert model_file.shipped_models() == ["tiny"]
    on_cpu, on_gpu = Classifier("tiny", "cpu"), Classifier("tiny", "cuda")
    assert (on_cpu.path, on_gpu.path) == (family / "tiny.onnx", family / "tiny.half.onnx")
    assert on_gpu.spec.rejection is not None  # it is the other file
    assert pickle.loads(pickle.dumps(on_gpu)).path == family / "tiny.half.onnx"
    # A file that is named is the file that runs.
    assert Classifier(family / "tiny.onnx", "cuda").path == family / "tiny.onnx"
    (family / "tiny.half.onnx").unlink()
    assert Classifier("tiny", "cuda").path == family / "tiny.onnx"


def test_the_trial_compares_each_provider_with_its_own_form(
    family: Path, cuda_refuses: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(DATA / "tiny_leaning.onnx", family / "tiny.half.onnx")  # answers otherwise
    monkeypatch.setattr(selection, "accelerators", lambda: ["cuda"])
    found = Classifier("tiny")
    assert "left out" not in found.reason
    assert found.path == family / ("tiny.half.onnx" if found.provider == "cuda" else "tiny.onnx")
    assert Classifier("tiny").reason.startswith(found.reason.partition("; ")[0] + ", remembered")
    # Of one form, another answer is a fault of the provider.
    cpu = start.start_session(find_model(TINY), [(CPU, {})], ONE)
    differs = selection.time_sessions(
        {"cpu": cpu, "cuda": OnCuda(find_model(DATA / "tiny_leaning.onnx"), {})}  # type: ignore[dict-item]
    )
    assert differs[0] == "cpu"
    assert "cuda left out, its answers differ" in differs[1]


def test_int8_on_a_gpu_names_the_form_that_is_faster(
    tmp_path: Path, cuda_refuses: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    static, half = tmp_path / "model.static.onnx", tmp_path / "model.half.onnx"
    other = "int8 is slow on cuda; faster is what catdog-edge export --for cuda makes"
    assert nvidia.faster_form(static, "cuda", "int8-static") == other
    assert nvidia.faster_form(None, "cuda", "int8-static") == other
    half.touch()
    beside = "int8 is slow on tensorrt; faster is model.half.onnx beside it"
    assert nvidia.faster_form(static, "tensorrt", "int8-dynamic") == beside
    assert nvidia.faster_form(half, "cuda", "fp16") == ""

    alone = shutil.copy(ZOO / "fast.onnx", tmp_path / "fast.onnx")
    assert Classifier(alone, "cuda").reason.endswith(f"TF32 on; {other}")
    assert "int8" not in Classifier(alone, "cpu").reason
    monkeypatch.setattr(model_file, "ZOO", tmp_path)
    for offered, remedy in (([], ""), (["cuda"], other)):
        monkeypatch.setattr(selection, "accelerators", lambda offered=offered: offered)
        assert [check.remedy for check in doctor._models()] == [remedy]


HERE = {"GPU": "NVIDIA X", "driver": "580.1", "TensorRT": "101100", "onnxruntime": "1.31.1"}


def test_an_engine_is_kept_by_model_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = [HERE, *({**HERE, key: "other"} for key in HERE)]
    folders = {nvidia.engine_folder(find_model(TINY), machine) for machine in machines}
    folders.add(nvidia.engine_folder(find_model(KNOWN), HERE))
    assert len(folders) == len(HERE) + 2
    folder = nvidia.engine_folder(find_model(TINY.read_bytes()), HERE)
    assert folder in folders  # the same content is the same model
    assert folder.parent.name == "tensorrt"
    monkeypatch.setattr(nvidia, "tensorrt_machine", lambda device_id: HERE)
    best, plainer = nvidia.attempts(find_model(TINY), [(TENSORRT, {"trt_fp16_enable": "True"})])
    options = dict(best.pairs)[TENSORRT]
    assert options == {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
        "trt_fp16_enable": "True",  # given; the model is fp32
        "trt_cuda_graph_enable": "True",
    }
    assert nvidia.tensorrt_options(folder, "fp16")["trt_fp16_enable"] == "True"
    assert nvidia.tensorrt_options(folder, "fp32")["trt_fp16_enable"] == "False"
    assert "trt_cuda_graph_enable" not in dict(plainer.pairs)[TENSORRT]


def test_tensorrt_after_cuda_has_its_cache_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "tensorrt_machine", lambda device_id: {**HERE, "TensorRT": ""})
    pairs = [(CUDA, {"device_id": "1"}), (TENSORRT, {"device_id": "1"}), (CPU, {})]
    folder = str(nvidia.engine_folder(find_model(TINY), {**HERE, "TensorRT": ""}))
    for way in nvidia.attempts(find_model(TINY), pairs):
        assert [name for name, _ in way.pairs] == [CUDA, TENSORRT, CPU]
        options = dict(way.pairs)[TENSORRT]
        assert (options["device_id"], options["trt_engine_cache_path"]) == ("1", folder)
        assert nvidia.engine_source(find_model(TINY), way.pairs) is not None


def test_int8_is_refused_before_tensorrt_builds_an_engine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = shutil.copy(ZOO / "fast.onnx", tmp_path / "own.static.onnx")
    why = r"own\.static\.onnx is int8-static, of which it builds no engine; take "
    with pytest.raises(ProviderError, match=f"{why}what catdog-edge export --for cuda makes; or"):
        Classifier(alone, "tensorrt")
    (tmp_path / "own.half.onnx").touch()
    with pytest.raises(ProviderError, match=rf"{why}own\.half\.onnx beside it; or take the"):
        Classifier(alone, ["tensorrt", "cuda"])
    assert not caplog.records
    # Behind CUDA, which runs int8, little is left for it.
    assert nvidia.attempts(find_model(alone), [(CUDA, {}), (TENSORRT, {})])


def test_a_device_of_tensorrt_that_is_no_number_is_named() -> None:
    with pytest.raises(ProviderError, match=r"tensorrt does not run here: device_id .* got 'x'"):
        Classifier(TINY, [("tensorrt", {"device_id": "x"})])


def test_what_tensorrt_leaves_to_cuda_runs_on_the_same_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Started:
        def get_providers(self) -> list[str]:
            return [TENSORRT, CUDA, CPU]

    def create(file: Any, pairs: start.Pairs, settings: Any) -> Started:
        tried.append(list(pairs))
        return Started()

    tried: list[start.Pairs] = []
    monkeypatch.setattr(start, "_check_build", lambda names: None)
    monkeypatch.setattr(start, "_create", create)
    given = {"device_id": "1", "trt_fp16_enable": "True"}
    start.start_session(find_model(TINY), [(TENSORRT, given)], ONE)
    assert tried == [[(TENSORRT, given), (CUDA, {"device_id": "1"}), (CPU, {})]]


def test_a_choice_is_remembered_for_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for card in ("NVIDIA X", "NVIDIA Y"):
        monkeypatch.setattr(nvidia, "gpu_and_driver", lambda card=card: {"GPU": card})
        keys |= {selection._key(find_model(TINY), ONE, others) for others in (["cuda"], [])}
    assert len(keys) == 3  # without CUDA the card does not matter


def test_no_engine_is_built_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    monkeypatch.setattr(nvidia, "tensorrt_machine", lambda device_id: HERE)
    file = nvidia.model_for(find_model("fast"), "tensorrt")
    (way, _) = nvidia.attempts(file, [(TENSORRT, {})])
    told = nvidia.engine_source(file, way.pairs)
    assert told is not None
    assert re.fullmatch(r"engine built in \d+ s", told())
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "takes minutes" in record.getMessage()
    assert "catdog-edge build fast --provider tensorrt" in record.getMessage()
    folder = Path(dict(way.pairs)[TENSORRT]["trt_engine_cache_path"])
    (folder / "TensorrtExecutionProvider_x_sm90.engine").touch()
    told = nvidia.engine_source(file, way.pairs)
    assert told is not None
    assert told() == "engine from the cache"
    assert len(caplog.records) == 1
    # Where nothing can be built nothing is announced.
    monkeypatch.setattr(nvidia, "tensorrt_machine", lambda device_id: {**HERE, "TensorRT": ""})
    nvidia.engine_source(
        find_model(TINY), [(TENSORRT, {"trt_engine_cache_path": str(tmp_path / "none")})]
    )
    assert len(caplog.records) == 1
    assert not (tmp_path / "none").exists()
    assert nvidia.engine_source(find_model(TINY), [(CUDA, {})]) is None


def test_an_engine_has_one_shape_and_a_batch_runs_in_pieces() -> None:
    options = start.session_options(ONE)
    options.add_free_dimension_override_by_name(*start.TENSORRT_BATCH)
    session = onnxruntime.InferenceSession(str(KNOWN), options, providers=[CPU])
    assert [value.shape[0] for value in (*session.get_inputs(), *session.get_outputs())] == [1] * 3
    pets, frames = Classifier(KNOWN, "cpu"), images(5)
    expected = pets.probabilities(frames)
    pets._session._session, pets._session.fixed_batch = session, 1
    np.testing.assert_allclose(pets.probabilities(frames), expected, atol=1e-6)


def test_a_gpu_is_named_and_has_the_address_that_cuda_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tell(text: str) -> Any:
        def write(buffer: Any, size: int, device: Any) -> int:
            buffer.value = text.encode()
            return 0

        return write

    def get(device: Any, number: int) -> int:
        return 0 if number == 0 else 101  # an invalid device

    cuda = SimpleNamespace(
        cuInit=lambda _: 0, cuDeviceGet=get, cuDeviceGetName=tell("NVIDIA X"),
        cuDeviceGetPCIBusId=tell("0000:65:00.0"),
    )  # fmt: skip

    def load(name: str) -> Any:
        if name != "libcuda.so.1":
            raise OSError(name)
        return cuda

    monkeypatch.setattr(nvidia.ctypes, "CDLL", load)
    assert nvidia.gpu_and_driver() == {"GPU": "NVIDIA X", "driver": ""}
    assert nvidia.pci_bus_id() == "0000:65:00.0"
    assert nvidia.pci_bus_id(1) == nvidia.gpu_and_driver(1)["GPU"] == ""
