"""Measure the range of every activation on training images, in bounded memory.

(ONNX Runtime's own histogram calibrators hold every activation of a whole data set, and fail on an
activation that hardly varies.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from catdog_edge.training.array_types import Float32
from exporters.checks.predictors import open_session

Histogram = npt.NDArray[np.int64]
Calibration = Literal["minmax", "entropy", "percentile"]
Ranges = dict[str, tuple[float, float]]
"""The least and the greatest value that a tensor is to represent, by tensor."""

PERCENTILE = 99.99  # `percentile` keeps this share of the values of every activation

BINS = 2048
LEVELS = 128
"""What `entropy` compares: a histogram of BINS with itself in LEVELS steps, as in S. Migacz,
"8-bit Inference with TensorRT", GTC 2017."""


def measure_ranges(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    inputs: Callable[[], Iterator[npt.NDArray[Any]]],
    method: Calibration = "minmax",
) -> Ranges:
    """Run images through a float network with one input; measure ranges of named activations.

    `inputs` starts over the batches, arrays of the dtype and shape of the network's input.
    The method is `minmax`: all values; `percentile`: see `PERCENTILE`; `entropy`: the range that
    keeps the distribution best (least Kullback-Leibler divergence). Raises `ModelError` where this
    onnxruntime cannot load the network.
    """
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    del observed.graph.output[:]
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    session = open_session(observed.SerializeToString(), name="the network to calibrate")

    def activations() -> Iterator[tuple[str, Float32]]:
        name = session.get_inputs()[0].name
        for value in inputs():
            yield from zip(tensors, session.run(list(tensors), {name: value}), strict=True)

    ranges: Ranges = {}
    for name, values in activations():
        low, high = ranges.get(name, (0.0, 0.0))  # zero is always to be represented exactly
        ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
    if method == "minmax":
        return ranges
    histograms = {name: np.zeros(BINS, np.int64) for name in ranges}
    for name, values in activations():
        low, high = ranges[name]
        if high > low:
            places = ((values.ravel() - low) * ((BINS - 1) / (high - low))).astype(np.int32)
            histograms[name] += np.bincount(places, minlength=BINS)
    narrow = _percentile_range if method == "percentile" else _entropy_range
    return {name: narrow(histograms[name], *ranges[name]) for name in ranges}


def _percentile_range(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """Return the range without (100 - PERCENTILE) % of the values, half of them on each side."""
    if not histogram.any():
        return low, high
    outside = (100 - PERCENTILE) / 200
    below = np.cumsum(histogram) / histogram.sum()
    width = (high - low) / (BINS - 1)
    first, last = map(int, np.searchsorted(below, [outside, 1 - outside]))
    return min(low + first * width, 0.0), max(min(low + (last + 1) * width, high), 0.0)


def _entropy_range(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """Return the fraction of the range whose LEVELS steps preserve the distribution best."""
    if not histogram.sum():
        return low, high
    width = (high - low) / (BINS - 1)
    zero = -low / width
    # Zeros (half of what a ReLU gives) are exact in every range; counted, they would outvote
    # all other values.
    histogram = histogram.copy()
    place = int(zero)
    beside = [histogram[i] for i in (place - 1, place + 1) if 0 <= i < BINS]
    histogram[place] = sum(beside) // len(beside)
    best, best_divergence = 1.0, np.inf
    for fraction in np.linspace(LEVELS / BINS, 1.0, 121):
        first = round(zero * (1 - fraction))
        last = round(zero + (BINS - zero) * fraction)
        if last - first < LEVELS:
            continue
        divergence = _divergence(histogram, first, last)
        if divergence < best_divergence:
            best, best_divergence = float(fraction), divergence
    return low * best, high * best


def _divergence(histogram: Histogram, first: int, last: int) -> float:
    """Compute the KL divergence of a clipped distribution from itself in LEVELS steps."""
    inside = histogram[first:last].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += histogram[:first].sum()
    clipped[-1] += histogram[last:].sum()
    edges = np.linspace(0, len(inside), LEVELS, endpoint=False).astype(np.int64)
    step = np.searchsorted(edges, np.arange(len(inside)), side="right") - 1
    filled = inside > 0
    sums = np.bincount(step, weights=inside, minlength=LEVELS)
    counts = np.bincount(step, weights=filled, minlength=LEVELS)
    stepped = np.where(filled, (sums / np.maximum(counts, 1))[step], 0.0)
    p = clipped / max(clipped.sum(), 1.0)
    q = np.maximum(stepped / max(stepped.sum(), 1.0), 1e-12)
    kept = p > 0
    return float(np.sum(p[kept] * np.log(p[kept] / q[kept])))
