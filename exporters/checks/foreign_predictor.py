"""Run a file of another tool as its own code does, as the reference of an import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import ModelError, first_line
from catdog_edge.spec import ModelSpec
from catdog_edge.system.threads import choose_threads
from catdog_edge.training.array_types import Float32, Pixels
from catdog_edge.training.evaluation.metrics import softmax
from exporters.checks.predictors import FLOAT_BATCH, Answers, open_session
from exporters.graph.foreign_network import Ending, ForeignInput


@dataclass(frozen=True)
class PixelScaling:
    """Its preprocessing: `(value / scale - mean) / std`, in its order of channels."""

    bgr: bool
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ForeignPredictor:
    """The predictor of a file of another tool, run with ONNX Runtime.

    `source` has its height and width; a `uint8` input uses only the channel order of `pixels`.
    """

    by_place = ""
    spec: ModelSpec  # of the file that is made of it
    output: str  # name of the output that is read
    ending: Ending

    def __init__(self, path: Path, source: ForeignInput, pixels: PixelScaling) -> None:
        self._name, self._source, self._pixels = path.name, source, pixels
        self._session = open_session(path, choose_threads().count)

    def outputs(self, images: Pixels) -> dict[str, npt.NDArray[Any]]:
        """Return all outputs for a few images, by name; `ModelError` if it cannot run them."""
        batch = self._source.batch or len(images)
        padded = np.asarray(images)[np.arange(batch).clip(max=len(images) - 1)]
        try:
            found = self._session.run(None, {self._source.name: self._feed(padded)})
        except Exception as error:  # onnxruntime raises kinds of its own
            raise ModelError(
                f"{self._name}: it does not run on {batch} image{'s' * (batch > 1)} of "
                f"{self._source.height}x{self._source.width} ({first_line(error)}); export it "
                "again so that it does, or with a fixed batch of one"
            ) from error
        names = [value.name for value in self._session.get_outputs()]
        return dict(zip(names, found, strict=True))

    def predict(self, images: Pixels) -> Answers:
        """Classify `uint8 [N,H,W,3]` BGR images of the model's size."""
        batch, parts = self._source.batch or FLOAT_BATCH, []
        for start in range(0, len(images), batch):
            chunk = images[start : start + batch]
            found = self.outputs(chunk)[self.output]
            parts.append(found.reshape(len(found), -1)[: len(chunk)])
        values = np.concatenate(parts)
        logits = values if self.ending == "logits" else None
        return Answers(to_probabilities(values, self.ending), logits)

    def _feed(self, images: Pixels) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = images if self._pixels.bgr else images[..., ::-1]
        if not self._source.as_bytes:
            pixels = self._pixels
            mean, std = (np.array(value, np.float32) for value in (pixels.mean, pixels.std))
            values = (values.astype(np.float32) / np.float32(pixels.scale) - mean) / std
        if not self._source.channels_last:
            values = values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values)


def find_ending(values: Float32, sigmoid: bool) -> Ending:
    """Infer from a few outputs, `float32 [N,K]`, whether they are probabilities or logits.

    Of one value, whether it is the result of a `Sigmoid` decides.
    """
    if values.shape[1] == 1:
        return "one probability" if sigmoid else "one logit"
    sums = values.sum(axis=1)
    inside = values.min() >= -1e-6 and float(np.abs(sums - 1).max()) < 1e-3
    return "probabilities" if inside else "logits"


def to_probabilities(values: Float32, ending: Ending) -> Float32:
    """Return the probabilities of an output `float32 [N,K]`; of one value, those of two classes."""
    if ending == "probabilities":
        return values
    if ending == "logits":
        return softmax(values)
    is_logit = ending == "one logit"
    second = 1 / (1 + np.exp(-values.astype(np.float64))) if is_logit else values
    return np.hstack([1 - second, second]).astype(np.float32)
