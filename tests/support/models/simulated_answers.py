"""Answers of a network and of files made from it, drawn at random: how well does a gate judge?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from catdog_edge.training.evaluation.metrics import softmax

File = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def population(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a network that is right on nine images in ten, and the true classes."""
    truth = rng.integers(0, 2, count)
    logits = rng.normal(0, 1.2, (count, 2))
    logits[np.arange(count), truth] += 2.2
    return logits, truth


def faithful(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """As a good static file: 0.03 points worse, 0.08 of the logits' own unit off."""
    return logits + rng.normal(0, 0.08, logits.shape)


def broken(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """Three points worse: some images are answered at random."""
    wrong = rng.random(len(logits)) < 0.075
    return np.where(wrong[:, None], rng.normal(0, 1.5, logits.shape), faithful(rng, logits))


def simulate(
    rng: np.random.Generator, count: int, file: File
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of the network and of a file, `float32 [count,2]`, and the true classes."""
    logits, truth = population(rng, count)
    both = (softmax(values.astype(np.float32)) for values in (logits, file(rng, logits)))
    return *both, truth
