"""Search the static int8 model that an export keeps: schemes in turn, layers back to float."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir

from catdog_edge.errors import GateError, ModelError
from exporters.checks.acceptance import Verification
from exporters.checks.predictors import Images
from exporters.static_int8.quantize import SCHEMES, Calibrated, Scheme
from exporters.static_int8.sensitivity import IMAGES, Found, LayerError, give_back, rank_layers

log = logging.getLogger(__name__)


def search(
    calibrated: Calibrated, source: Path, images: Images, judge: Callable[[ir.Model], Verification]
) -> tuple[Scheme, Found, list[dict[str, Any]]]:
    """Try kinds of int8 in the order of `quantize.SCHEMES` until one is good enough.

    Args:
        calibrated: From `quantize.calibrate`.
        source: The fp32 file that was calibrated.
        images: `uint8 [N,S,S,3]`, BGR, of the training split.
        judge: Compares a model's answers with fp32's.

    Returns:
        The kind, the model with how it was found, and every attempt, for JSON. Where none is good
        enough, the best of them.

    Raises:
        ModelError: No kind loads in this onnxruntime and gives probabilities.
    """
    attempts: list[dict[str, Any]] = []
    tried: list[tuple[Scheme, Found]] = []
    first, *_, last = SCHEMES
    for scheme in SCHEMES:

        def rank(scheme: Scheme = scheme) -> tuple[LayerError, ...]:
            log.info(f"  ranking {len(calibrated.layers)} layers by what int8 does to the logits")
            few = images[:: max(1, len(images) // IMAGES)]
            return rank_layers(calibrated, source, few, scheme)

        most = None if scheme == first else 0  # a fallback is tried without any layer in float
        try:
            found = give_back(calibrated, judge, rank, scheme, most)
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
