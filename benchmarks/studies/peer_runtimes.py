"""The runtimes that `peers` compares: how each is opened, and fed one frame.

Knows the API of each peer, nothing of clocks. Every function takes a `Setting` and returns a
call from a frame (`uint8 [H,W,3]` BGR, of any size) to probabilities (`float32 [1,K]`), with the
resize of the spec. Packages are imported when their peer is opened.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.rows import BenchRow, TorchRunner
from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import Image, preprocess, to_layout, to_nchw
from catdog_edge.runtime.model_file import PROBABILITIES
from catdog_edge.spec import ModelSpec
from catdog_edge.training.evaluation.metrics import softmax

Ask = Callable[[Image], npt.NDArray[np.float32]]

ULTRALYTICS = "yolo11n-cls"
"""Their architecture that is exported for the cost of their wrapper; with fresh weights."""


@dataclass(frozen=True)
class Setting:
    """What every peer is made from.

    Attributes:
        weights: Our checkpoint.
        model: Our exported file.
        spec: Of the exported file.
        threads: For every peer.
        scratch: A folder for files that a peer converts.
    """

    weights: Path
    model: Path
    spec: ModelSpec
    threads: int
    scratch: Path


def classifier(setting: Setting, provider: str = "cpu") -> Ask:
    """Ours: `Classifier`, called with the frame."""
    from catdog_edge.runtime.classifier import Classifier

    pets = Classifier(setting.model, provider=provider, threads=setting.threads, reject=False)
    return lambda frame: np.array([pets(frame).probabilities], np.float32)


def classifier_openvino(setting: Setting) -> Ask:
    """Ours with the provider of the plugin `onnxruntime-ep-openvino`."""
    return classifier(setting, "openvino")


def bare_onnxruntime(setting: Setting) -> Ask:
    """The least code that runs the file with ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads
    session = onnxruntime.InferenceSession(
        str(setting.model), options, providers=["CPUExecutionProvider"]
    )
    name, steps = session.get_inputs()[0].name, setting.spec.resize

    def ask(frame: Image) -> npt.NDArray[np.float32]:
        batch = to_layout(preprocess(frame, steps)[None], setting.spec.layout)
        result: npt.NDArray[np.float32] = session.run([PROBABILITIES], {name: batch})[0]
        return result

    return ask


@functools.cache
def _openvino_core() -> Any:
    """The one `openvino.Core` of the process, never freed.

    Each one takes the thread's stack for signals (`sigaltstack`) and gives back, when it is
    freed, the stack that it found. Two that are freed in the order of their making leave
    signals on a stack that is gone: the next Ctrl-C then ends the process without a word.
    """
    import openvino as ov

    return ov.Core()


def openvino(setting: Setting, precision: str | None = None) -> Ask:
    """OpenVINO's own API on the file, tuned for latency."""
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": setting.threads}
    if precision is not None:
        config["INFERENCE_PRECISION_HINT"] = precision
    compiled = _openvino_core().compile_model(str(setting.model), "CPU", config)
    request, port = compiled.create_infer_request(), compiled.output(PROBABILITIES)
    steps = setting.spec.resize

    def ask(frame: Image) -> npt.NDArray[np.float32]:
        request.infer([to_layout(preprocess(frame, steps)[None], setting.spec.layout)])
        return np.array(request.get_tensor(port).data, np.float32)

    return ask


def openvino_f32(setting: Setting) -> Ask:
    """The same, held to float32 (by default it computes in bfloat16 where that is fast)."""
    return openvino(setting, "f32")


def opencv_dnn(setting: Setting) -> Ask:
    """`cv2.dnn` on the float32 checkpoint, exported with the classical float input."""
    from catdog_edge.training.models.checkpoint import load_checkpoint
    from exporters.formats.torch_export import export_onnx

    network, spec = load_checkpoint(setting.weights)
    file = setting.scratch / "opencv.onnx"
    export_onnx(network, spec, file, layout="nchw-float", batch=1)
    net = cv2.dnn.readNetFromONNX(str(file))
    spec = spec.replace(layout="nchw-float")

    def ask(frame: Image) -> npt.NDArray[np.float32]:
        if cv2.getNumThreads() != setting.threads:
            cv2.setNumThreads(setting.threads)
        net.setInput(to_layout(preprocess(frame, spec.resize)[None], spec.layout))
        return np.asarray(net.forward(PROBABILITIES), np.float32)

    return ask


