"""The images that a file is checked on and calibrated with."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")
pytestmark = pytest.mark.train

from support.models.tiny_nets import spec_for

from catdog_edge.errors import DataError
from catdog_edge.training.data.open_dataset import pixels
from catdog_edge.training.models.registry import CENTRED
from catdog_edge.training.runs.run_folder import Run
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


def test_a_calibration_has_an_image_of_each_class_however_many_there_are(tmp_path: Path) -> None:
    labels = tuple(f"c{number:02}" for number in range(40))
    rng = np.random.default_rng(0)
    for label in labels:
        for split in ("train", "val", "test"):
            (tmp_path / split / label).mkdir(parents=True)
            frame = rng.integers(0, 256, (8, 8, 3), np.uint8)
            cv2.imwrite(str(tmp_path / split / label / "0.png"), frame)
    spec = spec_for(CENTRED, labels)
    data = find_data(spec, Path("model.onnx"), None, str(tmp_path))
    assert len(data.calibration(spec, 32)) == 40
    (tmp_path / "unsorted").mkdir()
    for number in range(60):
        frame = rng.integers(0, 256, (8, 8, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "unsorted" / f"{number}.png"), frame)
    unlabelled = find_data(
        spec.replace(trained_on={"imported": "theirs.onnx"}),
        Path("model.onnx"), None, str(tmp_path / "unsorted"),
    )  # fmt: skip
    assert not unlabelled.labelled
    assert len(unlabelled.calibration(spec, 32)) == 32


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
    training = len(data.datasets[0].items_of("train"))
    assert len(some.more()) == training
    for enough, count in ((9, 1), (20, 12)):
        monkeypatch.setattr(validation_data, "ENOUGH", enough)
        assert len(data.validation(spec, 8).more()) == count
    monkeypatch.setattr(validation_data, "ENOUGH", 8)
    assert data.validation(spec, 8).more() is None
    assert len(data.calibration(spec, 40)) == 40
    assert ModelData(data.datasets, labelled=False).validation(spec).truth is None
    missing = ModelData(data.datasets, "it is gone")
    assert missing.validation(spec).truth is None
    with pytest.raises(DataError, match="it is gone; static quantization"):
        missing.calibration(spec, 40)


def test_all_data_of_a_run_is_checked_on_and_calibrated_with(
    easy_set: Path, tmp_path: Path
) -> None:
    # The first set has no `dark` but of a source that the training left out.
    for label, source in (("bright", "porch"), ("dark", "street")):
        for file in sorted((easy_set / label).iterdir())[:30]:
            copy = tmp_path / "more" / label / f"{source}-{file.name}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    run = Run(tmp_path)
    sets = [tmp_path / "more", easy_set]
    run.write_args({"data": str(sets[0]), "more_data": [str(sets[1])], "leave_out": ["street"]})
    spec = spec_for(CENTRED, ("bright", "dark"))
    data = find_data(spec, tmp_path / "best.pt", run, None)
    more, lamps = run.datasets()
    found = data.validation(spec)
    count = len(more.items_of("val")) + len(lamps.items_of("val"))
    assert found.source == f"{count} validation images of more, lamps"
    assert len(found.images) == len(found.truth) == count
    (images, truth, items), rest = (pixels(one, "val", spec.resize) for one in (more, lamps))
    assert np.array_equal(found.images, np.concatenate([images, rest[0]]))
    assert found.truth.tolist() == [*truth, *rest[1]]
    assert found.files[: len(items)] == tuple(f"more/{item.file}" for item in items)
    some = data.validation(spec, 6)
    places = [found.files.index(file) for file in some.files]
    assert np.array_equal(some.images, found.images[places])
    assert Counter(name.split("/")[0] for name in some.files).keys() == {"more", "lamps"}
    assert len(data.calibration(spec, 60)) == 60


def test_sets_of_one_name_are_named_by_their_folders(easy_set: Path, tmp_path: Path) -> None:
    for camera in ("cam1", "cam2"):
        shutil.copytree(easy_set, tmp_path / camera / "images")
    run = Run(tmp_path)
    sets = [str(tmp_path / camera / "images") for camera in ("cam1", "cam2")]
    run.write_args({"data": sets[0], "more_data": sets[1:]})
    spec = spec_for(CENTRED, ("bright", "dark"))
    data = find_data(spec, tmp_path / "best.pt", run, None)
    assert data.name == "cam1/images, cam2/images"
