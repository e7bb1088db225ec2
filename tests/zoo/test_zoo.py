"""The models that ship: what their cards promise, from the files alone."""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.paths import ROOT

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; install a flavour")

from catdog_edge import Classifier
from catdog_edge.runtime.model_file import ZOO, shipped_models
from catdog_edge.runtime.providers.nvidia import fp16_file

LIMITS = {"fast": 6_000_000, "accurate": 15_000_000}
"""Bytes of the file."""


@pytest.fixture(scope="module", params=sorted(LIMITS))
def pets(request):
    return Classifier(request.param, "cpu")


@pytest.mark.train
def test_info_prints_the_card(pets):
    pytest.importorskip("click")
    from click.testing import CliRunner

    from catdog_edge.cli.main import main

    card = (ZOO / f"{pets.path.stem}.md").read_text(encoding="utf-8")
    for called in (pets.path.stem, str(pets.path)):
        assert card.rstrip() in CliRunner().invoke(main, ["info", called, "--card"]).stdout
    document = json.loads(CliRunner().invoke(main, ["info", pets.path.stem, "--json"]).stdout)
    assert document["card"] == card


def test_both_models_ship():
    assert set(shipped_models()) == set(LIMITS)


def test_the_card_is_that_of_the_file(pets):
    half = fp16_file(pets.path)
    assert half is not None
    content = pets.path.read_bytes()
    assert len(content) <= LIMITS[pets.path.stem]
    assert half.stat().st_size <= LIMITS[pets.path.stem]
    card = (ZOO / f"{pets.path.stem}.md").read_text(encoding="utf-8")
    told = re.findall(r"^SHA-256 `([0-9a-f]{64})` \(`(.*)`\)$", card, re.MULTILINE)
    assert told == [
        (hashlib.sha256(one.read_bytes()).hexdigest(), one.name) for one in (pets.path, half)
    ]
    assert f"{pets.spec.height}x{pets.spec.width}" in card
    assert f"{pets.spec.rejection.threshold:.4f}" in card


@pytest.mark.slow
def test_both_forms_are_one_model(pets):
    half = fp16_file(pets.path)
    assert half is not None
    other = Classifier(half, "cpu")
    assert other.spec.precision == "fp16"
    for name in ("labels", "size", "resize", "rejection", "temperature"):
        assert getattr(other.spec, name) == getattr(pets.spec, name)
    frames = list(FRAMES.values())[:6]
    np.testing.assert_allclose(pets.scores(frames), other.scores(frames), atol=0.1)


@pytest.mark.slow
@pytest.mark.train
def test_the_file_does_on_the_test_split_what_the_card_says(pets, shared_data):
    pytest.importorskip("torch", reason="eval needs torch; install [train]")
    from catdog_edge.training.evaluate import evaluate_weights

    data, other = shared_data / "cat_dog.zip", shared_data / "other.zip"
    if not data.is_file():
        pytest.skip("needs cat_dog.zip of the shared data")
    found = evaluate_weights(Path(pets.path.stem), [str(data)], [str(other)]).to_dict()
    card = (ZOO / f"{pets.path.stem}.md").read_text(encoding="utf-8")
    file = re.search(r"^\| this file .*?\| ([\d.]+) % .*\| ([\d.]+) % \|$", card, re.MULTILINE)
    assert file is not None
    # Another processor rounds int8 another way: a few of 2,027 answers.
    assert 100 * found["accuracy"] == pytest.approx(float(file[1]), abs=0.2)
    assert 100 * found["expected_calibration_error"] == pytest.approx(float(file[2]), abs=0.2)
    assert found["expected_calibration_error"] <= 0.01
    rejected = re.search(r"nothing was chosen by \| ([\d.]+) % of \d+", card)
    assert rejected is not None
    others = found["rejection"]["others"]
    assert 100 * others["rejected"] == pytest.approx(float(rejected[1]), abs=0.6)
    assert others["rejected"] >= 0.95


def test_the_answers_that_arm_is_held_to_are_of_the_files_that_ship():
    script = ROOT / ".ci" / "arm64"
    if not script.is_file():
        pytest.skip("the wheel's tests have no .ci")
    arm64 = SimpleNamespace(**runpy.run_path(str(script)))
    frames = list(arm64.pictures(50))
    with np.load(arm64.STORED) as stored:
        assert {*stored.files} - {"pictures"} == {file.name for file in ZOO.glob("*.onnx")}
        for name in {*stored.files} - {"pictures"}:
            found = arm64.rows(ZOO / name, frames)
            np.testing.assert_allclose(
                found, stored[name][::50], atol=0.05, err_msg=".ci/arm64 --store"
            )


