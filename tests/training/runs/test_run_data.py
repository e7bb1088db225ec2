"""What a run trains on: sizes, shares of the sources, negatives, and sources left out."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.images.image_sets import image, write

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from catdog_edge.errors import DataError
from catdog_edge.spec import crop_and_squash
from catdog_edge.training.config.recipes import recipe
from catdog_edge.training.data.negatives import open_negatives
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.data.source_names import told_apart
from catdog_edge.training.runs.run_data import RunData

STEPS = crop_and_squash(16, 16)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunData:
    """Two classes, mostly of the source `web`, and negatives of one source."""
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    names = [f"{kind}/web-{n}.jpg" for kind in ("cat", "dog") for n in range(24)]
    names += [f"{kind}/phone-{n}.jpg" for kind in ("cat", "dog") for n in range(6)]
    files = {name: image(number) for number, name in enumerate(names)}
    dataset = open_dataset(write(tmp_path / "set", files))
    others = {f"street/{n}.jpg": image(900 + n) for n in range(40)}
    negatives = open_negatives([str(write(tmp_path / "others", others))], STEPS)
    return RunData((dataset,), negatives)


def test_training_images_are_larger_by_the_recipes_detail(data: RunData) -> None:
    images = data.images(replace(recipe("default"), detail=1.5), STEPS)
    assert images.train[0].shape[1:] == (24, 24, 3)
    assert images.val[0].shape[1:] == (16, 16, 3)
    assert images.negatives is not None
    assert images.negatives.photographs.shape[1:] == (24, 24, 3)
    assert images.negatives.label == 2


def test_a_small_source_is_drawn_more_often_than_its_size_says(data: RunData) -> None:
    images = data.images(recipe("default"), STEPS)
    assert images.shares is not None
    assert images.shares.sum() == pytest.approx(1)
    assert len(np.unique(images.shares)) == 2
    assert images.negatives is not None
    assert images.negatives.shares is None  # of one source
    web = data.without(["phone"])
    assert web.images(recipe("default"), STEPS).shares is None
    assert len(web.datasets[0].items) == 48


def test_only_sources_that_exist_can_be_left_out(data: RunData) -> None:
    data.check_left_out(["phone", "others"])
    with pytest.raises(DataError, match="no data has this source"):
        data.check_left_out(["radio"])
    assert data.without(["others"]).negatives is not None
    assert not data.without(["others"]).negatives.datasets[0].items
    assert RunData(data.datasets).without(["phone"]).negatives is None


def test_a_single_source_is_warned_about(data: RunData, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "catdog_edge")
    data.log_summary()
    assert "sources: phone, web" in caplog.text
    assert "images of none of the classes" in caplog.text
    assert "another camera" not in caplog.text
    data.without(["phone"]).log_summary()
    assert "all images of the classes are of one source, web" in caplog.text


def test_copies_in_other_sets_and_negatives_are_not_trained_on_and_listed(
    data: RunData, tmp_path: Path
) -> None:
    tested = {item.file for item in data.datasets[0].items_of("test")}
    copies = write(tmp_path / "more", {})
    for file in sorted(tested):
        target = copies / "train" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "set" / file, target)
    more = {
        f"train/{kind}/cam-{n}.jpg": image(700 + n + 50 * (kind == "dog"))
        for kind in ("cat", "dog")
        for n in range(4)
    }
    second = open_dataset(write(copies, more), split=(100, 0, 0), required=("train",))
    whole = replace(data, datasets=told_apart([*data.datasets, second])).without([])
    assert len(second.items_of("train")) == 8 + len(tested)
    assert {Path(item.file).stem[:3] for item in whole.datasets[1].items} == {"cam"}
    whole.write_skipped_csv(tmp_path / "skipped.csv")
    rows = list(csv.reader((tmp_path / "skipped.csv").read_text().splitlines()))
    assert rows[0] == ["file", "reason"]
    source = data.datasets[0].source
    assert rows[1:] == [
        [f"{second.source}/train/{file}", f"the same image is in test: {source}/{file}"]
        for file in sorted(tested)
    ]
