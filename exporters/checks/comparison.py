"""Compare the outputs of two models on the same images: agreement, accuracy, flips.

`export`, `verify` and `bench` all use `compare_answers`; `acceptance` applies limits to its
figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from catdog_edge.training.array_types import Flags, Float32, Labels
from catdog_edge.training.evaluation.metrics import mcnemar_exact, paired_difference

Probabilities = Float32

CLEAR = 0.05
"""An image is clear where the reference's two best probabilities differ by at least this."""


@dataclass(frozen=True)
class Flip:
    """An image for which two models predict different classes."""

    index: int  # position of the image
    truth: int  # index of the true class; -1 where it is not known
    reference: int  # class index that the reference predicts
    candidate: int
    reference_probability: float  # of that class, by the reference
    candidate_probability: float
    margin: float  # distance between the reference's two best probabilities, 0..1
    difference: float  # largest difference of a probability between the two models, 0..1


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of two models on the same images, 0..1."""

    reference: float
    candidate: float
    change: float  # the candidate's minus the reference's
    low: float  # lower end of the 95 % interval of the change (paired, Tango's score)
    high: float
    only_reference: int  # images that only the reference gets right
    only_candidate: int

    @property
    def mcnemar_p(self) -> float:
        """Return the two-sided p-value of McNemar's exact test."""
        return mcnemar_exact(self.only_candidate, self.only_reference)

    def __str__(self) -> str:
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.change:+.2f} points ({low:+.2f} to {high:+.2f})"


@dataclass(frozen=True)
class Comparison:
    """Comparison of a candidate's outputs with the reference's."""

    images: int
    difference: float  # largest, of a probability
    mean_difference: float
    log_odds: float  # `share_of_largest` of logits as probabilities show them: up to a constant
    agreement: float  # share of images with the same predicted class, 0..1
    clear: int  # number of clear images, see `CLEAR`
    clear_flips: int  # how many of those have different predicted classes
    accuracy: Accuracy | None  # of both; `None` where the true classes are not known
    flips: tuple[Flip, ...]  # the images with different classes, the widest margin first

    @property
    def clear_agreement(self) -> float:
        """Return the agreement on the clear images, 0..1; 1 without any."""
        return (self.clear - self.clear_flips) / self.clear if self.clear else 1.0


def compare_answers(
    reference: Probabilities, candidate: Probabilities, truth: Labels | None = None
) -> Comparison:
    """Compare the outputs of two models on the same images, `float32 [N,K]`, in the same order.

    `truth` are the true class indices, `int64 [N]`. Raises `ValueError` if the shapes do not
    match, or there are no images.

    Examples:
        >>> compare_answers(pytorch, onnx, labels).agreement
        0.998
    """
    if candidate.shape != reference.shape or (truth is not None and len(truth) != len(reference)):
        raise ValueError(
            f"answers {candidate.shape}, reference {reference.shape} and "
            f"{0 if truth is None else len(truth)} labels do not belong to the same images"
        )
    if not len(reference):
        raise ValueError("there are no images to compare answers on")
    expected, predicted = reference.argmax(axis=1), candidate.argmax(axis=1)
    best = np.partition(reference, -2, axis=1)
    margin = best[:, -1] - best[:, -2]
    distance = np.abs(reference - candidate)
    different, clear = expected != predicted, margin >= CLEAR
    flips = [
        Flip(
            index=int(i),
            truth=-1 if truth is None else int(truth[i]),
            reference=int(expected[i]),
            candidate=int(predicted[i]),
            reference_probability=float(reference[i, expected[i]]),
            candidate_probability=float(candidate[i, predicted[i]]),
            margin=float(margin[i]),
            difference=float(distance[i].max()),
        )
        for i in np.flatnonzero(different)
    ]
    return Comparison(
        images=len(reference),
        difference=float(distance.max()),
        mean_difference=float(distance.mean(dtype=np.float64)),
        log_odds=share_of_largest(_centred(candidate), _centred(reference)),
        agreement=(len(reference) - len(flips)) / len(reference),
        clear=int(clear.sum()),
        clear_flips=int((different & clear).sum()),
        accuracy=None if truth is None else _accuracy(expected == truth, predicted == truth),
        flips=tuple(sorted(flips, key=lambda flip: -flip.margin)),
    )


def share_of_largest(values: Probabilities, reference: Probabilities) -> float:
    """Return the largest difference of two arrays, `float32 [N,K]`, as a share.

    It is relative to the reference's largest absolute value, or to 1 if that is larger.
    """
    return float(np.abs(values - reference).max() / max(1.0, np.abs(reference).max()))


def _centred(probabilities: Probabilities) -> Probabilities:
    values = np.log(np.maximum(probabilities, np.float32(1e-12)), dtype=np.float32)
    return np.asarray(values - values.mean(axis=1, keepdims=True), np.float32)


def _accuracy(reference: Flags, candidate: Flags) -> Accuracy:
    only_reference, only_candidate = reference & ~candidate, candidate & ~reference
    return Accuracy(
        float(reference.mean()),
        float(candidate.mean()),
        *paired_difference(candidate, reference),
        int(only_reference.sum()),
        int(only_candidate.sum()),
    )
