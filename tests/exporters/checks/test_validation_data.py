from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.errors import DataError
from exporters.checks.validation_data import check_calibration, stratified


def test_a_calibration_sample_is_stratified() -> None:
    labels = np.array([0] * 500 + [1] * 40 + [2] * 300)
    picked = stratified(labels, 150)
    assert len(picked) == len(set(picked)) == 150
    assert np.bincount(labels[picked]).tolist() == [55, 40, 55]
    assert picked.max() > 800  # from all over, not the first ones
    assert stratified(labels, 5000).tolist() == list(range(840))


def test_too_few_pictures_or_classes_are_refused() -> None:
    with pytest.raises(DataError, match=r"31 training images to calibrate on.*--data"):
        check_calibration(np.arange(31) % 2, ("cat", "dog"), "folder")
    with pytest.raises(DataError, match=r"no 'dog'.*--data"):
        check_calibration(np.zeros(64, np.int64), ("cat", "dog"), "folder")
    check_calibration(np.arange(32) % 2, ("cat", "dog"), "folder")
