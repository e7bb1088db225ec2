"""How images are read on the way to a part's rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.commands.bulk_runs import predict, rows_of

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")


def test_large_jpegs_at_a_reduced_scale(album: Path) -> None:
    noise = np.random.default_rng(0).normal((90, 100, 120), 30, (600, 900, 3))
    cv2.imwrite("noise.jpg", noise.clip(0, 255).astype(np.uint8))
    predict("noise.jpg", "--out", "full")
    predict("noise.jpg", "--out", "reduced", "--reduce")
    for full, reduced in zip(rows_of("full"), rows_of("reduced"), strict=True):
        assert full["label"] == reduced["label"]
        assert 0 < abs(full["confidence"] - reduced["confidence"]) < 0.1
