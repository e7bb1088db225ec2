"""`ModelSpec`, the description of a model in its checkpoint and ONNX file, and `Prediction`.

Both files contain the spec, so that labels, size, colour order, normalisation and resize are
never guessed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from catdog_edge.errors import ModelError, escaped

SCHEMA = 1  # version of the JSON form; raised when an older reader would misread a newer spec

METADATA_KEY = "catdog_edge"
"""The key of an ONNX file's `metadata_props` under which the spec's JSON stands."""

LARGEST_RESIZE = 16_384
"""Pixels per side of a resized frame: 800 MB; OpenCV cannot make images of any size."""

NEITHER = "neither"
"""The label of a frame that no class is confident enough about. Never a class of a model."""

Interpolation = Literal["linear", "area"]
Precision = Literal["fp32", "fp16", "int8-dynamic", "int8-static"]
Layout = Literal["nhwc-uint8", "nchw-float"]
RejectionScore = Literal["max_probability", "known"]

Box = tuple[int, int, int, int]
"""A part of a frame: left, top, width and height in pixels."""


@dataclass(frozen=True)
class ResizeStep:
    """One step of the resize rule, to a height and width in pixels.

    Attributes:
        interpolation: `linear` (two taps per axis) or `area` (the mean over each target
            pixel's footprint where both axes shrink; linear otherwise).
        shrink_only: Keep an axis that is already at most the target.
        crop: Before the step, crop the longer side about its centre until the aspect ratio
            is that of the frame to the power of `1 - crop`: 0 keeps the whole frame, 1 keeps
            the centre square, 0.5 turns 16:9 into 4:3.
    """

    interpolation: Interpolation
    height: int
    width: int
    shrink_only: bool = False
    crop: float = 0.0

    def __post_init__(self) -> None:
        _one_of("interpolation", self.interpolation, get_args(Interpolation))
        for name, value in (("height", self.height), ("width", self.width)):
            _positive(f"resize {name}", value)
            if value > LARGEST_RESIZE:
                raise ValueError(f"resize {name} must be at most {LARGEST_RESIZE}, got {value}")
        if not isinstance(self.shrink_only, bool):
            raise ValueError(f"shrink_only must be true or false, got {self.shrink_only!r}")
        if not (_is_number(self.crop) and 0 <= self.crop <= 1):
            raise ValueError(f"crop must be in 0..1, got {self.crop!r}")

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON; without `crop` if the whole frame is kept, as in older files."""
        document = dataclasses.asdict(self)
        if not self.crop:
            del document["crop"]
        return document


def squash(height: int, width: int) -> tuple[ResizeStep, ...]:
    """Return the default resize rule: linear to twice the size, then linear to the size.

    Halving by a linear filter is the mean of two by two pixels, so on large frames the second
    step is an area filter; the figures are in `docs/preprocessing.md`.
    """
    first = ResizeStep("linear", 2 * height, 2 * width, shrink_only=True)
    return first, ResizeStep("linear", height, width)


def crop_and_squash(height: int, width: int) -> tuple[ResizeStep, ...]:
    """Crop half of the excess of the longer side, then resize as `squash` does.

    More accurate than `squash` on photographs of other sources, and keeps more of a wide frame
    than a centre square does; the figures are in `docs/experiments.md`.
    """
    first, last = squash(height, width)
    return dataclasses.replace(first, crop=0.5), last


@dataclass(frozen=True)
class Normalization:
    """Per channel `(value - mean) / std`, on values 0..255, in the order R, G, B."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(_is_number(value) for value in values):
                raise ValueError(f"normalisation {name} must be three finite numbers, got {values}")
        if min(self.std) <= 0:
            raise ValueError(f"normalisation std must be positive, got {self.std}")


@dataclass(frozen=True)
class Rejection:
    """When a frame is classified as `neither`: where its score is below the threshold.

    Attributes:
        score: `max_probability` (the largest class probability), or `known` (a second
            output of the graph, `float32 [N]`, 0..1: how likely the frame shows any class).
        threshold: 0..1.
    """

    score: RejectionScore
    threshold: float

    def __post_init__(self) -> None:
        _one_of("rejection score", self.score, get_args(RejectionScore))
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"rejection threshold must be in 0..1, got {self.threshold}")


@dataclass(frozen=True)
class ModelSpec:
    """The description of a model; its values are checked on creation.

    Attributes:
        architecture: Name in the registry of `catdog_edge.training.models.registry`.
        labels: Class names in the order of the model's outputs; two or more.
        height, width: Input size in pixels.
        resize: The steps that resize a frame to it, see `catdog_edge.images.preprocess`.
        normalization: Normalisation of the input; always part of the exported graph.
        layout: `nhwc-uint8`: `uint8 [N,H,W,3]`, BGR, as OpenCV stores a frame.
            `nchw-float`: `float32 [N,3,H,W]`, RGB, 0..1.
        temperature: Divisor of the logits before the softmax; fitted on the validation split.
        rejection: When to predict `neither`; `None`: never.
        precision: Precision of the weights in the file.
        trained_on: Training data and settings (source, counts, recipe, seed, ...).
        metrics: Measured metrics by name.
        tool_version, git_commit: Version of catdog-edge that made the file, if known.
        schema: Version of this JSON form.

    Raises:
        ValueError: A value has the wrong type or is out of range; the message says which.

    Examples:
        >>> spec = Classifier("fast").spec
        >>> spec.labels, spec.size, spec.precision
        (('cat', 'dog'), (192, 192), 'int8-static')
    """

    architecture: str
    labels: tuple[str, ...]
    height: int
    width: int
    resize: tuple[ResizeStep, ...]
    normalization: Normalization
    layout: Layout = "nhwc-uint8"
    temperature: float = 1.0
    rejection: Rejection | None = None
    precision: Precision = "fp32"
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    tool_version: str = ""
    git_commit: str = ""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA or isinstance(self.schema, (bool, float)):
            raise ValueError(f"schema must be {SCHEMA}, got {self.schema}")
        if not isinstance(self.architecture, str) or not self.architecture:
            raise ValueError("architecture must be named")
        named = all(isinstance(label, str) and label for label in self.labels)
        if not named or not 2 <= len(self.labels) == len(set(self.labels)):
            wanted = "two or more different names, non-empty strings"
            raise ValueError(f"labels must be {wanted}, got {self.labels}")
        if NEITHER in self.labels:
            raise ValueError(f"{NEITHER!r} cannot be a class: it is the label of a rejection")
        _positive("height", self.height)
        _positive("width", self.width)
        if not self.resize or (self.resize[-1].height, self.resize[-1].width) != self.size:
            raise ValueError(f"the last resize step must end at {self.height}x{self.width}")
        if self.resize[-1].shrink_only:
            raise ValueError("the last resize step cannot be shrink_only")
        _one_of("layout", self.layout, get_args(Layout))
        _one_of("precision", self.precision, get_args(Precision))
        if not (_is_number(self.temperature) and self.temperature > 0):
            raise ValueError(f"temperature must be positive, got {self.temperature!r}")
        values, text = (Mapping, "values by name"), (str, "text")
        kinds = {"trained_on": values, "metrics": values, "tool_version": text, "git_commit": text}
        for name, (kind, what) in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} must be {what}, got {getattr(self, name)!r}")

    @property
    def logits(self) -> int:
        """Logits of the network: one per class, and one more where it was trained on negatives."""
        knows_others = self.rejection is not None and self.rejection.score == "known"
        return len(self.labels) + knows_others

    @property
    def size(self) -> tuple[int, int]:
        """Input height and width in pixels."""
        return self.height, self.width

    def replace(self, **changes: Any) -> ModelSpec:
        """Return a copy with other values, checked again."""
        return dataclasses.replace(self, **changes)

    def to_json(self, indent: int | None = None) -> str:
        """Return the spec as one JSON document; `from_json` reads it back unchanged."""
        document = dataclasses.asdict(self)
        document["resize"] = [step.to_dict() for step in self.resize]
        return json.dumps(document, indent=indent, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, source: str = "spec") -> ModelSpec:
        """Read what `to_json` wrote; `source` is the file that errors name.

        Raises:
            ModelError: It is not JSON, a field is missing, unknown or wrong, or its schema
                is newer than this version of catdog-edge.

        Examples:
            >>> ModelSpec.from_json(Path("spec.json").read_text()).labels
            ('cat', 'dog')
        """
        try:
            document = json.loads(text)
            if not isinstance(document, dict):
                raise ValueError("no JSON object")
        except (TypeError, ValueError, RecursionError) as error:
            what = f"the spec in it is damaged ({error})"
            raise ModelError(f"{source}: {what}; export the model again") from error
        schema = document.get("schema")
        if isinstance(schema, (int, float)) and schema > SCHEMA:
            what = f"its spec has schema {schema}, this catdog-edge reads up to {SCHEMA}"
            raise ModelError(f"{source}: {what}; install a newer catdog-edge")
        try:
            for one in dataclasses.fields(cls):
                document[one.name]  # a KeyError names what is missing
            for name in ("labels", "resize"):
                if not isinstance(document[name], list):
                    raise ValueError(f"{name} must be a list, got {document[name]!r:.80}")
            document["labels"] = tuple(document["labels"])
            document["resize"] = tuple(ResizeStep(**step) for step in document["resize"])
            normalization = document["normalization"]
            document["normalization"] = Normalization(
                mean=tuple(normalization["mean"]), std=tuple(normalization["std"])
            )
            if document["rejection"] is not None:
                if not _is_number(document["rejection"]["threshold"]):
                    raise ValueError("the rejection's threshold is not a number")
                document["rejection"] = Rejection(**document["rejection"])
            return cls(**document)
        except (KeyError, TypeError, ValueError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"is wrong ({error})"
            raise ModelError(f"{source}: the spec in it {what}; export the model again") from error


@dataclass(frozen=True)
class Prediction:
    """The prediction for one frame.

    Attributes:
        label: A class of the model, or `neither`.
        confidence: 0..1: the calibrated probability of the most likely class (for `neither`:
            given that the frame shows one of the classes).
        probabilities: 0..1, one per class, in the order of `labels`.
        labels: The classes, `ModelSpec.labels`.
        nearness: 0..1: for `neither`, the score `known` divided by its threshold, 0 without
            this score; 1 for a class.
        score: 0..1: the score that rejection compared with its threshold; `None`: no rejection.
        threshold: 0..1: the threshold; `None`: the model never predicts `neither`.
        box: The part of the frame that was classified; `None`: the whole frame.

    Examples:
        >>> prediction = Classifier()(frame)
        >>> prediction.label, prediction.confidence
        ('cat', 0.9731)
        >>> print(prediction.to_json())
        {"label": "cat", "confidence": 0.9731, "probabilities": {"cat": 0.9731, "dog": 0.0269},
         "score": 0.9312, "threshold": 0.5}
    """

    label: str
    confidence: float
    probabilities: tuple[float, ...]
    labels: tuple[str, ...]
    nearness: float = 1.0
    score: float | None = None
    threshold: float | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        if len(self.probabilities) != len(self.labels):
            raise ValueError(f"{len(self.probabilities)} probabilities for {self.labels}")
        if self.label != NEITHER and self.label not in self.labels:
            raise ValueError(f"{self.label!r} is none of {self.labels}")

    def __str__(self) -> str:
        if self.label != NEITHER:
            return f"{escaped(self.label)} {self.confidence:.2f}"
        nearest = escaped(self.labels[self.probabilities.index(max(self.probabilities))])
        article = "an" if nearest[:1].lower() in tuple("aeiou") else "a"
        text = f"{NEITHER}: may be {article} {nearest}"
        if self.score is None or self.threshold is None:
            return text
        # Rounded apart, so that a score below its threshold never reads as equal to it; first to
        # nine digits, because 100 * 0.55 is a little above 55 in binary.
        score = math.floor(round(100 * self.score, 9))
        threshold = math.ceil(round(100 * self.threshold, 9))
        return f"{text}, score {score / 100:.2f} under {threshold / 100:.2f}"

    @property
    def certainty(self) -> float:
        """What predictions for parts of one frame are compared by: the score, if there is one."""
        return self.confidence if self.score is None else self.score

    def to_json(self) -> str:
        """Return one line of JSON: label, confidence, probabilities, score, threshold and box."""
        rounded = [round(probability, 6) for probability in self.probabilities]
        document: dict[str, Any] = {"label": self.label, "confidence": round(self.confidence, 6)}
        document["probabilities"] = dict(zip(self.labels, rounded, strict=True))
        if self.score is not None and self.threshold is not None:
            document |= {"score": round(self.score, 6), "threshold": round(self.threshold, 6)}
        if self.box is not None:
            document["box"] = self.box
        return json.dumps(document, ensure_ascii=False)


def _is_number(value: object) -> bool:
    """Check that a value is a finite number in the range of a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max


def _one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


def _positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
