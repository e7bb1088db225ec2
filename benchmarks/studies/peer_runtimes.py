"""The runtimes that `peers` compares: how each is opened and called on one frame.

Every function returns a call from a frame (`uint8 [H,W,3]` BGR, of any size) to probabilities
(`float32 [1,K]`), with the resize of the spec. A peer's packages are imported when it is opened.
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

from benchmarks.runners import BenchRow, TorchRunner, Variant
from benchmarks.studies.command_line import bare_session
from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import Image, preprocess, to_layout, to_nchw
from catdog_edge.runtime.model_file import PROBABILITIES
from catdog_edge.spec import ModelSpec
from catdog_edge.training.evaluation.metrics import softmax

Classify = Callable[[Image], npt.NDArray[np.float32]]

ULTRALYTICS = "yolo11n-cls"
"""Their architecture that is exported, with fresh weights, for the cost of their wrapper."""


@dataclass(frozen=True)
class PeerConfig:
    """What every peer is made from: our checkpoint and exported file, threads, a scratch folder."""

    weights: Path
    model: Path
    spec: ModelSpec
    threads: int
    scratch: Path

    def batch(self, frame: Image) -> npt.NDArray[Any]:
        """Resize a frame and convert it to the layout of the file."""
        return to_layout(preprocess(frame, self.spec.resize)[None], self.spec.layout)


def classifier(config: PeerConfig, provider: str = "cpu") -> Classify:
    """Our `Classifier`, called with the frame."""
    from catdog_edge.runtime.classifier import Classifier

    pets = Classifier(config.model, provider=provider, threads=config.threads, reject=False)
    return lambda frame: np.array([pets(frame).probabilities], np.float32)


def bare_onnxruntime(config: PeerConfig) -> Classify:
    """The least code that runs the file with ONNX Runtime's CPU provider."""
    session = bare_session(config.model, config.threads)
    name = session.get_inputs()[0].name

    def classify(frame: Image) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = session.run([PROBABILITIES], {name: config.batch(frame)})[
            0
        ]
        return result

    return classify


@functools.cache
def _openvino_core() -> Any:
    """The one `openvino.Core` of the process, never freed.

    Each takes the thread's signal stack (`sigaltstack`) and restores, when freed, the one that it
    found. Two that are freed in the order of their creation leave signals on a stack that is
    gone: the next Ctrl-C then ends the process without a word.
    """
    import openvino as ov

    return ov.Core()


def openvino(config: PeerConfig, precision: str | None = None) -> Classify:
    """OpenVINO's own API on the file, tuned for latency."""
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": config.threads}
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = _openvino_core().compile_model(str(config.model), "CPU", settings)
    request, port = compiled.create_infer_request(), compiled.output(PROBABILITIES)

    def classify(frame: Image) -> npt.NDArray[np.float32]:
        request.infer([config.batch(frame)])
        return np.array(request.get_tensor(port).data, np.float32)

    return classify


def opencv_dnn(config: PeerConfig) -> Classify:
    """`cv2.dnn` on the float32 checkpoint, exported with the classical float input."""
    from catdog_edge.training.models.checkpoint import load_checkpoint
    from exporters.formats.torch_export import export_onnx

    network, spec = load_checkpoint(config.weights)
    file = config.scratch / "opencv.onnx"
    export_onnx(network, spec, file, layout="nchw-float", batch=1)
    net = cv2.dnn.readNetFromONNX(str(file))

    def classify(frame: Image) -> npt.NDArray[np.float32]:
        if cv2.getNumThreads() != config.threads:
            cv2.setNumThreads(config.threads)
        net.setInput(to_nchw(preprocess(frame, spec.resize)[None]))
        return np.asarray(net.forward(PROBABILITIES), np.float32)

    return classify


