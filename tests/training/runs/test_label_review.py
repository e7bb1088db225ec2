"""What a person is asked to look at again: doubtful labels and near-duplicates."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from catdog_edge.spec import squash
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.runs.label_review import (
    Suspect,
    review,
    write_review_csv,
)

STEPS = squash(32, 32)


def scene(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (96, 80), interpolation=cv2.INTER_CUBIC)


def jpeg(frame: np.ndarray, quality: int = 95) -> bytes:
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    frames = {f"{p}.{n}": scene(n + 1000 * (p == "dog")) for p in ("cat", "dog") for n in range(40)}
    # Saved again, brighter, cropped, mirrored: another digest, so another split is possible.
    frames["cat.900"] = cv2.convertScaleAbs(frames["cat.1"], alpha=0.9, beta=10)
    frames["dog.900"] = frames["dog.2"][:, ::-1]
    frames["dog.901"] = cv2.resize(frames["cat.3"][1:79, 1:95], (300, 200))
    frames["cat.950"] = np.full((80, 96, 3), 200, np.uint8)  # flat pictures are alike to no other
    frames["cat.951"] = np.full((80, 96, 3), 90, np.uint8)
    for name, frame in frames.items():
        (folder / f"{name}.jpg").write_bytes(jpeg(frame))
    text = "file,label,split\n"
    for index, name in enumerate(sorted(frames)):
        split = "test" if index % 10 == 5 and "." in name and len(name) < 7 else "train"
        split = "val" if index % 10 == 2 else split
        text += f"{name}.jpg,{name[:3]},{split}\n"
    (tmp_path / "split.csv").write_text(text)
    return open_dataset(folder, split_csv=tmp_path / "split.csv")


def sure(dataset: Dataset, split: str) -> np.ndarray:
    """Probabilities of a network that agrees with every label."""
    labels = [item.label for item in dataset.items_of(split)]
    return np.eye(2, dtype=np.float32)[labels] * 0.8 + 0.1


def test_disagreements_come_first_the_most_confident_first(
    dataset: Dataset, tmp_path: Path
) -> None:
    answers = {split: sure(dataset, split) for split in ("train", "val")}
    train, val = dataset.items_of("train"), dataset.items_of("val")
    answers["train"][5] = answers["train"][5][::-1]  # 0.9 for the other class
    wrong = 1 - val[1].label
    answers["val"][1] = np.eye(2)[wrong] * 0.98 + 0.01  # 0.99
    suspects = review(dataset, answers, STEPS)
    labels = [suspect for suspect in suspects if suspect.why == "label"]
    assert suspects[: len(labels)] == labels
    assert [(s.file, s.split, s.confidence) for s in labels] == [
        (val[1].file, "val", 0.99),
        (train[5].file, "train", 0.9),
    ]
    assert labels[0].label == dataset.labels[val[1].label]
    assert labels[0].answer == dataset.labels[wrong]
    write_review_csv(tmp_path / "review.csv", suspects)
    rows = list(csv.DictReader((tmp_path / "review.csv").read_text("utf-8").splitlines()))
    assert [row["file"] for row in rows] == [suspect.file for suspect in suspects]
    assert rows[0]["confidence"] == "0.99"


def test_near_duplicates_are_found_across_splits_but_never_in_the_test_split(
    dataset: Dataset,
) -> None:
    answers = {split: sure(dataset, split) for split in ("train", "val")}
    suspects = review(dataset, answers, STEPS)
    found = {frozenset((s.file, s.other)): s.why for s in suspects}
    test = {item.file for item in dataset.items_of("test")}
    expected = {
        frozenset(("cat.1.jpg", "cat.900.jpg")): "duplicate",
        frozenset(("dog.2.jpg", "dog.900.jpg")): "duplicate",
        frozenset(("cat.3.jpg", "dog.901.jpg")): "contradiction",
    }
    assert found == {pair: why for pair, why in expected.items() if not pair & test}
    assert len(found) >= 2
    assert all(0.98 < s.confidence == round(s.confidence, 4) for s in suspects)
    with pytest.raises(ValueError, match="test split"):
        review(dataset, {"test": sure(dataset, "test")}, STEPS)
    with pytest.raises(ValueError, match="probabilities for"):
        review(dataset, {"val": sure(dataset, "train")}, STEPS)


def test_each_picture_of_a_group_is_one_row(dataset: Dataset) -> None:
    answers = {split: sure(dataset, split) for split in ("train", "val")}
    files = [suspect.file for suspect in review(dataset, answers, STEPS)]
    assert len(files) == len(set(files)) >= 2


def test_any_name_survives_the_table(tmp_path: Path) -> None:
    suspect = Suspect('a\rb\n"c", d.jpg', "train", "cat", "label", "dog", 0.9)
    write_review_csv(tmp_path / "review.csv", [suspect])
    with (tmp_path / "review.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["file"] for row in csv.DictReader(stream)] == [suspect.file]
