"""Whether two files, or a file and its PyTorch network, give the same answers.

Knows arrays of answers, the limits of each precision and how to say what is not met. Values
come first, then agreement, then accuracy; each has an error of its own. Names, types and shapes
are for `interface`; where pictures come from is for the caller.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import GateError
from catdog_edge.spec import ModelSpec, Precision
from catdog_edge.training.metrics import paired_difference
from exporters.session import Answers

CLEAR = 0.05
"""A picture is clear where the reference's two best probabilities differ by at least this."""


@dataclass(frozen=True)
class Limits:
    """What a precision must keep.

    Attributes:
        difference: Largest difference of any probability; `None`: not limited.
        logits: Largest difference of any logit, as a share of the reference's largest logit
            (which counts as at least 1). Judged where both sides give logits.
        agreement: Least share of pictures with the same likeliest class, 0..1.
        clear_only: Whether agreement counts on clear pictures alone (see `CLEAR`).
        max_drop: Most accuracy that may be lost, in percentage points; `None`: not limited.
    """

    difference: float | None
    logits: float
    agreement: float
    clear_only: bool
    max_drop: float | None


MAX_DROP = 0.5
"""Percentage points of accuracy that int8 may lose, unless `--max-drop` says otherwise."""

LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(1e-4, 1e-4, 1.0, clear_only=False, max_drop=None),
    "fp16": Limits(1e-2, 1e-2, 0.995, clear_only=False, max_drop=None),
    "int8-dynamic": Limits(None, 0.25, 0.99, clear_only=True, max_drop=MAX_DROP),
    "int8-static": Limits(None, 0.25, 0.99, clear_only=True, max_drop=MAX_DROP),
}
"""The one table of what is good enough, by the precision of the candidate."""


@dataclass(frozen=True)
class Flip:
    """A picture on which the two differ in the likeliest class.

    Attributes:
        index: Its place among the pictures.
        truth: Index of the true class; -1 where it is not known.
        reference: Index of the reference's answer.
        candidate: Index of the candidate's answer.
        reference_probability: Of the reference's answer, by the reference.
        candidate_probability: Of the candidate's answer, by the candidate.
        margin: How far the reference's two best are apart, 0..1.
    """

    index: int
    truth: int
    reference: int
    candidate: int
    reference_probability: float
    candidate_probability: float
    margin: float


@dataclass(frozen=True)
class Accuracy:
    """How often both are right, on the same pictures.

    Attributes:
        reference: Share of right answers of the reference, 0..1.
        candidate: Share of right answers of the candidate.
        change: The candidate's minus the reference's.
        low: Lower end of the 95 % interval of the change (paired, Tango's score).
        high: Upper end.
    """

    reference: float
    candidate: float
    change: float
    low: float
    high: float

    @property
    def change_text(self) -> str:
        """The change with its interval, in percentage points."""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.change:+.2f} points ({low:+.2f} to {high:+.2f})"


@dataclass(frozen=True)
class Verification:
    """How a candidate's answers compare with the reference's.

    Attributes:
        precision: Of the candidate; it decides the limits.
        pictures: How many were asked about.
        difference: Largest difference of any probability.
        agreement: Share of pictures with the same likeliest class.
        clear: How many pictures are clear, see `CLEAR`.
        clear_agreement: Agreement on those; 1 where there are none.
        accuracy: Of both; `None` where no true classes were given.
        flips: The pictures on which they differ, the widest margin first.
        failures: What is not met, in words with figures; empty is good.
        logits_difference: As `Limits.logits` says; `None` where not both sides gave logits.
        rejection_agreement: Share of clear pictures (see `CLEAR_LOG_ODDS`) that both answer,
            or both reject; `None` where not both sides have a score of their own for it.
    """

    precision: Precision
    pictures: int
    difference: float
    agreement: float
    clear: int
    clear_agreement: float
    accuracy: Accuracy | None
    flips: tuple[Flip, ...]
    failures: tuple[str, ...]
    logits_difference: float | None = None
    rejection_agreement: float | None = None

    @property
    def passed(self) -> bool:
        """Whether every limit of the precision is met."""
        return not self.failures

    def require(self, name: str) -> None:
        """Insist on every limit.

        Args:
            name: The candidate, for the message.

        Raises:
            GateError: One is not met; the message has the figures.
        """
        if self.failures:
            raise GateError(f"{name}: {'; '.join(self.failures)}")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "flips": len(self.flips), "passed": self.passed}

    def __str__(self) -> str:
        share = self.logits_difference
        logits = "" if share is None else f"; logits: {share:.2e} of the largest"
        lines = [
            f"largest difference  {self.difference:.2e} of a probability{logits}",
            f"agreement           {self.agreement:.2%} of {self.pictures:,} pictures "
            f"({len(self.flips):,} differ); {self.clear_agreement:.2%} of the {self.clear:,} "
            f"whose two best are at least {CLEAR} apart",
        ]
        if self.accuracy is not None:
            lines.append(
                f"accuracy            {self.accuracy.candidate:.2%}, "
                f"reference {self.accuracy.reference:.2%}; change {self.accuracy.change_text}"
            )
        return "\n".join(lines)


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
    off = float(np.abs(_softmax(values / spec.temperature) - answers).max())
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


