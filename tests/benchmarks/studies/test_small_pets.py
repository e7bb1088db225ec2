"""Videos of photographs of other sources give the right events with a focus on the movement."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from support.images.image_sets import images, write

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


def flat(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize(
    ("left", "top", "box"),
    [(3, 2, (2, 5, 3, 7)), (-2, -1, (0, 2, 0, 2)), (8, 5, (5, 6, 8, 10)), (20, 0, (0, 0, 0, 0))],
)
def test_what_lies_outside_of_a_frame_is_cut_off(left, top, box) -> None:
    made = small_pets.paste(flat(6, 10, 0), flat(3, 4, 9), left, top)
    wanted = flat(6, 10, 0)
    wanted[box[0] : box[1], box[2] : box[3]] = 9
    assert np.array_equal(made, wanted)


def test_a_picture_becomes_a_frame_or_a_quarter_of_its_width() -> None:
    wide, tall = flat(40, 80, 7), flat(80, 10, 7)
    assert small_pets.scene(wide).shape == small_pets.scene(tall).shape == (720, 1280, 3)
    assert small_pets.small(wide).shape == (160, 320, 3)
    assert small_pets.small(tall).shape == (720, 90, 3)
    half = np.hstack([flat(40, 40, 0), flat(40, 40, 200)])
    assert small_pets.scene(half)[:, :600].max() < 10
    assert small_pets.scene(half)[:, 680:].min() > 190


def test_a_frame_is_made_around_each_picture_but_those_that_lie_behind() -> None:
    found = [("pets", "cat", flat(40, 40, 250)), ("places", "neither", flat(9, 16, 10))] * 3
    made = list(small_pets.frames(found, "places"))
    assert [(kind, truth) for kind, truth, _ in made] == [one[:2] for one in found]
    corners = []
    for (kind, _, frame), again in zip(made, small_pets.frames(found, "places"), strict=True):
        assert frame.shape == (720, 1280, 3)
        assert np.array_equal(frame, again[2])
        ys, xs = np.nonzero(frame[..., 0] > 130)
        assert (kind == "pets") == (ys.size > 0)
        if ys.size:
            assert (np.ptp(ys) + 1, np.ptp(xs) + 1) == (320, 320)
            corners.append((int(ys.min()), int(xs.min())))
    assert len(set(corners)) == 3


def test_videos_cut_pan_and_let_small_pets_come_and_go() -> None:
    found = small_pets.videos(*(flat(72, 128, value) for value in (200, 50, 150, 0)))
    at, seconds, moments = found["cuts"]
    assert seconds == 16
    assert [int(at(t)[0, 0, 0]) for t in (0, 3.9, 4, 8, 12, 15.9)] == [200, 200, 50, 150, 0, 0]
    wanted = [("enter", "cat", 0), ("exit", "cat", 4), ("enter", "dog", 8), ("exit", "dog", 12)]
    assert moments == wanted == found["pans"][2]
    at = found["pans"][0]
    shares = [float((at(t)[0, :, 0] == 200).mean()) for t in (0, 3.2, 4, 4.8)]
    assert shares == pytest.approx([1, 1, 0.5, 0], abs=0.01)
    assert all(at(t).shape == (720, 1280, 3) for t in (0, 7.9, 12, 15.9))
    at, seconds, moments = found["a quarter wide"]
    assert seconds == 20
    for _, pet, when in moments:  # half of it is there
        assert (at(when)[..., 0] > 100).sum() == pytest.approx(180 * 160, rel=0.02)
        assert pet == ("cat" if when < 10 else "dog")
    assert [round(m[2], 2) for m in moments] == [1.6, 9.4, 11.6, 19.4]
    assert (at(0)[..., 0] > 100).sum() == 0
    assert (at(5)[..., 0] == 200).sum() == 320 * 180
    assert (at(15)[..., 0] == 150).sum() == 320 * 180


def test_events_are_right_within_a_second() -> None:
    truth = [("enter", "cat", 2.0), ("exit", "cat", 5.0)]

    def told(*moments: tuple[str, str, float]) -> list[SimpleNamespace]:
        return [SimpleNamespace(event=e, label=of, wall=at) for e, of, at in moments]

    assert small_pets.are_right(told(("enter", "cat", 3.0), ("exit", "cat", 4.0)), truth)
    assert not small_pets.are_right(told(("enter", "cat", 3.1), ("exit", "cat", 5.0)), truth)
    assert not small_pets.are_right(told(("enter", "dog", 2.0), ("exit", "cat", 5.0)), truth)
    assert not small_pets.are_right(told(("enter", "cat", 2.0)), truth)


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
