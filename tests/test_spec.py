from __future__ import annotations

import json
from dataclasses import replace

import pytest

from catdog_edge.errors import ModelError
from catdog_edge.spec import (
    SCHEMA,
    ModelSpec,
    Normalization,
    Prediction,
    Rejection,
    ResizeStep,
    crop_and_squash,
    squash,
)


def make(**changes: object) -> ModelSpec:
    values: dict[str, object] = {
        "architecture": "edge_cnn",
        "labels": ("cat", "dog"),
        "height": 128,
        "width": 96,
        "resize": squash(128, 96),
        "normalization": Normalization((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
    }
    return ModelSpec(**{**values, **changes})  # type: ignore[arg-type]


def test_json_brings_every_field_back() -> None:
    spec = make(
        temperature=1.25,
        rejection=Rejection("max_probability", 0.6),
        precision="int8-static",
        layout="nchw-float",
        trained_on={"data": "pets.zip", "pictures": {"train": 3}},
        metrics={"validation": {"accuracy": 0.5}},
        tool_version="9.9",
        git_commit="abc",
    )
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert ModelSpec.from_json(spec.to_json(indent=2)) == spec


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ("cat",)}, "two or more"),
        ({"labels": ("cat", "cat")}, "different"),
        ({"labels": ("cat", "neither")}, "neither"),
        ({"labels": ("cat", "")}, "non-empty"),
        ({"height": 0}, "height"),
        ({"width": 12.5}, "width"),
        ({"resize": squash(64, 64)}, "128x96"),
        ({"resize": ()}, "128x96"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"precision": "int4"}, "precision"),
        ({"layout": "nhwc-float"}, "layout"),
        ({"architecture": ""}, "architecture"),
        ({"schema": 2}, "schema"),
    ],
)
def test_a_wrong_value_is_refused_when_made(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(**change)


def test_the_default_resize_rule() -> None:
    assert squash(128, 96) == (
        ResizeStep("linear", 256, 192, shrink_only=True),
        ResizeStep("linear", 128, 96),
    )


@pytest.mark.parametrize("value", [10**400, float("inf"), "1", True, -1.0])
def test_a_temperature_is_a_positive_finite_number(value: object) -> None:
    with pytest.raises(ValueError, match="temperature"):
        make(temperature=value)
    assert make(temperature=0.5).temperature == 0.5


def test_nothing_can_be_changed_later() -> None:
    spec = make(rejection=Rejection("max_probability", 0.5))
    for part in (spec, spec.resize[0], spec.normalization, spec.rejection):
        (name, *_) = vars(part)
        with pytest.raises(AttributeError):
            setattr(part, name, 1)
    assert Normalization((0, 0, 0), (0.5, 1, 1)).std[0] == 0.5
    prediction = Prediction("cat", 0.5, (0.5, 0.5), ("cat", "dog"))
    with pytest.raises(AttributeError):
        prediction.label = "dog"  # type: ignore[misc]


def test_parts_check_themselves() -> None:
    with pytest.raises(ValueError, match="interpolation"):
        ResizeStep("cubic", 8, 8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="std"):
        Normalization((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="threshold"):
        Rejection("max_probability", 1.5)
    with pytest.raises(ValueError, match="score"):
        Rejection("energy", 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[1]", "damaged"),
        ("{}", "lacks"),
        (json.dumps({"schema": SCHEMA + 1}), "install a newer"),
    ],
)
def test_damaged_json_names_file_and_remedy(text: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        ModelSpec.from_json(text, source="pets.onnx")
    assert "pets.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_and_missing_fields_are_errors_not_defaults() -> None:
    document = json.loads(make().to_json())
    with pytest.raises(ModelError, match="surprise"):
        ModelSpec.from_json(json.dumps({**document, "surprise": 1}))
    for name in ("architecture", "labels", "resize", "normalization", "height"):
        without = {key: value for key, value in document.items() if key != name}
        with pytest.raises(ModelError, match=name):
            ModelSpec.from_json(json.dumps(without))


STEP = {"interpolation": "linear", "height": 128, "width": 96, "shrink_only": False}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", "ab"),
        ("labels", [1, 2]),
        ("labels", [["a"], ["b"]]),
        ("architecture", 3),
        ("architecture", ["x"]),
        ("trained_on", [1]),
        ("trained_on", "pets.zip"),
        ("metrics", 0.5),
        ("temperature", True),
        ("temperature", "1"),
        ("temperature", 10**400),
        ("height", True),
        ("width", "96"),
        ("schema", True),
        ("schema", 1.5),
        ("tool_version", None),
        ("git_commit", 7),
        ("resize", {"height": 1}),
        ("resize", ["linear"]),
        ("resize", [dict(STEP, height=200_000, width=200_000), STEP]),
        ("resize", [dict(STEP, height=10**12), STEP]),
        ("resize", [{"interpolation": "area", "height": 128, "width": 96, "shrink_only": 0}]),
        ("normalization", {"mean": [0, 0, True], "std": [1, 1, 1]}),
        ("normalization", {"mean": [0, 0, "0"], "std": [1, 1, 1]}),
        ("normalization", [1]),
        ("rejection", {"score": "known", "threshold": True}),
        ("rejection", {"score": "known", "threshold": "0.5"}),
        ("rejection", {"score": "known"}),
        ("rejection", 0.5),
    ],
)
def test_a_value_of_another_type_names_the_file(name: str, value: object) -> None:
    document = {**json.loads(make().to_json()), name: value}
    with pytest.raises(ModelError, match=r"^pets\.onnx: ") as caught:
        ModelSpec.from_json(json.dumps(document), source="pets.onnx")
    assert "\n" not in str(caught.value)


