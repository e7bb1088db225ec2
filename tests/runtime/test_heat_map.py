"""`Classifier.explain`: where the model looked, laid over the frame."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from support.paths import ROOT, TINY

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

from catdog_edge import Classifier, ModelError
from catdog_edge.images.preprocess import kept_part
from catdog_edge.runtime.heat_map import fit_to_frame
from catdog_edge.spec import ResizeStep, crop_and_squash, squash

CAT = cv2.imread(str(ROOT / "examples" / "cat.jpg"))


@pytest.fixture(scope="module")
def pets() -> Classifier:
    return Classifier("fast", "cpu", threads=1)


def test_the_shipped_model_says_where_it_looked(pets: Classifier) -> None:
    heat = pets.explain(CAT)
    assert heat.dtype == np.float32
    assert heat.shape == CAT.shape[:2]
    assert (heat.min(), heat.max()) == (0, 1)
    assert np.array_equal(heat, pets.explain(CAT, "cat"))
    assert not np.array_equal(heat, pets.explain(CAT, "dog"))
    left, _, width, _ = kept_part(*heat.shape, pets.spec.resize)
    assert left > 0
    assert not heat[:, :left].any()  # cut off before the model sees it
    assert not heat[:, left + width :].any()
    for frame in (CAT[..., 0], CAT[:1, :1], np.dstack([CAT, CAT[..., :1]])):
        assert pets.explain(frame).shape == frame.shape[:2]


def test_both_forms_of_a_model_look_at_the_same(pets: Classifier) -> None:
    half = Classifier(pets.path.with_name("fast.half.onnx"), "cpu", threads=1)
    assert np.corrcoef(pets.explain(CAT).ravel(), half.explain(CAT).ravel())[0, 1] > 0.95


def test_answers_are_those_of_before(pets: Classifier) -> None:
    with Classifier("fast", "cpu", threads=1) as other:
        expected = other(CAT)
        other.explain(CAT)
        assert other(CAT) == expected == pets(CAT)
        copy = pickle.loads(pickle.dumps(other))
        assert np.array_equal(copy.explain(CAT), other.explain(CAT))
    with pytest.raises(ModelError, match="closed"):
        other.explain(CAT)


def test_a_file_without_and_what_is_no_class_are_one_line(tmp_path: Path) -> None:
    for model in (TINY, TINY.read_bytes()):
        with pytest.raises(ModelError, match=r"has no heat map; .* catdog-edge export --heat-map"):
            Classifier(model).explain(CAT)
    with pytest.raises(ValueError, match=r"'cow' is not a class .* \['cat', 'dog'\]"):
        Classifier(TINY).explain(CAT, "cow")


def test_a_file_that_was_replaced_is_not_mixed_with_its_session(
    pets: Classifier, tmp_path: Path
) -> None:
    path = tmp_path / "pets.onnx"
    path.write_bytes(pets.path.read_bytes())
    with Classifier(path, "cpu", threads=1) as classifier:
        path.write_bytes(TINY.read_bytes())
        with pytest.raises(ModelError, match="has changed since it was opened"):
            classifier.explain(CAT)


def test_a_map_lies_where_it_belongs() -> None:
    values = np.zeros((4, 4), np.float32)
    values[1, 2], values[3, 3] = 2, -5
    heat = fit_to_frame(values, 80, 160, squash(32, 32))
    assert heat.shape == (80, 160)
    # The four pixels about the middle of its cell have the same value.
    assert np.unravel_index(heat.argmax(), heat.shape) == (29, 99)
    assert heat[70, 140] == 0  # against the class
    heat = fit_to_frame(values, 80, 160, (ResizeStep("linear", 32, 32, crop=1.0),))
    assert np.unravel_index(heat.argmax(), heat.shape) == (29, 89)
    assert not heat[:, :40].any()
    assert not fit_to_frame(-values.clip(0), 80, 160, squash(32, 32)).any()


@pytest.mark.parametrize("shape", [(48, 90), (90, 48), (60, 60), (1, 7)])
def test_the_part_that_is_kept(shape: tuple[int, int]) -> None:
    """A frame resized by the rule is that part of it resized without the crop."""
    from catdog_edge.images.preprocess import resize

    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    left, top, width, height = kept_part(*shape, crop_and_squash(32, 32))
    part = np.ascontiguousarray(frame[top : top + height, left : left + width])
    assert np.array_equal(resize(frame, crop_and_squash(32, 32)), resize(part, squash(32, 32)))
    twice = (ResizeStep("linear", 20, 40), ResizeStep("linear", 20, 20, crop=1.0))
    assert kept_part(100, 300, twice) == (75, 0, 150, 100)
