"""Decide whether the predictions of an exported file meet the limits of its precision.

A proportion or a change beyond its limit fails a file only if it is statistically significant.
Otherwise more images are used; `strict` compares the estimate itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import GateError
from catdog_edge.spec import ModelSpec, Precision
from catdog_edge.training.array_types import Float64, Labels
from catdog_edge.training.evaluation.metrics import softmax, wilson
from exporters.checks.comparison import (
    CLEAR,
    Accuracy,
    Comparison,
    compare_answers,
    share_of_largest,
)
from exporters.checks.predictors import Answers


@dataclass(frozen=True)
class PrecisionLimits:
    """The limits of a precision; `None`: no limit."""

    difference: float | None  # largest, of any probability
    logits: float  # largest difference of a logit, see `share_of_largest`
    agreement: float  # least share of images with the same predicted class, 0..1
    clear_only: bool  # whether agreement counts on clear images alone, see `comparison.CLEAR`
    max_drop: float | None  # most accuracy that may be lost, in percentage points


LIMITS: dict[Precision, PrecisionLimits] = {
    "fp32": PrecisionLimits(1e-4, 1e-4, 1.0, clear_only=False, max_drop=None),
    "fp16": PrecisionLimits(1e-2, 1e-2, 0.995, clear_only=False, max_drop=None),
    "int8-dynamic": PrecisionLimits(None, 0.25, 0.99, clear_only=True, max_drop=0.5),
    "int8-static": PrecisionLimits(None, 0.25, 0.99, clear_only=True, max_drop=0.5),
}
"""The limits by the precision of the candidate."""

OWN_LOGITS = 1e-4
"""Largest difference between a file's probabilities and the softmax of its own logits over the
temperature: these are float32 in every precision."""

REJECTION_AGREEMENT = 0.99
"""Least share of clear images that an int8 file and its reference both classify, or both reject."""

CLEAR_LOG_ODDS = 0.5
"""An image is clear to `known` where the reference's score is this far from the threshold in log
odds: nearer to it, two PyTorch runs may fall on different sides as well."""


@dataclass(frozen=True)
class Strictness:
    """How strictly to judge."""

    max_drop: float | None = None  # replaces that of the table
    strict: bool = False  # fail on an estimate beyond its limit, however few the images


BY_EVIDENCE = Strictness()


class Verdict(StrEnum):
    """Whether a limit is met."""

    MET = "met"
    UNDECIDED = "undecided"
    EXCEEDED = "exceeded"


def judge_drop(change: float, high: float, max_drop: float, strict: bool = False) -> Verdict:
    """Judge a change of accuracy, -1..1, by the upper end of its 95 % interval.

    It is undecided if more than `max_drop` percentage points are lost, but the interval contains
    zero (one of 98 images); `strict` uses the estimate alone.
    """
    # The tolerance is for the rounding of a quotient of counts.
    if -100 * change <= max_drop + 1e-9:
        return Verdict.MET
    return Verdict.EXCEEDED if strict or high < 0 else Verdict.UNDECIDED


def judge_share(good: int, total: int, least: float, strict: bool = False) -> Verdict:
    """Judge a proportion of images that must be at least `least`.

    It is undecided if it is smaller, but its 95 % Wilson interval contains `least`.
    """
    if not total or good >= least * total:
        return Verdict.MET
    return Verdict.EXCEEDED if strict or wilson(good, total)[1] < least else Verdict.UNDECIDED


@dataclass(frozen=True)
class Verification:
    """A comparison with its verdict; `None`: an output is missing on one side, or not needed."""

    precision: Precision  # of the candidate; it decides the limits
    comparison: Comparison  # of the probabilities
    failures: tuple[str, ...]  # what is not met, as text with figures; empty if all is
    notes: tuple[str, ...] = ()  # what the images were too few to decide, and what decided it
    logits_difference: float | None = None  # as `PrecisionLimits.logits` says
    rejection_agreement: float | None = None  # share of clear images that both reject, or neither
    more: Comparison | None = None  # on further images

    @property
    def passed(self) -> bool:
        """Whether every limit of the precision is met."""
        return not self.failures

    @property
    def accuracy(self) -> Accuracy | None:
        """Accuracy of both; `None` if the true classes are not known."""
        return self.comparison.accuracy

    def require(self, name: str) -> None:
        """Raise `GateError`, with the figures, if a limit is not met."""
        if self.failures:
            raise GateError(f"{name}: {'; '.join(self.failures)}")

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types; of the flips only the number is kept."""
        document = asdict(self)
        del document["comparison"], document["more"]
        more = None if self.more is None else _figures(self.more)
        return {**document, **_figures(self.comparison), "more": more, "passed": self.passed}

    def __str__(self) -> str:
        found, share = self.comparison, self.logits_difference
        logits = "" if share is None else f"; logits: {share:.2e} of the largest"
        lines = [
            f"largest difference  {found.difference:.2e} of a probability{logits}",
            f"agreement           {found.agreement:.2%} of {found.images:,} images "
            f"({len(found.flips):,} differ); {found.clear_agreement:.2%} of the {found.clear:,} "
            f"whose two best are at least {CLEAR} apart",
        ]
        if self.accuracy is not None:
            lines.append(
                f"accuracy            {self.accuracy.candidate:.2%}, "
                f"reference {self.accuracy.reference:.2%}; change {self.accuracy}"
            )
        return "\n".join([*lines, *(f"{'note':<20}{note}" for note in self.notes)])


