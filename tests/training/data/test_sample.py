"""The drawn sample: deterministic, varied, and not to be told apart without looking."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from catdog_edge.spec import squash
from catdog_edge.training.data import sample
from catdog_edge.training.data.open_dataset import open_dataset, pixels


def test_a_drawing_is_the_same_on_every_call() -> None:
    assert np.array_equal(sample.draw("cat", 3), sample.draw("cat", 3))
    program = (
        "import hashlib\nfrom catdog_edge.training.data.sample import draw\n"
        "print(hashlib.sha256(draw('dog', 5)).hexdigest())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": s},
        ).stdout
        for s in ("1", "2")
    }
    assert len(answers) == 1


def test_every_drawing_is_another_one() -> None:
    drawn = [sample.draw(kind, number) for kind in sample.KINDS for number in range(24)]
    assert len({frame.tobytes() for frame in drawn}) == 48
    assert len({frame.shape for frame in drawn}) > 30  # sizes
    for frame in drawn:
        assert frame.dtype == np.uint8
        assert 128 <= min(frame.shape[:2]) <= max(frame.shape[:2]) <= 216
        assert frame.std() > 10  # something is in it
    means = np.array([frame.mean(axis=(0, 1)) for frame in drawn])
    assert (means.std(axis=0) > 15).all()  # colours
    assert not np.array_equal(sample.draw("cat", 0, seed=1), drawn[0])
    with pytest.raises(ValueError, match="cat, dog"):
        sample.draw("cow", 0)


@pytest.mark.slow
def test_neither_colour_nor_a_linear_look_tells_them_apart() -> None:
    """What a network finds in the drawings is shape: averages and single pixels give nothing."""
    count = 120
    drawn = [sample.draw(kind, number) for kind in sample.KINDS for number in range(count)]
    truth = np.repeat([-1.0, 1.0], count)
    known = np.tile(np.arange(count) % 2 == 0, 2)
    for size in (1, 8):
        small = [cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA).ravel() for f in drawn]
        seen = np.array(small, np.float64)
        seen = (seen - seen[known].mean(0)) / (seen[known].std(0) + 1e-6)
        fitted = seen[known]
        ridge = fitted.T @ fitted + 30 * np.eye(seen.shape[1])
        weights = np.linalg.solve(ridge, fitted.T @ truth[known])
        accuracy = (np.sign(seen[~known] @ weights) == truth[~known]).mean()
        # 120 guesses: three standard deviations above one half are 0.64.
        assert accuracy < 0.66


@pytest.mark.slow
def test_the_sample_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path))
    dataset = open_dataset(limit=60)
    assert dataset.is_sample
    assert dataset.source == "sample"
    assert dataset.labels == ("cat", "dog")
    first, *_ = dataset.describe()
    assert "drawings made by this program" in first
    assert "not photographs" in first
    frames, labels, items = pixels(dataset, "val", squash(32, 32))
    assert frames.shape == (6, 32, 32, 3)
    assert [dataset.labels[label] for label in labels] == [item.file[:3] for item in items]
    dataset.write_split_csv(tmp_path / "split.csv")
    again = open_dataset("sample", split_csv=tmp_path / "split.csv")
    assert again.items == dataset.items


@pytest.mark.slow
def test_places_in_the_sample_do_not_depend_on_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another build of OpenCV draws other last bits; the splits stay as they are."""
    monkeypatch.setattr(sample, "COUNT", 30)
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "a"))
    before = open_dataset("sample", split=(60, 20, 20))
    draw = sample.draw
    monkeypatch.setattr(sample, "draw", lambda kind, number: draw(kind, number) ^ 1)
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "b"))
    after = open_dataset("sample", split=(60, 20, 20))
    assert before.items == after.items
