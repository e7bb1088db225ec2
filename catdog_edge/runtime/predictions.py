"""Turn a model's outputs into predictions: check that they are probabilities, and reject."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import ModelError
from catdog_edge.runtime.onnxruntime_errors import cpu_remedy
from catdog_edge.runtime.session import ModelSession, Outputs
from catdog_edge.spec import NEITHER, ModelSpec, Prediction, Rejection

LOWEST, HIGHEST = -0.01, 1.01
"""Bounds of valid probabilities: fp16 and int8 may round slightly beyond 0 and 1."""


def rejection_in_force(asked: float | bool | None, spec: ModelSpec) -> Rejection | None:
    """Combine the argument `reject` and a spec's rejection; `None`: never `neither`."""
    if asked is None:
        return spec.rejection
    number = isinstance(asked, (bool, int, float))
    if asked is True or not number or not 0 <= asked <= 1:
        raise ValueError(f"reject must be a threshold in 0..1, None or False, got {asked!r}")
    if not asked:
        return None
    score = spec.rejection.score if spec.rejection is not None else "max_probability"
    return Rejection(score, float(asked))


def to_predictions(
    session: ModelSession, outputs: Outputs, rejection: Rejection | None
) -> list[Prediction]:
    """Turn outputs into one prediction per frame; `ModelError` if not probabilities."""
    labels, known = session.spec.labels, None
    threshold = rejection.threshold if rejection is not None else None
    if rejection is not None and rejection.score == "known" and len(outputs) > 1:
        known = outputs[1].reshape(-1)
    predictions = []
    for index, row in enumerate(outputs[0].tolist()):
        confidence = max(row)
        # NaN may pass the first two checks, but not the sum.
        if not (confidence <= HIGHEST and min(row) >= LOWEST and math.isfinite(sum(row))):
            raise _no_probabilities(session, row)
        label, nearness, score = labels[row.index(confidence)], 1.0, None
        if rejection is not None:
            score = confidence
            if known is not None:
                score = float(known[index])
                if not LOWEST <= score <= HIGHEST:
                    raise _no_probabilities(session, [score])
                # So that a threshold of 0 accepts every frame, and `nearness` is in 0..1.
                score = max(0.0, score)
            if score < rejection.threshold:
                label = NEITHER
                nearness = score / rejection.threshold if known is not None else 0.0
        predictions.append(
            Prediction(label, confidence, tuple(row), labels, nearness, score, threshold)
        )
    return predictions


def valid_scores(session: ModelSession, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return probabilities or scores, of any shape, unchanged.

    Raises:
        ModelError: One is not a number, or not in 0..1.
    """
    if not (values.min() >= LOWEST and values.max() <= HIGHEST):
        raise _no_probabilities(session, values)
    return values


def _no_probabilities(session: ModelSession, values: npt.ArrayLike) -> ModelError:
    found = np.asarray(values)
    what, how = "are not numbers", ""
    if np.isfinite(found).all():
        odd = float(found.max() if found.max() > HIGHEST else found.min())
        what = f"are not probabilities (0..1), one is {odd:.4g}"
        how = ", with the softmax in its graph"
    remedy = f"export the model again{how}{cpu_remedy(session.provider)}"
    return ModelError(f"{session.file.name}: its answers {what}; {remedy}")
