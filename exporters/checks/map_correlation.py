"""Correlation of the heat maps of two files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catdog_edge.runtime.model_file import find_model
from catdog_edge.runtime.providers.start import Settings
from catdog_edge.runtime.session import ModelSession
from catdog_edge.system.threads import choose_threads
from catdog_edge.training.array_types import Float32, Pixels

MOST = 256  # images; a share of maps is wanted, not a figure of accuracy


@dataclass(frozen=True)
class MapCorrelation:
    """Pearson's correlation of an image's two maps of the class that the reference predicts."""

    median: float
    lowest: float  # of all but the lowest 5 % of the images
    images: int

    def __str__(self) -> str:
        return (
            f"heat maps correlate with the reference's by {self.median:.3f} (median of "
            f"{self.images} images; 95 % by {self.lowest:.3f} or more)"
        )


def map_correlation(reference: Path, candidate: Path, images: Pixels) -> MapCorrelation:
    """Compare the heat maps of two files on images of their size, `uint8 [N,S,S,3]`, BGR."""
    settings = Settings(choose_threads().count, spin=False)
    sessions = [
        ModelSession(find_model(path), "cpu", settings).heat_map()
        for path in (reference, candidate)
    ]
    found = []
    for image in images[:: -(-len(images) // MOST)]:
        (probabilities, right), (_, maps) = (one.run([np.asarray(image)]) for one in sessions)
        label = int(probabilities[0].argmax())
        found.append(_pearson(right[0, label], maps[0, label]))
    low, median = np.percentile(found, [5, 50])
    return MapCorrelation(float(median), float(low), len(found))


def _pearson(one: Float32, other: Float32) -> float:
    a, b = ((values - values.mean()).ravel() for values in (one, other))
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
