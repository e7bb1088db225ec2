"""The pseudocode of docs/preprocessing.md is what the implementation does."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from support.paths import ROOT

pytest.importorskip("cv2")

from catdog_edge.images.preprocess import preprocess
from catdog_edge.runtime.model_file import find_model, read_spec
from catdog_edge.spec import crop_and_squash, squash

DOCS = ROOT / "docs" / "preprocessing.md"


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    if not DOCS.is_file():
        pytest.skip("the docs are not beside these tests")
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.mark.parametrize(
    "shape",
    [
        (480, 640), (1080, 1920), (100, 100), (64, 64), (32, 32), (33, 40), (20, 300), (300, 20),
        (1, 1), (1, 500), (65, 63), (50, 31), (262, 26), (377, 11),
    ],
)  # fmt: skip
@pytest.mark.parametrize("second", ["linear", "area"])
@pytest.mark.parametrize("crop", [0, 0.5, 1])
def test_the_pseudocode_gives_the_same_picture(
    documented: dict[str, Any], shape: tuple[int, int], second: str, crop: float
) -> None:
    size = 32
    first, last = squash(size, size)
    first = dataclasses.replace(first, crop=crop)
    steps = (first, dataclasses.replace(last, interpolation=second))
    random = np.random.default_rng(shape[0] * 10_000 + shape[1])
    frame = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    mine = preprocess(frame, steps)
    theirs = documented["model_picture"](frame, size, documented[second], crop)
    assert theirs.dtype == np.uint8
    assert theirs.shape == mine.shape == (size, size, 3)
    difference = np.abs(mine.astype(int) - theirs.astype(int))
    # OpenCV's linear step counts in fixed point, so a value near a half may round otherwise; a
    # second step can make two levels of it, seldom.
    assert difference.max() <= 2
    assert (difference == 2).mean() < 0.002


@pytest.mark.parametrize(
    ("name", "rule"), [("fast", crop_and_squash), ("accurate", crop_and_squash)]
)
def test_the_rule_of_a_shipped_model_is_one_of_the_two(name: str, rule: Any) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; install a flavour")
    spec = read_spec(find_model(name).path)
    assert spec.resize == rule(spec.height, spec.width)