def _figures(comparison: Comparison) -> dict[str, Any]:
    document = asdict(comparison)
    document["pictures"] = document.pop("images")
    document["clear_agreement"] = comparison.clear_agreement
    document["flips"] = len(comparison.flips)
    return document


def judge(
    reference: Answers,
    candidate: Answers,
    truth: Labels | None,
    spec: ModelSpec,
    policy: Strictness = BY_EVIDENCE,
    more: Callable[[], tuple[Answers, Answers] | None] | None = None,
) -> Verification:
    """Compare a candidate's outputs with the reference's and apply the limits of its precision.

    `truth` are the true classes, `int64 [N]`; without them, accuracy is not judged. `spec` is the
    candidate's. `more` is called if the images are too few to rule out a loss, and returns both
    models' outputs for further images, whose true classes are not used.
    """
    limits = LIMITS[spec.precision]
    found = compare_answers(reference.probabilities, candidate.probabilities, truth)
    compared = [found]
    accuracy = None if limits.max_drop is None else found.accuracy
    allowed = (limits.max_drop if policy.max_drop is None else policy.max_drop) or 0.0
    verdict, agreement = _judge_agreement(compared, limits, policy.strict)
    few = accuracy is not None and -100 * accuracy.low > allowed
    if more is not None and not policy.strict and (few or verdict is Verdict.UNDECIDED):
        further = more()
        if further is not None:
            compared.append(compare_answers(further[0].probabilities, further[1].probabilities))
            verdict, agreement = _judge_agreement(compared, limits, policy.strict)

    failures, notes = [], []
    difference, most = found.difference, limits.difference
    if not all(np.isfinite(one.difference) for one in compared):  # NaN is within any limit
        failures.append("answers are not finite numbers, so they cannot be compared")
    if most is not None and difference > most:
        failures.append(f"probabilities differ by up to {difference:.2e}, allowed is {most:.0e}")
    if verdict is Verdict.EXCEEDED:
        failures.append(agreement)
    elif verdict is Verdict.UNDECIDED:
        notes.append(f"{agreement}; the shortfall is not statistically significant")
    if accuracy is not None:
        verdict, text = _judge_accuracy(
            compared, accuracy, allowed, agreement, limits, policy.strict
        )
        failures += [text] if verdict is Verdict.EXCEEDED else []
        notes += [text] if verdict is Verdict.UNDECIDED else []
    logits_difference, of_logits = _judge_logits(reference, candidate, spec, limits)
    rejection_agreement, of_known = _judge_known(reference, candidate, spec, limits, policy.strict)
    return Verification(
        precision=spec.precision,
        comparison=found,
        failures=(*failures, *of_logits, *of_known),
        notes=tuple(notes),
        logits_difference=logits_difference,
        rejection_agreement=rejection_agreement,
        more=compared[1] if len(compared) > 1 else None,
    )


