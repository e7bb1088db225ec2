from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="files are made with torch; install [train]")
onnx = pytest.importorskip("onnx", reason="files are made with onnx; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import pictures, spec_for, trained, truth

from catdog_edge.errors import GateError
from catdog_edge.training.evaluation.inference import logits, probabilities
from exporters.checks.file_check import (
    ReferenceModel,
    check_file,
    check_outputs,
    check_probabilities,
    check_same_task,
    time_files,
    too_slow,
)
from exporters.checks.predictors import OnnxPredictor, TorchPredictor
from exporters.checks.timing import Ratio
from exporters.checks.validation_data import ValidationSet
from exporters.formats.torch_export import export_onnx

FRAMES = pictures(18)
VALIDATION = ValidationSet(FRAMES, truth(18), tuple(map(str, range(18))), "18 images")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network, spec = trained()
    path = tmp_path_factory.mktemp("files") / "model.onnx"
    return export_onnx(network, spec, path, logits=True).path


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (np.full((3, 2), 0.5, np.float64), r"expected float32 \[3, 2\], got float64 \[3, 2\]"),
        (np.full((2, 2), 0.5, np.float32), r"got float32 \[2, 2\]"),
        (np.array([[np.nan, 1], [0, 1], [0, 1]], np.float32), "1 answers are not finite"),
        (np.full((3, 2), 0.498, np.float32), r"do not sum to one \(off by 4\.0e-03"),
        (np.array([[-0.1, 1.1]] * 3, np.float32), "least -1.0e-01"),
    ],
)
def test_answers_that_are_no_probabilities_are_refused(answers: np.ndarray, message: str) -> None:
    with pytest.raises(GateError, match=message):
        check_probabilities(answers, 3, 2, "model.onnx")


def test_a_file_has_the_outputs_that_were_asked_for() -> None:
    def outputs(*names: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in names]

    spec = spec_for()
    check_outputs(outputs("probabilities"), spec, "x")
    check_outputs(outputs("probabilities", "logits"), spec, "x", logits=True)
    for found, asked in (
        (outputs("output"), False),
        (outputs("probabilities", "logits"), False),
        (outputs("probabilities"), True),
    ):
        with pytest.raises(GateError, match="x: output names: expected"):
            check_outputs(found, spec, "x", asked)


def test_models_of_other_tasks_are_not_compared() -> None:
    spec = spec_for()
    check_same_task(spec, spec.replace(precision="fp16", layout="nchw-float"), "x")
    for other, message in (
        (spec.replace(labels=("dark", "bright", "striped")), "labels differ"),
        (spec_for(size=64), "input size differs"),
        (spec.replace(resize=spec.resize[1:]), "resize rule differ"),
    ):
        with pytest.raises(GateError, match=message):
            check_same_task(spec, other, "x")


def test_the_labels_that_differ_are_named_among_many() -> None:
    labels = tuple(f"class {number}" for number in range(300))
    spec = spec_for(labels=labels)
    for other, said in (
        (labels[:-1], "300 labels, this has 299"),
        ((*labels[:7], "wrong", *labels[8:]), "label 7 is 'class 7', here 'wrong'"),
    ):
        with pytest.raises(GateError, match="labels differ") as caught:
            check_same_task(spec, spec.replace(labels=other), "x")
        assert said in str(caught.value)
        assert len(str(caught.value)) < 200


def test_the_network_and_its_file_agree(file: Path) -> None:
    network, spec = trained()
    reference = ReferenceModel(TorchPredictor(network, spec), VALIDATION)
    assert reference.answers.probabilities == pytest.approx(probabilities(network, spec, FRAMES))
    assert reference.answers.logits == pytest.approx(logits(network, spec.normalization, FRAMES))
    checked = check_file(OnnxPredictor(file), "model.onnx", reference, logits=True)
    assert checked.verification.passed
    assert checked.verification.comparison.images == 18
    assert checked.verification.logits_difference is not None
    assert checked.verification.accuracy is not None
    with pytest.raises(GateError, match="output names"):
        check_file(OnnxPredictor(file), "model.onnx", reference)


def test_the_reference_answers_further_images_once(file: Path) -> None:
    calls = []

    class Counted(OnnxPredictor):
        def predict(self, images, batch=None):
            calls.append(len(images))
            return super().predict(images, batch)

    validation = ValidationSet(FRAMES, truth(18), VALIDATION.files, "x", lambda: pictures(5))
    reference = ReferenceModel(Counted(file), validation)
    for _ in range(2):
        found = reference.more
        assert found is not None
        assert len(found[0]) == len(found[1].probabilities) == 5
    assert calls == [18, 5]
    assert ReferenceModel(OnnxPredictor(file), VALIDATION).more is None


@pytest.mark.slow
def test_files_are_timed_in_turns(file: Path, tmp_path: Path) -> None:
    network, spec = trained()
    fixed = export_onnx(network, spec, tmp_path / "fixed.onnx", batch=3, layout="nchw-float").path
    timing = time_files({"one": file, "three": fixed}, VALIDATION, 0.01)
    assert list(timing.rows) == ["one", "three"]
    assert timing.rows["three"].p50 > 0


def test_the_whole_interval_must_be_above_the_limit() -> None:
    assert too_slow(Ratio(1.2, 1.06, 1.4)).startswith("it takes 1.20 (1.06 to 1.40) times")
    assert not too_slow(Ratio(1.2, 1.04, 1.4))
    assert not too_slow(Ratio(0.5, 0.4, 0.6))