def _softmax(values: Answers) -> npt.NDArray[np.float64]:
    exponentials = np.exp(values.astype(np.float64) - values.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def check_answers(answers: npt.NDArray[Any], pictures: int, classes: int, name: str) -> None:
    """Answers must be probabilities, one row per picture.

    Raises:
        GateError: Shape, dtype, range or sum is another.
    """
    if answers.shape != (pictures, classes) or answers.dtype != np.float32:
        raise GateError(
            f"{name}: wanted float32 [{pictures}, {classes}], "
            f"got {answers.dtype} {list(answers.shape)}"
        )
    if not np.isfinite(answers).all():
        raise GateError(f"{name}: {int((~np.isfinite(answers)).sum())} answers are not finite")
    off = float(np.abs(answers.sum(axis=1) - 1).max())
    if off > 1e-3 or answers.min() < 0:
        raise GateError(
            f"{name}: probabilities do not sum to one (off by {off:.1e}, least {answers.min():.1e})"
            "; are they logits?"
        )


def compare_answers(
    reference: Answers,
    candidate: Answers,
    truth: npt.NDArray[np.int64] | None,
    precision: Precision,
    *,
    name: str,
    max_drop: float | None = None,
) -> Verification:
    """Hold a candidate's answers against the reference's.

    Args:
        reference: `float32 [N,K]`, probabilities.
        candidate: The same of the candidate, in the same order.
        truth: `int64 [N]`, the true classes; `None` where they are not known: then accuracy
            is not judged.
        precision: Of the candidate; it decides the limits.
        name: The candidate, for messages.
        max_drop: Percentage points of accuracy that may be lost, in place of the table's.

    Returns:
        The comparison, with what is not met in `failures`.

    Raises:
        GateError: The candidate's answers are no probabilities at all.
    """
    check_answers(candidate, len(reference), reference.shape[1], name)
    limits = LIMITS[precision]
    asked, answered = reference.argmax(axis=1), candidate.argmax(axis=1)
    ranked = np.sort(reference, axis=1)
    margin = ranked[:, -1] - ranked[:, -2]
    same = asked == answered
    clear = margin >= CLEAR
    difference = float(np.abs(reference - candidate).max())
    agreement = float(same.mean())
    clear_agreement = float(same[clear].mean()) if clear.any() else 1.0
    accuracy = None if truth is None else _accuracy(asked == truth, answered == truth)

    failures = []
    if limits.difference is not None and difference > limits.difference:
        failures.append(
            f"probabilities differ by up to {difference:.2e}, allowed is {limits.difference:.0e}"
        )
    judged = clear_agreement if limits.clear_only else agreement
    if judged < limits.agreement:
        what = f" where the two best are {CLEAR} apart" if limits.clear_only else ""
        failures.append(
            f"the same answer on {judged:.2%} of pictures{what}, wanted {limits.agreement:.1%}"
        )
    if accuracy is not None and limits.max_drop is not None:
        allowed = limits.max_drop if max_drop is None else max_drop
        # The tolerance is for the rounding of a quotient of counts.
        if -100 * accuracy.change > allowed + 1e-9:
            failures.append(f"accuracy changes by {accuracy.change_text}, allowed is -{allowed:g}")
    flips = sorted(
        (
            Flip(
                index=int(i),
                truth=-1 if truth is None else int(truth[i]),
                reference=int(asked[i]),
                candidate=int(answered[i]),
                reference_probability=float(reference[i, asked[i]]),
                candidate_probability=float(candidate[i, answered[i]]),
                margin=float(margin[i]),
            )
            for i in np.flatnonzero(~same)
        ),
        key=lambda flip: -flip.margin,
    )
    return Verification(
        precision=precision,
        pictures=len(reference),
        difference=difference,
        agreement=agreement,
        clear=int(clear.sum()),
        clear_agreement=clear_agreement,
        accuracy=accuracy,
        flips=tuple(flips),
        failures=tuple(failures),
    )


def _accuracy(reference: npt.NDArray[np.bool_], candidate: npt.NDArray[np.bool_]) -> Accuracy:
    change, low, high = paired_difference(candidate, reference)
    return Accuracy(float(reference.mean()), float(candidate.mean()), change, low, high)
