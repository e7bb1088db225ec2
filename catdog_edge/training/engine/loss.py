"""The training loss: cross entropy, weighted by class where the classes are imbalanced."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from catdog_edge.training.array_types import Float64, Labels

IMBALANCE = 1.5  # size of the largest class by that of the smallest, from which weights are used


def class_weights(labels: Labels, classes: int, shares: Float64 | None = None) -> Float64 | None:
    """Compute weights inverse to the frequency of each class.

    Args:
        labels: The class of each image, `int64 [N]`.
        classes: The number of classes, K.
        shares: How often each image is drawn, `float64 [N]`; `None`: all alike.

    Returns:
        `float64 [K]`, with a mean of 1 over the drawn images; `None` for balanced classes.

    Examples:
        >>> class_weights(np.repeat([0, 1], [30, 10]), 2)
        array([0.66666667, 2.        ])
    """
    frequency = np.bincount(labels, weights=shares, minlength=classes).astype(np.float64)
    if frequency.max() <= IMBALANCE * frequency.min() * (1 + 1e-9):
        return None
    present = frequency > 0
    weights = np.ones(classes)
    weights[present] = frequency.sum() / (present.sum() * frequency[present])
    return weights


class CrossEntropy(nn.Module):
    """Mean cross entropy over the images of a batch.

    Args:
        label_smoothing: 0..1.
        weights: By class, `float64 [K]`; the logit of negatives, beyond them, has a weight of 1.
    """

    def __init__(self, label_smoothing: float, weights: Float64 | None = None) -> None:
        super().__init__()
        self._smoothing = label_smoothing
        self._weights = None if weights is None else torch.from_numpy(weights).float()

    def forward(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar, of logits `float32 [N,K]` and labels `int64 [N]`."""
        if self._weights is None:
            return functional.cross_entropy(outputs, labels, label_smoothing=self._smoothing)
        self._weights = self._weights.to(outputs.device)  # once
        weights = functional.pad(self._weights, (0, outputs.shape[1] - len(self._weights)), value=1)
        # Divided by the number of images, not by their weights: so the parts of a batch that
        # several processes compute add up to the whole.
        total = functional.cross_entropy(
            outputs, labels, weights, reduction="sum", label_smoothing=self._smoothing
        )
        return total / len(labels)
