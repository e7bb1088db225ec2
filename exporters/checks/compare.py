"""Whether two files, or a file and its PyTorch network, give the same answers.

Knows arrays of answers, the limits of each precision and how to say what is not met. Values
come first, then agreement, then accuracy; each has an error of its own. Names, types and shapes
are for `interface`; where pictures come from is for the caller.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import GateError
from catdog_edge.spec import Precision
from catdog_edge.training.evaluation.metrics import paired_difference
from exporters.checks.limits import CLEAR, LIMITS
from exporters.checks.session import Answers


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
        rejection_agreement: Share of clear pictures (`outputs.CLEAR_LOG_ODDS`) that both answer,
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
