"""The images that a file is checked on and calibrated with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import spec_for

from catdog_edge.errors import DataError
from catdog_edge.training.models.registry import CENTRED
from exporters.checks import validation_data
from exporters.checks.validation_data import ModelData, check_calibration, find_data, stratified


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


def test_validation_images_are_of_the_environments_data_and_training_images_make_up(
    easy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_for(CENTRED, ("bright", "dark"))
    monkeypatch.setenv("CATDOG_DATA", str(easy_set))
    data = find_data(spec, Path("model.onnx"), None, None)
    assert (data.name, data.missing) == ("lamps", "")
    some = data.validation(spec, 8)
    assert some.images.shape == (8, 32, 32, 3)
    assert np.bincount(some.truth).tolist() == [4, 4]
    assert some.source == "8 validation images of lamps"
    training = sum(item.split == "train" for item in data.dataset.items)
    assert len(some.more()) == training
    for enough, count in ((9, 1), (20, 12)):
        monkeypatch.setattr(validation_data, "ENOUGH", enough)
        assert len(data.validation(spec, 8).more()) == count
    monkeypatch.setattr(validation_data, "ENOUGH", 8)
    assert data.validation(spec, 8).more() is None
    assert len(data.calibration(spec, 40)) == 40
    assert ModelData(data.dataset, labelled=False).validation(spec).truth is None
    missing = ModelData(data.dataset, "it is gone")
    assert missing.validation(spec).truth is None
    with pytest.raises(DataError, match="it is gone; static quantization"):
        missing.calibration(spec, 40)
