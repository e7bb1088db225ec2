"""Run a checkpoint or an exported file on resized images.

On a device, use `catdog_edge.runtime.classifier`, which also chooses a provider.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catdog_edge.images.preprocess import to_layout
from catdog_edge.runtime.model_file import (
    KNOWN,
    LOGITS,
    PROBABILITIES,
    find_model,
    load_session,
    spec_of,
)
from catdog_edge.runtime.providers import nvidia
from catdog_edge.runtime.providers.start import NAMES, Settings, start_session
from catdog_edge.spec import ModelSpec
from catdog_edge.system import packages
from catdog_edge.system.console import progress_bar
from catdog_edge.system.threads import choose_threads
from catdog_edge.training.array_types import Float32, Pixels

FLOAT_BATCH = 16
"""Images per call of a float file. With the rest at the end, two batch sizes are tried."""

CHECKPOINTS = (".pt", ".pth")


@dataclass(frozen=True)
class Answers:
    """The outputs of a model; `None` if it has no such output."""

    probabilities: Float32  # `float32 [N,K]`, calibrated
    logits: Float32 | None = None  # `float32 [N,K]`, before the temperature
    known: Float32 | None = None  # `float32 [N]`, 0..1: one of the classes is seen


class TorchPredictor:
    """A PyTorch network, which takes normalised `float32 [N,3,H,W]`, and its spec."""

    by_place = ""

    def __init__(self, network: Any, spec: ModelSpec) -> None:
        self.network, self.spec = network, spec

    def predict(self, images: Pixels) -> Answers:
        """Classify `uint8 [N,H,W,3]` BGR images of the model's size."""
        from catdog_edge.training.evaluation.inference import known, logits
        from catdog_edge.training.evaluation.metrics import softmax

        every = logits(self.network, self.spec.normalization, images, bar="checking PyTorch")
        values = every[:, : len(self.spec.labels)]
        scores = known(every) if self.spec.logits > len(self.spec.labels) else None
        return Answers(softmax(values, self.spec.temperature), values, scores)


class OnnxPredictor:
    """An exported file, or the bytes of a model, loaded with ONNX Runtime.

    `given` is the spec for a file without one: its input and output are then used by position, and
    `by_place` names them. `name` is its name in messages, by default its path. `fixed_batch` is the
    batch size of every call, `None` if it is dynamic. Raises `ModelError` if the file or its spec
    is invalid, and `ProviderError` if the provider does not run here.

    Examples:
        >>> OnnxPredictor("model.onnx").predict(images).probabilities.shape
        (32, 2)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        given: ModelSpec | None = None,
        name: str | None = None,
        provider: str = "cpu",
    ) -> None:
        file = dataclasses.replace(find_model(model), called=name)
        self._name = Path(file.name).name
        if provider == "cpu":
            self.session = open_session(model, choose_threads().count, name=name)
        else:
            settings = Settings(choose_threads().count, spin=True)
            options = nvidia.NHWC if provider == "cuda" else {}  # the kernels of `Classifier`
            self.session = start_session(file, [(NAMES[provider], options)], settings)
        self.spec = spec_of(self.session, file, given)
        value = self.session.get_inputs()[0]
        self.input_name = value.name
        self.fixed_batch = value.shape[0] if isinstance(value.shape[0], int) else None
        names = [value.name for value in self.session.get_outputs()]
        first = PROBABILITIES if PROBABILITIES in names else names[0]
        self._outputs = [first, *(one for one in (LOGITS, KNOWN) if one in names and one != first)]
        self.has_logits = LOGITS in self._outputs[1:]
        named = f"input {value.name!r}, probabilities {first!r}"
        self.by_place = named if self.spec is given else ""

    def predict(self, images: Pixels, batch: int | None = None) -> Answers:
        """Classify `uint8 [N,H,W,3]` BGR images of the model's size, `batch` per call.

        `None` is 1 for int8 files, as a camera loop runs them (dynamic quantization uses one scale
        for a whole batch), else `FLOAT_BATCH`. A file with a fixed batch uses its own; the last
        call is padded with its last image.
        """
        integer = self.spec.precision.startswith("int8")
        batch = self.fixed_batch or batch or (1 if integer else FLOAT_BATCH)
        parts: list[Sequence[Float32]] = []
        count = progress_bar(f"checking {self._name}", len(images))
        for start in range(0, len(images), batch):
            chunk = np.asarray(images[start : start + batch])
            wanted = len(chunk)
            if self.fixed_batch:
                chunk = chunk[np.arange(batch).clip(max=wanted - 1)]
            feed = {self.input_name: to_layout(chunk, self.spec.layout)}
            parts.append([values[:wanted] for values in self.session.run(self._outputs, feed)])
            count(start + wanted)
        joined = [np.concatenate(values) for values in zip(*parts, strict=True)]
        more = dict(zip(self._outputs[1:], joined[1:], strict=True))
        return Answers(joined[0], more.get(LOGITS), more.get(KNOWN))


Predictor = TorchPredictor | OnnxPredictor  # a model that can be compared with another one


def open_predictor(path: Path, given: ModelSpec | None = None) -> Predictor:
    """Open a `.pt`, `.onnx` or `.ort` file; `given` is the spec for a file without one."""
    if path.suffix not in CHECKPOINTS:
        return OnnxPredictor(path, given)
    from catdog_edge.training.models.checkpoint import load_checkpoint

    return TorchPredictor(*load_checkpoint(path))


def open_session(
    model: str | os.PathLike[str] | bytes,
    threads: int = 0,
    optimized: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> Any:
    """Load a file, or the bytes of a model, on the CPU: an `onnxruntime.InferenceSession`.

    `threads` are intra-op threads, 0 for ONNX Runtime's default; the optimised graph is written to
    `optimized`; `name` is its name in messages, by default its path. Raises `ModelError` if the
    file does not exist, or this onnxruntime cannot load it.
    """
    options = packages.import_complete("onnxruntime").SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if optimized is not None:
        options.optimized_model_filepath = os.fspath(optimized)
    file = dataclasses.replace(find_model(model), called=name)
    return load_session(file, options, providers=["CPUExecutionProvider"])
