"""The one table of what is good enough, by precision. Knows nothing of how it is measured."""

from __future__ import annotations

from dataclasses import dataclass

from catdog_edge.spec import Precision


@dataclass(frozen=True)
class Limits:
    """What a precision must keep.

    Attributes:
        difference: Largest difference of any probability; `None`: not limited.
        logits: Largest difference of any logit, as a share of the reference's largest logit
            (which counts as at least 1). Judged where both sides give logits.
        agreement: Least share of pictures with the same likeliest class, 0..1.
        clear_only: Whether agreement counts on clear pictures alone (see `comparison.CLEAR`).
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