def ncnn(setting: Setting) -> Ask:
    """ncnn, on the float32 checkpoint as its converter pnnx makes it."""
    import ncnn as runtime
    import pnnx
    import torch

    from catdog_edge.training.models.checkpoint import load_checkpoint

    network, spec = load_checkpoint(setting.weights)
    with _quiet(), contextlib.chdir(setting.scratch):
        pnnx.export(network, "peer.pt", (torch.zeros(1, 3, *spec.size),), fp16=False)
    net = runtime.Net()
    net.opt.num_threads = setting.threads
    if net.load_param(str(setting.scratch / "peer.ncnn.param")) or net.load_model(
        str(setting.scratch / "peer.ncnn.bin")
    ):
        raise CatdogError("ncnn cannot load what pnnx converted")
    mean = list(spec.normalization.mean)
    factor = [1 / value for value in spec.normalization.std]

    def ask(frame: Image) -> npt.NDArray[np.float32]:
        picture = preprocess(frame, spec.resize)
        height, width = spec.size
        mat = runtime.Mat.from_pixels(picture, runtime.Mat.PixelType.PIXEL_BGR2RGB, width, height)
        mat.substract_mean_normalize(mean, factor)
        extractor = net.create_extractor()
        extractor.input("in0", mat)
        _, out = extractor.extract("out0")
        logits = np.array(out, np.float32)[None, : len(spec.labels)]
        return softmax(logits / spec.temperature)

    return ask


def pytorch(setting: Setting, variant: Any = "eager") -> Ask:
    """PyTorch on the checkpoint, as `bench` runs it."""
    row = BenchRow("pytorch", "pytorch", str(setting.weights), setting.threads, variant=variant)
    subject = TorchRunner(row)
    return lambda frame: subject.probabilities([frame])


def pytorch_compiled(setting: Setting) -> Ask:
    """The same through `torch.compile`."""
    return pytorch(setting, "compile")


class Ultralytics:
    """Their own architecture at our input size: their `predict`, and the bare file beneath.

    Args:
        setting: Threads and size; our weights have no part in it.
    """

    def __init__(self, setting: Setting) -> None:
        os.environ.setdefault("YOLO_OFFLINE", "true")
        os.environ.setdefault("YOLO_AUTOINSTALL", "false")
        os.environ.setdefault("YOLO_VERBOSE", "false")
        from ultralytics import YOLO

        self._setting = setting
        self._size = setting.spec.height
        self._file = setting.scratch / "ultralytics.onnx"
        if self._file.is_file():  # opened before
            return
        with _quiet(), contextlib.chdir(setting.scratch):
            fresh = YOLO(f"{ULTRALYTICS}.yaml", task="classify")
            exported = fresh.export(format="onnx", imgsz=self._size, device="cpu", opset=17)
            Path(exported).absolute().replace(self._file)

    def predict(self) -> Ask:
        """`YOLO(file).predict(frame)`, with their own preprocessing and results."""
        from ultralytics import YOLO

        with _quiet():
            model = YOLO(str(self._file), task="classify")

        def ask(frame: Image) -> npt.NDArray[np.float32]:
            result = model.predict(frame, imgsz=self._size, device="cpu", verbose=False)[0]
            return np.asarray(result.probs.data.numpy(), np.float32)[None]

        return ask

    def bare(self) -> Ask:
        """Their file in a bare session, after our resize."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._setting.threads
        session = onnxruntime.InferenceSession(
            str(self._file), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name

        def ask(frame: Image) -> npt.NDArray[np.float32]:
            picture = preprocess(frame, self._setting.spec.resize)
            batch = to_nchw(picture[None])
            return np.asarray(session.run(None, {name: batch})[0], np.float32)

        return ask


PEERS: dict[str, Callable[[Setting], Ask]] = {
    "Classifier": classifier,
    "Classifier, openvino": classifier_openvino,
    "onnxruntime": bare_onnxruntime,
    "openvino": openvino,
    "openvino, f32": openvino_f32,
    "cv2.dnn": opencv_dnn,
    "ncnn": ncnn,
    "pytorch": pytorch,
    "pytorch, compiled": pytorch_compiled,
}
"""The peers on our files; the first is what the others are compared with."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep converters from talking, also those that write past Python."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    with Path(os.devnull).open("wb") as nowhere:
        for number in kept:
            os.dup2(nowhere.fileno(), number)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            for number, copy in kept.items():
                os.dup2(copy, number)
                os.close(copy)