def ncnn(config: PeerConfig) -> Classify:
    """ncnn, on the float32 checkpoint as its converter pnnx converts it."""
    import ncnn as runtime
    import pnnx
    import torch

    from catdog_edge.training.models.checkpoint import load_checkpoint

    network, spec = load_checkpoint(config.weights)
    with _quiet(), contextlib.chdir(config.scratch):
        pnnx.export(network, "peer.pt", (torch.zeros(1, 3, *spec.size),), fp16=False)
    net = runtime.Net()
    net.opt.num_threads = config.threads
    files = (str(config.scratch / f"peer.ncnn.{kind}") for kind in ("param", "bin"))
    if net.load_param(next(files)) or net.load_model(next(files)):
        raise CatdogError("ncnn cannot load what pnnx converted")
    mean = list(spec.normalization.mean)
    factor = [1 / value for value in spec.normalization.std]
    order = runtime.Mat.PixelType.PIXEL_BGR2RGB

    def classify(frame: Image) -> npt.NDArray[np.float32]:
        mat = runtime.Mat.from_pixels(
            preprocess(frame, spec.resize), order, spec.width, spec.height
        )
        mat.substract_mean_normalize(mean, factor)
        extractor = net.create_extractor()
        extractor.input("in0", mat)
        _, out = extractor.extract("out0")
        return softmax(np.array(out, np.float32)[None, : len(spec.labels)], spec.temperature)

    return classify


def pytorch(config: PeerConfig, variant: Variant = "eager") -> Classify:
    """PyTorch on the checkpoint, as `bench` runs it."""
    row = BenchRow("pytorch", "pytorch", str(config.weights), config.threads, variant=variant)
    runner = TorchRunner(row)
    return lambda frame: runner.probabilities([frame])


class Ultralytics:
    """Their own architecture at our input size: their `predict`, and the bare file beneath.

    Args:
        config: Threads and size; our weights have no part in it.
    """

    def __init__(self, config: PeerConfig) -> None:
        for name, value in (("OFFLINE", "true"), ("AUTOINSTALL", "false"), ("VERBOSE", "false")):
            os.environ.setdefault(f"YOLO_{name}", value)
        from ultralytics import YOLO

        self._config = config
        self._file = config.scratch / "ultralytics.onnx"
        if self._file.is_file():  # opened before
            return
        with _quiet(), contextlib.chdir(config.scratch):
            fresh = YOLO(f"{ULTRALYTICS}.yaml", task="classify")
            exported = fresh.export(format="onnx", imgsz=config.spec.height, device="cpu", opset=17)
            Path(exported).absolute().replace(self._file)

    def predict(self) -> Classify:
        """`YOLO(file).predict(frame)`, with their own preprocessing and results."""
        from ultralytics import YOLO

        with _quiet():
            model = YOLO(str(self._file), task="classify")
        options = {"imgsz": self._config.spec.height, "device": "cpu", "verbose": False}

        def classify(frame: Image) -> npt.NDArray[np.float32]:
            result = model.predict(frame, **options)[0]
            return np.asarray(result.probs.data.numpy(), np.float32)[None]

        return classify

    def bare(self) -> Classify:
        """Their file in a bare session, after our resize."""
        session = bare_session(self._file, self._config.threads)
        name, steps = session.get_inputs()[0].name, self._config.spec.resize

        def classify(frame: Image) -> npt.NDArray[np.float32]:
            batch = to_nchw(preprocess(frame, steps)[None])
            return np.asarray(session.run(None, {name: batch})[0], np.float32)

        return classify


PEERS: dict[str, Callable[[PeerConfig], Classify]] = {
    "Classifier": classifier,
    "Classifier, openvino": functools.partial(classifier, provider="openvino"),
    "onnxruntime": bare_onnxruntime,
    "openvino": openvino,
    "openvino, f32": functools.partial(openvino, precision="f32"),
    "cv2.dnn": opencv_dnn,
    "ncnn": ncnn,
    "pytorch": pytorch,
    "pytorch, compiled": functools.partial(pytorch, variant="compile"),
}
"""The peers on our files; the first is what the others are compared with. OpenVINO computes in
bfloat16 where that is fast unless it is held to float32."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence converters, also those that write to the file descriptors."""
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
