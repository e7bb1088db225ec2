"""Near-duplicates: find almost identical images by their thumbnails."""

from __future__ import annotations

import cv2
import numpy as np

from catdog_edge.system.console import track
from catdog_edge.training.array_types import Float32, Labels, Pixels

SIMILAR = 0.985
"""Correlation of two 16x16 grey thumbnails from which on images are near-duplicates.

The same photograph saved, toned or lightly cropped again is well above it; different photographs,
also of one animal, are well below."""

BLOCK = 256  # images that are compared with all earlier ones at a time, for bounded memory
MAX_COMPARED = 50_000  # images that are compared, each with every other: more would take minutes


def thumbnails_of(frames: Pixels) -> Pixels:
    """Resize images `uint8 [N,H,W,3]`, BGR, to grey ones, `uint8 [N,16,16]`."""
    small = np.zeros((len(frames), 16, 16), np.uint8)
    for index, frame in enumerate(frames):
        grey = cv2.cvtColor(np.asarray(frame), cv2.COLOR_BGR2GRAY)
        small[index] = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)
    return small


def near_duplicates(thumbnails: Pixels, labels: Labels) -> list[tuple[int, int, float]]:
    """Find images that are nearly the same as an earlier one, mirrored or not.

    Each image, `uint8 [n,16,16]`, grey, is listed once, however many are like it; of more than
    `MAX_COMPARED` the first ones count. The earlier one is the first with another label,
    `int64 [n]`, where there is one.

    Returns:
        Index of the earlier one, index of the image, correlation; the most similar first.
    """
    thumbnails = thumbnails[:MAX_COMPARED]
    plain, mirrored = _standardised(thumbnails), _standardised(thumbnails[:, :, ::-1])
    pairs = []
    for start in track(range(0, len(plain), BLOCK), "blocks of images compared"):
        rows = np.arange(start, min(start + BLOCK, len(plain)))
        end = rows[-1] + 1
        correlation = np.maximum(plain[rows] @ plain[:end].T, plain[rows] @ mirrored[:end].T)
        alike = (correlation >= SIMILAR) & (np.arange(end) < rows[:, None])
        other = alike & (labels[:end] != labels[rows, None])
        alike = np.where(other.any(axis=1, keepdims=True), other, alike)
        for row in np.flatnonzero(alike.any(axis=1)):
            first = int(alike[row].argmax())
            pairs.append((first, int(rows[row]), min(1.0, float(correlation[row, first]))))
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _standardised(thumbnails: Pixels) -> Float32:
    """Scale rows to mean 0 and norm 1: the dot product of two is their correlation."""
    flat = thumbnails.reshape(len(thumbnails), 256).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # The correlation of an image of one grey level is not defined.
    return np.where(length < 16, 0, flat / np.maximum(length, 1)).astype(np.float32)
