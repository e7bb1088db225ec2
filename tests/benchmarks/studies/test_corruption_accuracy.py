"""Accuracy on spoiled pictures, from a file alone."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.paths import DATA

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from benchmarks.measure.corruptions import CORRUPTIONS
from benchmarks.studies import corruption_accuracy

pytestmark = pytest.mark.train

MODEL = str(DATA / "tiny_known.onnx")
"""Takes red for cats, blue for dogs, and grey for neither."""


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """Red cats and blue dogs in a zip, and a folder of grey things."""
    generator = np.random.default_rng(4)
    archive, other = tmp_path / "pets.zip", tmp_path / "other"
    other.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(80):
            noise = generator.integers(0, 30, (20, 24, 3), dtype=np.uint8)
            noise[..., 2 if number % 2 == 0 else 0] += 200
            data = cv2.imencode(".png", noise)[1].tobytes()
            file.writestr(f"{('cat', 'dog')[number % 2]}.{number}.png", data)
            grey = generator.integers(100, 130, (20, 24, 1), dtype=np.uint8)
            (other / f"{number}.png").write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    return archive, other


def test_every_condition_is_a_row(
    pictures: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    archive, other = pictures
    assert corruption_accuracy.main([MODEL, "--data", str(archive), "--other", str(other)]) == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    pets = {row[0].split(":")[0]: row[1:] for row in lines if len(row) == 3}
    others = {row[0].split(":")[0]: row[1] for row in lines if len(row) == 2}
    names = {"as they are", *(one.name for one in CORRUPTIONS)}
    assert names <= set(pets)
    assert names <= set(others)
    assert pets["as they are"][0].startswith("100.00 (")
    assert pets["as they are"][1] == "100.0"
    assert pets["rotation"][0].startswith("100.00 (")
    assert others["as they are"].startswith("100.00 (")


def test_a_share_has_its_wilson_interval() -> None:
    assert corruption_accuracy.share(8, 10) == "80.00 (49.02 to 94.33)"


def test_pictures_of_other_classes_are_one_line(
    easy_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert corruption_accuracy.main([MODEL, "--data", str(easy_set)]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "bright" in error
    assert "cat" in error
