"""A classifier that is pickled or copied, on its way to another process or machine."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.fresh_python import fresh
from support.images.toy_frames import BLUE, RED
from support.paths import TINY

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

import catdog_edge
from catdog_edge import Classifier, ModelError, Prediction
from catdog_edge.runtime.classifier import _OWN
from catdog_edge.runtime.model_file import ZOO


def test_it_travels_by_pickle() -> None:
    for model in (TINY, TINY.read_bytes()):
        before = Classifier(model, provider="cpu", threads=1, reject=0.9, spin=False)
        after = pickle.loads(pickle.dumps(before))
        assert after(RED) == before(RED)
        assert (after.path, after.threads, after.reject, after.provider) == (
            before.path,
            1,
            before.reject,
            "cpu",
        )
        assert repr(after) == repr(before)


@pytest.mark.parametrize("model", [None, "fast"])
def test_a_shipped_model_travels_by_its_name(model: str | None, tmp_path: Path) -> None:
    before = Classifier(model, provider="cpu", threads=1)
    assert before.path is not None
    parcel = pickle.dumps(before)
    assert os.fsencode(before.path.parent) not in parcel
    assert len(parcel) < 1000
    # The package of the machine where it arrives lies elsewhere.
    package = Path(catdog_edge.__file__).parent
    leave_out = shutil.ignore_patterns("training", "__pycache__")
    shutil.copytree(package, tmp_path / "catdog_edge", ignore=leave_out)
    (tmp_path / "parcel").write_bytes(parcel)
    program = textwrap.dedent("""
        import pickle
        import numpy as np
        pets = pickle.load(open("parcel", "rb"))
        print(pets.path, pets(np.full((48, 64, 3), (0, 0, 200), np.uint8)).probabilities)
    """)
    done = fresh(program, tmp_path)
    assert done.returncode == 0, done.stderr
    over_there = tmp_path / "catdog_edge" / "zoo" / before.path.name
    assert done.stdout.strip() == f"{over_there} {before(RED).probabilities}"
    # A package that lacks the model says so.
    over_there.rename(over_there.with_stem("other"))
    done = fresh(program, tmp_path)
    said = done.stderr.splitlines()[-1]
    assert said.startswith(
        "catdog_edge.errors.ModelError: this classifier was pickled with the name"
    )
    assert "fast" in said


def test_a_model_of_ones_own_travels_by_path_or_by_bytes(tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(TINY.read_bytes())
    by_path = pickle.dumps(Classifier(file, "cpu"))
    by_bytes = pickle.dumps(Classifier(file.read_bytes(), "cpu"))
    assert len(by_path) < 1000 < len(by_bytes)
    # A path stays a path, also that of a shipped model.
    shipped = Classifier(ZOO / "fast.onnx", "cpu")
    assert os.fsencode(ZOO / "fast.onnx") in pickle.dumps(shipped)
    file.unlink()
    assert pickle.loads(by_bytes)(RED).label == "cat"
    with pytest.raises(ModelError) as caught:
        pickle.loads(by_path)
    assert f"with the path of its model, {file}, and no such file is here" in str(caught.value)
    assert "\n" not in str(caught.value)


class Counting(Classifier):
    """A subclass with arguments and a state of its own."""

    def __init__(self, title: str) -> None:
        self.title = title
        super().__init__(TINY, "cpu", threads=1)
        self.count = 0

    def __call__(self, frame: Any) -> Prediction:
        self.count += 1
        return super().__call__(frame)


def through_pickle(one: Any) -> Any:
    return pickle.loads(pickle.dumps(one))


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, through_pickle])
def test_a_subclass_travels_as_what_it_is(way: Any) -> None:
    before = Counting("porch")
    before(RED)
    after = way(before)
    assert type(after) is Counting
    assert (after.title, after.count) == ("porch", 1)
    assert after(BLUE).label == "dog"
    assert (before.count, after.count) == (1, 2)
    assert vars(Classifier(TINY, "cpu")).keys() == _OWN


def test_a_closed_one_neither_begins_nor_travels() -> None:
    pets = Classifier(TINY, "cpu")
    pets.close()
    for way in (pets.__enter__, lambda: pickle.dumps(pets), lambda: copy.copy(pets)):
        with pytest.raises(ModelError, match="closed"):
            way()