def test_what_ships_fits_a_wheel():
    files = [file for file in ZOO.parent.rglob("*") if file.suffix in (".onnx", ".md", ".py")]
    assert sum(file.stat().st_size for file in files) < 25_000_000  # before it is compressed


def _frames() -> dict[str, np.ndarray]:
    """Plain frames of 480x640 as a camera gives them where nothing is, drawn here alone."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[0:480, 0:640].astype(np.float32)
    flat = np.ones((480, 640, 3), np.float32)
    frames = {
        "black": flat * 0,
        "night": flat * 6 + rng.normal(0, 4, flat.shape),
        "white": flat * 255,
        "grey": flat * 127,
        "grey noise": 127 + rng.normal(0, 40, (480, 640, 1)) * flat,
        "coloured noise": rng.uniform(0, 255, flat.shape),
        "a wall in the evening": flat
        * (60, 120, 180)
        * (1.1 - np.hypot(x - 100, y)[..., None] / 900),
        "a white wall": flat * 225 - (y / 20)[..., None] + rng.normal(0, 3, flat.shape),
    }
    lawn = cv2.GaussianBlur(rng.normal(0, 90, (480, 640)).astype(np.float32), (0, 0), 1.5)
    frames["a lawn"] = flat * (40, 120, 70) + lawn[..., None]
    floor = flat * (70, 110, 160) + (10 * np.sin(x / 7 + np.sin(y / 60) * 3))[..., None]
    floor[(y % 80) < 3] = (30, 50, 80)
    frames["a wooden floor"] = floor
    tiles = flat * 200 + rng.normal(0, 2, flat.shape)
    tiles[((x + y / 3) % 90 < 4) | ((y + x / 9) % 90 < 4)] = 120
    frames["tiles"] = tiles
    bricks = flat * (60, 80, 150) + rng.normal(0, 8, flat.shape)
    bricks[(y % 40 < 4) | ((x + 45 * (y // 40 % 2)) % 90 < 4)] = (150, 160, 165)
    frames["bricks"] = bricks
    curtain = flat * (140, 150, 170) * (0.8 + 0.2 * np.sin(x / 14 + y / 300))[..., None]
    frames["a curtain"] = curtain
    door = flat * (190, 200, 205)
    cv2.rectangle(door, (220, 60), (420, 480), (70, 90, 120), -1)
    cv2.circle(door, (400, 280), 9, (60, 190, 210), -1)
    frames["a door"] = door
    return {
        name: np.ascontiguousarray(np.clip(frame, 0, 255).astype(np.uint8))
        for name, frame in frames.items()
    }


FRAMES = _frames()


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_with_nothing_in_it_is_no_pet(pets, name):
    answer = pets(FRAMES[name])
    assert answer.label == "neither", f"{name}: {answer}"


def _pictures(archive: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(archive) as found:
        return {
            Path(name).name: cv2.imdecode(
                np.frombuffer(found.read(name), np.uint8), cv2.IMREAD_COLOR
            )
            for name in sorted(found.namelist())
            if name.endswith(".jpg")
        }


@pytest.mark.slow
def test_photographs_as_a_camera_takes_them(pets, shared_data):
    """At their original size; some were trained on at 200x200, so this is about the resize."""
    pictures = _pictures(shared_data / "originals.zip")
    assert len(pictures) == 100
    answers = pets.probabilities(list(pictures.values())).argmax(axis=1)
    right = [
        pets.spec.labels[answer] == name.split(".")[0] for answer, name in zip(answers, pictures)
    ]
    assert sum(right) >= 97
    scores = pets.scores(list(pictures.values()))
    assert (scores >= pets.spec.rejection.threshold).mean() >= 0.85  # most are answered


@pytest.mark.slow
def test_streets_are_no_pets(pets, shared_data):
    """Part of them was trained on: this is about the file; the cards have the figures."""
    scores = pets.scores(list(_pictures(shared_data / "other.zip").values()))
    assert (scores < pets.spec.rejection.threshold).mean() >= 0.95
