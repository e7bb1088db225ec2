"""Search for the static int8 model to keep: try schemes, return the worst layers to float."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from catdog_edge.errors import GateError, ModelError
from catdog_edge.runtime.model_file import LOGITS
from catdog_edge.training.array_types import Float32, Pixels
from exporters.checks.acceptance import Verification
from exporters.checks.predictors import OnnxPredictor
from exporters.graph.nodes import find
from exporters.graph.onnx_file import read_model, to_proto
from exporters.static_int8.quantize import SCHEMES, Calibrated, Scheme, quantize

log = logging.getLogger(__name__)

IMAGES = 32  # training images per layer, enough to rank the layers
MOST_IN_FLOAT = 0.5  # with more than this share of its layers in float a file is int8 in name only


@dataclass(frozen=True)
class LayerError:
    """Error of the logits when only one layer is quantized."""

    layer: str
    error: float  # RMS of the change of the logits, over their standard deviation over images


@dataclass(frozen=True)
class Step:
    """One attempt: the layers in float, and the comparison with fp32."""

    in_float: tuple[str, ...]
    verification: Verification


@dataclass(frozen=True)
class Found:
    """The last model that was tried with a scheme."""

    model: ir.Model
    steps: tuple[Step, ...]  # every attempt, in order
    ranking: tuple[LayerError, ...]  # the worst layer first; empty where it was not needed

    @property
    def in_float(self) -> tuple[str, ...]:
        """Layers in float in `model`."""
        return self.steps[-1].in_float

    @property
    def passed(self) -> bool:
        """Whether `model` meets the limits."""
        return self.steps[-1].verification.passed


def rank_layers(
    calibrated: Calibrated, fp32: Path, images: Pixels, scheme: Scheme = "u8s8"
) -> tuple[LayerError, ...]:
    """Quantize each layer alone and rank them by the change of the logits, worst first.

    `fp32` is the file that was calibrated, the images are `uint8 [N,S,S,3]`, BGR.
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


def restore_worst_to_float(
    calibrated: Calibrated,
    judge: Callable[[ir.Model], Verification],
    rank: Callable[[], tuple[LayerError, ...]],
    scheme: Scheme = "u8s8",
    most: int | None = None,
) -> Found:
    """Quantize all layers; while the limits are not met, return the worst layer to float.

    `judge` compares a model's answers with fp32's; `rank` is called only where all layers in int8
    are not good enough. At most `most` layers are restored, by default `MOST_IN_FLOAT` of them.
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


def _logits(model: ir.Model, calibrated: Calibrated, images: Pixels) -> Float32:
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


def search_schemes(
    calibrated: Calibrated, source: Path, images: Pixels, judge: Callable[[ir.Model], Verification]
) -> tuple[Scheme, Found, list[dict[str, Any]]]:
    """Try kinds of int8 in the order of `quantize.SCHEMES` until one is good enough.

    `source` is the fp32 file that was calibrated, the images are `uint8 [N,S,S,3]`, BGR, of the
    training split; `judge` compares a model's answers with fp32's. Returns the kind (the best,
    where none is good enough), its model, and every attempt, for JSON. Raises `ModelError` where no
    kind loads in this onnxruntime and gives probabilities.
    """
    attempts: list[dict[str, Any]] = []
    tried: list[tuple[Scheme, Found]] = []
    first, *_, last = SCHEMES
    for scheme in SCHEMES:

        def rank(scheme: Scheme = scheme) -> tuple[LayerError, ...]:
            log.info(f"  ranking {len(calibrated.layers)} layers by what int8 does to the logits")
            return rank_layers(calibrated, source, images[:: max(1, len(images) // IMAGES)], scheme)

        most = None if scheme == first else 0  # a fallback is tried without any layer in float
        try:
            found = restore_worst_to_float(calibrated, judge, rank, scheme, most)
        except (ModelError, GateError) as error:
            log.info(f"  {scheme}: {error}")
            attempts.append({"scheme": scheme, "error": str(error)})
        else:
            tried.append((scheme, found))
            for step in found.steps:
                in_float, verification = list(step.in_float), step.verification.to_dict()
                attempts.append({"scheme": scheme, "float_layers": in_float, **verification})
            if found.passed:
                break
        if scheme != last:
            log.info(f"  {scheme} is not good enough; trying the next kind")
    if not tried:
        raise ModelError("model.static.onnx: no kind of int8 loads and answers; see above")
    return *max(tried, key=lambda pair: _merit(pair[1])), attempts


def _merit(found: Found) -> tuple[bool, float, float]:
    last = found.steps[-1].verification
    change = 0.0 if last.accuracy is None else last.accuracy.change
    return found.passed, change, last.comparison.clear_agreement