def test_a_spec_nested_beyond_reading_is_damaged() -> None:
    with pytest.raises(ModelError, match=r"pets\.onnx.*damaged"):
        ModelSpec.from_json("[" * 100_000, source="pets.onnx")


def test_a_label_is_printed_without_what_a_terminal_obeys() -> None:
    answer = Prediction("c\x1b[31m\nat", 0.97, (0.97, 0.03), ("c\x1b[31m\nat", "dog"))
    assert str(answer) == "c\\x1b[31m\\nat 0.97"
    assert "\n" not in answer.to_json()


def test_prediction_prints_well_and_makes_one_json_line() -> None:
    answer = Prediction("cat", 0.9712, (0.9712, 0.0288), ("cat", "dog"))
    assert str(answer) == "cat 0.97"
    line = answer.to_json()
    assert "\n" not in line
    assert json.loads(line) == {
        "label": "cat",
        "confidence": 0.9712,
        "probabilities": {"cat": 0.9712, "dog": 0.0288},
    }
    part = json.loads(replace(answer, box=(840, 360, 240, 240)).to_json())
    assert part["box"] == [840, 360, 240, 240]


def test_neither_names_what_came_nearest_and_is_not_printed_as_sure() -> None:
    answer = Prediction("neither", 0.9712, (0.0288, 0.9712), ("cat", "d\x1bog"))
    assert str(answer) == "neither: may be a d\\x1bog"
    assert json.loads(answer.to_json())["confidence"] == 0.9712
    answer = Prediction(
        "neither", 1.0, (0.0, 1.0), ("cat", "dog"), nearness=0.82, score=0.4199, threshold=0.5
    )
    assert str(answer) == "neither: may be a dog, score 0.41 under 0.50"
    line = json.loads(answer.to_json())
    assert (line["score"], line["threshold"]) == (0.4199, 0.5)
    close = Prediction("neither", 1.0, (1.0, 0.0), ("owl", "dog"), score=0.4999, threshold=0.5)
    assert str(close) == "neither: may be an owl, score 0.49 under 0.50"


def test_scores_and_thresholds_of_two_digits_are_printed_as_they_are() -> None:
    for hundredths in range(1, 101):
        threshold, score = hundredths / 100, (hundredths - 1) / 100
        answer = Prediction(
            "neither", 1.0, (1.0, 0.0), ("cat", "dog"), score=score, threshold=threshold
        )
        assert str(answer).endswith(f"score {score:.2f} under {threshold:.2f}")
        # The nearest score below it that a model's float32 can hold.
        close = replace(answer, score=threshold - 2**-24)
        assert str(close).endswith(f"score {score:.2f} under {threshold:.2f}")


def test_prediction_checks_itself() -> None:
    with pytest.raises(ValueError, match="none of"):
        Prediction("bird", 0.9, (0.9, 0.1), ("cat", "dog"))
    with pytest.raises(ValueError, match="1 probabilities"):
        Prediction("cat", 0.9, (0.9,), ("cat", "dog"))
    assert Prediction("neither", 0.5, (0.5, 0.5), ("cat", "dog")).label == "neither"


def test_a_crop_travels_and_specs_without_one_read_as_before() -> None:
    spec = make(resize=crop_and_squash(128, 96))
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert [step.crop for step in spec.resize] == [0.5, 0.0]
    assert "crop" not in make().to_json()
    with pytest.raises(ValueError, match="crop must be"):
        ResizeStep("linear", 8, 8, crop=1.5)
