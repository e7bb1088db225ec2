"""The drawn sample: deterministic, varied, and not to be told apart without looking."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.images.image_sets import assert_looks, looked

from catdog_edge.spec import squash
from catdog_edge.training.data import sample
from catdog_edge.training.data.open_dataset import open_dataset, pixels
from catdog_edge.training.data.sample import animals, scenes

LOOKS = looked(
    "c6c6afbbcdcd65a092ad826e58594e48b6b1a48cb7a996948685858485818f7d"
    "7a7a7f7e7b787b7d6d84776868a8784e98999a9c9880858d7a855f5a5a885344"
    "656763524e616f5f577376676b8c8f5a5c5e5c605b5f5e6e575d746153539254"
    "d4d1cdd5ca838cd7bf787dc56053525a949395939270599295533d7f612f203c"
    "d8d6d6d7e1d4dce283cfdfc198e9e4954b4a38483e45525936386446483f514e"
    "cfcecccbc9d8d7dc99cbbea7a8dcce7171705a6f706b5d705e615d5f55545658"
    "9a9ca09da7ac9e9f9d9b6f6d9e9248487c7a787d7c6d496a685d4a50604f3a38"
    "9a8a8a99a37976878679725e6976746f989991959596678989896d7279764c5c"
    "7b7978797a7c79786d675f7250696652b6a68baa7e604e6e705c46646d514455"
    "b1b1a1a8b1b27d91a2a2858a86837674aaabaaaabc74bababd94a29a57705455"
    "818280828b656488905d5a633c4b5741a1a09fa17058525b3b616a3f43688555"
    "a9a9a9aa87b3b3b368aca77082cdca6b929188939c80539b72736d8b4e4a4f4c"
    "c8ba94c6d08b74c5b1547592636378628c8c908c8c8c9d946b6eae836068ba85"
    "868684866f4c627d473e424b414a3f43eeedefefe698b1f367a1ae91847b7e85"
    "b6b5b1b6c1a479ad6d7a7b756a747a698a8360619da134466b643f45675a3647"
    "968f8e968d4d51915a4042673f3e3f3f929086918a57386b5045414f4a484052"
)
"""16 cats and 16 dogs, grey, 4 x 4 levels each."""

COLOURS = bytes.fromhex(
    "86958d8c979181757b5e8477595f804e606b9d9f98756a6fbdd6bd414453adcbb6596266"
    "7d908f565c6d597e8f7a81806e7184839999677f6a6f656e6e83806e8e95717f804b6d73"
    "6c6d726277678c8ab1a89f795e6b6f51697d9ca3997e757479929a7e859457615895b2be"
    "8a997e5662655c6b59586d4ca0b29c7c857f467d63978492969b8982979f574e4e586d7a"
)
"""The mean blue, green and red of 24 cats and 24 dogs."""


STROKES = "9ded9f6a48a461a8b38bfb8aed5e2828bae4f0f7645aaa03440468efc7582d39"
"""Digest of all shapes, colours and noises that OpenCV gets for 24 cats and 24 dogs."""


class Spy:
    """Stands for OpenCV, does what it does, and digests what it is given."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def __getattr__(self, name: str) -> object:
        found = getattr(cv2, name)

        def call(*given: object, **more: object) -> object:
            self.digest.update(f"{name} {[plain(one) for one in given]}".encode())
            return found(*given, **more)

        return call if callable(found) else found


def plain(given: object) -> object:
    """Text of an argument, the same wherever the tests run: of an image its size alone."""
    if isinstance(given, np.ndarray) and given.dtype == np.uint8:
        return given.shape if given.size > 3 else given.tolist()
    if isinstance(given, np.ndarray) and given.dtype != np.int32:
        return given.shape, round(float(given.mean()), 3)
    if isinstance(given, np.ndarray):
        return given.tolist()
    if isinstance(given, list | tuple):
        return [plain(one) for one in given]
    return round(float(given), 3) if isinstance(given, float | np.floating) else str(given)


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


def test_every_drawing_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy()
    for module in (sample, animals, scenes):
        monkeypatch.setattr(module, "cv2", spy)
    drawn = [sample.draw(kind, number) for kind in sample.KINDS for number in range(24)]
    monkeypatch.undo()
    assert spy.digest.hexdigest() == STROKES
    assert len({frame.tobytes() for frame in drawn}) == 48
    assert len({frame.shape for frame in drawn}) > 30  # sizes
    for frame in drawn:
        assert frame.dtype == np.uint8
        assert 128 <= min(frame.shape[:2]) <= max(frame.shape[:2]) <= 216
        assert frame.std() > 10  # something is in it
    assert_looks(drawn[:16] + drawn[24:40], LOOKS)
    means = np.array([frame.mean(axis=(0, 1)) for frame in drawn])
    apart = means - np.frombuffer(COLOURS, np.uint8).reshape(48, 3)
    assert np.abs(apart).max() < 1
    assert abs(apart.mean()) < 0.1
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
