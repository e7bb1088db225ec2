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
from exporters.checks import comparison
from exporters.checks.comparison import CLEAR, Accuracy, Flip
from exporters.checks.limits import LIMITS
from exporters.checks.session import Answers


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
                f"reference {self.accuracy.reference:.2%}; change {self.accuracy}"
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
    found = comparison.compare_answers(reference, candidate, truth)
    accuracy, difference = found.accuracy, found.difference
    failures = []
    if limits.difference is not None and difference > limits.difference:
        failures.append(
            f"probabilities differ by up to {difference:.2e}, allowed is {limits.difference:.0e}"
        )
    judged = found.clear_agreement if limits.clear_only else found.agreement
    if judged < limits.agreement:
        what = f" where the two best are {CLEAR} apart" if limits.clear_only else ""
        failures.append(
            f"the same answer on {judged:.2%} of pictures{what}, wanted {limits.agreement:.1%}"
        )
    if accuracy is not None and limits.max_drop is not None:
        allowed = limits.max_drop if max_drop is None else max_drop
        # The tolerance is for the rounding of a quotient of counts.
        if -100 * accuracy.change > allowed + 1e-9:
            failures.append(f"accuracy changes by {accuracy}, allowed is -{allowed:g}")
    return Verification(
        precision=precision,
        pictures=found.images,
        difference=difference,
        agreement=found.agreement,
        clear=found.clear,
        clear_agreement=found.clear_agreement,
        accuracy=accuracy,
        flips=found.flips,
        failures=tuple(failures),
    )