def _judge_agreement(
    compared: Sequence[Comparison], limits: PrecisionLimits, strict: bool
) -> tuple[Verdict, str]:
    """Judge the agreement on one or two sets of images together; return the figures as text."""
    if limits.clear_only:
        total = sum(one.clear for one in compared)
        good = total - sum(one.clear_flips for one in compared)
        where = f" where the two best are {CLEAR} apart"
    else:
        total = sum(one.images for one in compared)
        good, where = total - sum(len(one.flips) for one in compared), ""
    share = good * 10_000 // total / 10_000 if total else 1.0  # rounded down: 100 % means all
    text = (
        f"the same answer on {share:.2%} of {total:,} images{where} ({total - good:,} differ), "
        f"required {limits.agreement:.1%}"
    )
    return judge_share(good, total, limits.agreement, strict), text


def _judge_accuracy(
    compared: Sequence[Comparison],
    accuracy: Accuracy,
    allowed: float,
    agreement: str,
    limits: PrecisionLimits,
    strict: bool,
) -> tuple[Verdict, str]:
    """Judge the change of accuracy; with too few images, judge the logits."""
    text = f"accuracy changes by {accuracy}, allowed is -{allowed:g}"
    verdict = judge_drop(accuracy.change, accuracy.high, allowed, strict)
    if verdict is Verdict.UNDECIDED:
        share, images = max(one.log_odds for one in compared), compared[0].images
        logits = f"{agreement}, {_logits_text(share)}"
        text += f"; not statistically significant on {images:,} images; {logits}"
        if share > limits.logits:
            return Verdict.EXCEEDED, f"{text}, allowed is {limits.logits:g}"
        text += ": no other check fails"
    return verdict, text


def _judge_logits(
    reference: Answers, candidate: Answers, spec: ModelSpec, limits: PrecisionLimits
) -> tuple[float | None, list[str]]:
    """Return the largest difference of the output `logits`, and the limits not met."""
    values, answers = candidate.logits, candidate.probabilities
    if values is None:
        return None, []
    if values.shape != answers.shape or not np.isfinite(values).all():
        return None, [
            f"the logits are not finite numbers of shape {list(answers.shape)}, "
            f"found {list(values.shape)}"
        ]
    failures = []
    off = float(np.abs(softmax(values, spec.temperature) - answers).max())
    if off > OWN_LOGITS:
        failures.append(
            f"its probabilities are not the softmax of its logits over the temperature "
            f"{spec.temperature:.4g} (off by up to {off:.2e}, allowed is {OWN_LOGITS:.0e})"
        )
    if reference.logits is None:
        return None, failures
    share = share_of_largest(values, reference.logits)
    if not share <= limits.logits:
        failures.append(f"{_logits_text(share)}, allowed is {limits.logits:g}")
    return share, failures


def _judge_known(
    reference: Answers, candidate: Answers, spec: ModelSpec, limits: PrecisionLimits, strict: bool
) -> tuple[float | None, list[str]]:
    """Return the agreement of `known` on clear images, and the limits not met."""
    scores, expected = candidate.known, reference.known
    if scores is None or expected is None or spec.rejection is None:
        return None, []
    threshold = spec.rejection.threshold
    clear = np.abs(_logit(expected) - _logit(np.array(threshold))) >= CLEAR_LOG_ODDS
    total = int(clear.sum())
    good = int(((scores < threshold) == (expected < threshold))[clear].sum())
    agreement = good / total if total else 1.0
    off = float(np.abs(scores - expected).max())
    failure = ""
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        failure = "the scores of the output known are not numbers of 0 to 1"
    elif not np.isfinite(off):
        failure = "the reference's scores of the output known are not finite numbers"
    elif limits.difference is not None and off > limits.difference:
        failure = (
            f"the scores of the output known differ by up to {off:.2e}, "
            f"allowed is {limits.difference:g}"
        )
    elif (
        limits.difference is None
        and judge_share(good, total, REJECTION_AGREEMENT, strict) is Verdict.EXCEEDED
    ):
        failure = (
            f"it classifies or rejects {agreement:.2%} of {total:,} clear images as the reference "
            f"does, required {REJECTION_AGREEMENT:.0%}"
        )
    return agreement, [failure] if failure else []


def _logits_text(share: float) -> str:
    return f"logits differ by up to {share:.2e} of the largest"


def _logit(scores: npt.NDArray[Any]) -> Float64:
    inside = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(inside / (1 - inside)))
