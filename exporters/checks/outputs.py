"""Whether outputs beside the probabilities hold what they should: logits, and `known`.

Knows arrays; which files have such outputs is for the caller.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.spec import ModelSpec
from catdog_edge.training.evaluation.metrics import softmax
from exporters.checks.compare import Verification
from exporters.checks.limits import LIMITS
from exporters.checks.session import Answers

OWN_LOGITS = 1e-4
"""Probabilities are the softmax of the same file's logits over the temperature, within this:
temperature and softmax are float32 in every precision."""


def with_logits(
    verification: Verification,
    answers: Answers,
    values: Answers,
    reference: Answers | None,
    spec: ModelSpec,
) -> Verification:
    """Judge the values of a second output `logits` as well.

    Args:
        verification: Of the probabilities.
        answers: `float32 [N,K]`, the candidate's probabilities.
        values: `float32 [N,K]`, its logits.
        reference: `float32 [N,K]`, the reference's logits; `None` where it has none: then the
            candidate's are held against its own probabilities alone.
        spec: Of the candidate: its classes and the temperature.

    Returns:
        The verification, with what is not met added to its failures.
    """
    failures = list(verification.failures)
    wanted = (len(answers), len(spec.labels))
    if values.shape != wanted or not np.isfinite(values).all():
        failures.append(
            f"the logits are not finite numbers of shape {list(wanted)}, found {list(values.shape)}"
        )
        return dataclasses.replace(verification, failures=tuple(failures))
    off = float(np.abs(softmax(values, spec.temperature) - answers).max())
    if off > OWN_LOGITS:
        failures.append(
            f"its probabilities are not the softmax of its logits over the temperature "
            f"{spec.temperature:.4g} (off by up to {off:.2e}, allowed is {OWN_LOGITS:.0e})"
        )
    share = None
    if reference is not None:
        share = float(np.abs(values - reference).max() / max(1.0, np.abs(reference).max()))
        allowed = LIMITS[verification.precision].logits
        if share > allowed:
            failures.append(
                f"logits differ by up to {share:.2e} of the largest, allowed is {allowed:g}"
            )
    return dataclasses.replace(verification, failures=tuple(failures), logits_difference=share)


REJECTION_AGREEMENT = 0.99
"""Least share of clear pictures that an int8 file and its reference both answer, or both reject."""

CLEAR_LOG_ODDS = 0.5
"""A picture is clear where the reference's score is this far from the threshold in log odds: near
it int8 may fall on either side, as two PyTorch runs may."""


def with_known(
    verification: Verification, scores: Answers, reference: Answers, spec: ModelSpec
) -> Verification:
    """Judge the output `known` as well: how sure a file is that it sees one of its classes.

    Args:
        verification: Of the probabilities.
        scores: `float32 [N]` of the candidate.
        reference: `float32 [N]` of the reference.
        spec: Of the candidate: the threshold.

    Returns:
        The verification, with what is not met added to its failures.
    """
    assert spec.rejection is not None
    threshold, limits = spec.rejection.threshold, LIMITS[verification.precision]
    failures = list(verification.failures)
    clear = np.abs(_log_odds(reference) - _log_odds(np.array(threshold))) >= CLEAR_LOG_ODDS
    alike = (scores < threshold) == (reference < threshold)
    agreement = float(alike[clear].mean()) if clear.any() else 1.0
    off = float(np.abs(scores - reference).max())
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        failures.append("the scores of the output known are not numbers of 0 to 1")
    elif limits.difference is not None and off > limits.difference:
        failures.append(
            f"the scores of the output known differ by up to {off:.2e}, "
            f"allowed is {limits.difference:g}"
        )
    elif limits.difference is None and agreement < REJECTION_AGREEMENT:
        failures.append(
            f"it answers or rejects {agreement:.2%} of {int(clear.sum()):,} clear pictures as the "
            f"reference does, wanted is {REJECTION_AGREEMENT:.0%}"
        )
    return dataclasses.replace(
        verification, failures=tuple(failures), rejection_agreement=agreement
    )


def _log_odds(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    inside = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(inside / (1 - inside)))
