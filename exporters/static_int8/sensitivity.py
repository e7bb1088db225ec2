"""Rank layers by what int8 does to the logits; keep the worst in float until the limits are met."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from catdog_edge.runtime.model_file import LOGITS
from exporters.checks.acceptance import Floats, Verification
from exporters.checks.predictors import Images, OnnxPredictor
from exporters.graph.nodes import find
from exporters.graph.onnx_file import read_model, to_proto
from exporters.static_int8.quantize import Calibrated, Scheme, quantize

log = logging.getLogger(__name__)

IMAGES = 32
"""Training images that a layer is judged on: ranks, not figures, are wanted."""

MOST_IN_FLOAT = 0.5
"""With more than this share of its layers in float a file is int8 in name only."""


@dataclass(frozen=True)
class LayerError:
    """What int8 does to the answers when one layer alone is quantized.

    Attributes:
        layer: Its name.
        error: Root mean square of the change of the logits, as a share of the standard
            deviation of the logits over images.
    """

    layer: str
    error: float


@dataclass(frozen=True)
class Step:
    """One attempt: the layers in float, and how its answers compare with fp32's."""

    in_float: tuple[str, ...]
    verification: Verification


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Attributes:
        model: The last model that was tried; its answers hold if the last step passed.
        steps: Every attempt, in order.
        ranking: Layers by what int8 does to them, worst first; empty where it was not needed.
    """

    model: ir.Model
    steps: tuple[Step, ...]
    ranking: tuple[LayerError, ...]

    @property
    def in_float(self) -> tuple[str, ...]:
        """Layers in float in `model`."""
        return self.steps[-1].in_float

    @property
    def passed(self) -> bool:
        """Whether the answers of `model` hold."""
        return self.steps[-1].verification.passed


def rank_layers(
    calibrated: Calibrated, fp32: Path, images: Images, scheme: Scheme = "u8s8"
) -> tuple[LayerError, ...]:
    """Quantize every layer by itself and see how far the logits move, worst layer first.

    Args:
        calibrated: From `quantize.calibrate`.
        fp32: The file that was calibrated.
        images: `uint8 [N,S,S,3]`, BGR, of the training split.
        scheme: See `quantize.SCHEMES`.
    """
    reference = _logits(read_model(fp32), calibrated, images)
    spread = float(reference.std(axis=0).mean()) or 1.0
    errors = []
    for number, layer in enumerate(calibrated.layers):
        others = [name for name in calibrated.layers if name != layer]
        moved = _logits(quantize(calibrated, scheme, others), calibrated, images) - reference
        error = float(np.sqrt(np.mean(moved**2))) / spread
        errors.append(LayerError(layer, error))
        log.info(f"  {number + 1}/{len(calibrated.layers)} {layer}: {error:.4f}")
    return tuple(sorted(errors, key=lambda entry: -entry.error))


def give_back(
    calibrated: Calibrated,
    judge: Callable[[ir.Model], Verification],
    rank: Callable[[], tuple[LayerError, ...]],
    scheme: Scheme = "u8s8",
    most: int | None = None,
) -> Found:
    """Quantize all layers; while the answers do not hold, give the worst layer back to float.

    Args:
        calibrated: From `quantize.calibrate`.
        judge: Compares a model's answers with fp32's.
        rank: Ranks the layers; called only where all of them in int8 is not good enough.
        scheme: See `quantize.SCHEMES`.
        most: The greatest number of layers to give back; `None` is `MOST_IN_FLOAT` of them.

    Returns:
        The first model whose answers hold, or the last that was tried.
    """
    steps: list[Step] = []
    ranking: tuple[LayerError, ...] = ()
    in_float: tuple[str, ...] = ()
    if most is None:
        most = int(MOST_IN_FLOAT * len(calibrated.layers))
    while True:
        model = quantize(calibrated, scheme, in_float)
        steps.append(Step(in_float, judge(model)))
        if steps[-1].verification.passed or len(in_float) >= most:
            return Found(model, tuple(steps), ranking)
        if not ranking:
            ranking = rank()
        in_float = tuple(entry.layer for entry in ranking[: len(in_float) + 1])
        log.info(f"  {'; '.join(steps[-1].verification.failures)}; {in_float[-1]} back to float")


def _logits(model: ir.Model, calibrated: Calibrated, images: Images) -> Floats:
    logits = find(model.graph, LOGITS)
    assert logits is not None
    if logits not in model.graph.outputs:
        logits.type, logits.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([None, None])
        model.graph.outputs.append(logits)
    data = to_proto(model).SerializeToString()
    predictor = OnnxPredictor(data, calibrated.spec, name="one layer in int8")
    found = predictor.predict(images, batch=1).logits
    assert found is not None
    return found
