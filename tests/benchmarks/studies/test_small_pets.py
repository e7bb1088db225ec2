"""Videos of photographs of other sources give the right events with a focus on the movement."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.image_sets import images, write

from benchmarks.studies import small_pets
from catdog_edge import Classifier

pytestmark = pytest.mark.train

CAT = "wild/pets/cat/phone-2bb179a8e95e.jpg"
DOG = "wild/pets/dog/pixabay-01b31b20da5a.jpg"
ROOM = "wild/places/door-029fdc2140b8.jpg"
STREET = "wild/places/weather-017eae45d1a7.jpg"
"""Of the part of `wild.zip` that no model was trained on."""


def photograph(archive: Path, name: str) -> np.ndarray:
    with zipfile.ZipFile(archive) as opened:
        image = cv2.imdecode(np.frombuffer(opened.read(name), np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(image, np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cuts", "pans", "a quarter wide"])
def test_the_events_of_three_videos_are_right(shared_data: Path, kind: str) -> None:
    archive = shared_data / "wild.zip"
    if not archive.is_file():
        pytest.skip(f"the photographs of other sources are not here ({archive})")
    pictures = [photograph(archive, name) for name in (CAT, STREET, DOG, ROOM)]
    video = small_pets.videos(*pictures)[kind]
    with Classifier("accurate", "cpu") as pets:
        found = small_pets.watch(pets, video, "motion")
        told = [(event.event, event.label, round(event.wall, 1), event.box) for event in found]
        assert small_pets.are_right(found, video[2]), told
        without = small_pets.watch(pets, video, "frame")
        if kind == "a quarter wide":
            assert not small_pets.are_right(without, video[2]), "this is what the focus is for"
            assert all(event.box is not None for event in found)


@pytest.mark.slow
def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pets = write(tmp_path / "pets", images("cat", "dog", count=12))
    other = write(tmp_path / "other", images("places", "animals", count=12))
    options = ["fast", "--data", str(pets), "--other", str(other)]
    assert small_pets.main(options) == 0
    assert "| fast | places in a frame |" in capsys.readouterr().out
    assert small_pets.main([*options, "--behind", "clouds"]) == 1
    assert "--behind clouds" in capsys.readouterr().err
    assert small_pets.main(["fast", "--seconds", "0.1"]) == 0
    assert "| ratio |" in capsys.readouterr().out
