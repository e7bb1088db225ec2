"""Check an exported file: that it loads, its outputs, its agreement and its speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import GateError
from catdog_edge.images.preprocess import to_layout
from catdog_edge.runtime.model_file import KNOWN, LOGITS, PROBABILITIES
from catdog_edge.spec import ModelSpec
from catdog_edge.system.console import progress_bar
from catdog_edge.training.array_types import Pixels
from exporters.checks.acceptance import BY_EVIDENCE, Strictness, Verification, judge
from exporters.checks.foreign_predictor import ForeignPredictor
from exporters.checks.predictors import Answers, OnnxPredictor, Predictor
from exporters.checks.timing import Ratio, Timing, compare
from exporters.checks.validation_data import ValidationSet

SLOWER = 1.05
"""A quantized file is refused where the whole 95 % interval of its time ratio to fp32 is above."""


class ReferenceModel:
    """The reference model, with its cached outputs for each set of images."""

    def __init__(
        self,
        model: Predictor | ForeignPredictor,
        validation: ValidationSet,
        answers: Answers | None = None,
    ) -> None:
        self.model, self.validation = model, validation
        self.answers = model.predict(validation.images) if answers is None else answers

    @cached_property
    def more(self) -> tuple[Pixels, Answers] | None:
        """Further images and its answers to them; `None` where there are none."""
        images = self.validation.more()
        return None if images is None else (images, self.model.predict(images))


@dataclass(frozen=True)
class Checked:
    """A loaded file, its outputs for the validation images, and their verdict."""

    model: OnnxPredictor
    answers: Answers
    verification: Verification


def check_file(
    model: OnnxPredictor,
    name: str,
    reference: ReferenceModel,
    policy: Strictness = BY_EVIDENCE,
    *,
    logits: bool = False,
) -> Checked:
    """Check a file's outputs, run it on the validation images and judge the results.

    With `logits` it must have a second output of that name. Raises `GateError` if labels, size or
    outputs differ, or its outputs are not probabilities.
    """
    spec = reference.model.spec
    check_same_task(spec, model.spec, name)
    if not model.by_place:
        check_outputs(model.session.get_outputs(), model.spec, name, logits)
    validation = reference.validation
    answers = model.predict(validation.images)
    check_probabilities(answers.probabilities, len(validation.images), len(spec.labels), name)

    def more() -> tuple[Answers, Answers] | None:
        found = reference.more
        return None if found is None else (found[1], model.predict(found[0]))

    verification = judge(reference.answers, answers, validation.truth, model.spec, policy, more)
    return Checked(model, answers, verification)


def check_same_task(reference: ModelSpec, candidate: ModelSpec, name: str) -> None:
    """Raise `GateError` unless two specs have the same classes, input size and resize rule."""
    ours, theirs = reference.labels, candidate.labels
    if len(ours) != len(theirs):
        raise GateError(
            f"{name}: labels differ: the reference has {len(ours)} labels, this has {len(theirs)}"
        )
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            raise GateError(f"{name}: labels differ: label {number} is {a!r}, here {b!r}")
    for what, left, right in (
        ("input size", reference.size, candidate.size),
        ("resize rule", reference.resize, candidate.resize),
    ):
        if left != right:
            raise GateError(
                f"{name}: {what} differs: the reference has {left}, this has {right}; "
                "catdog-edge bench --also compares models of different sizes and rules"
            )


def check_outputs(outputs: Sequence[Any], spec: ModelSpec, name: str, logits: bool = False) -> None:
    """Raise `GateError` unless a file has the outputs it was exported with, and no other."""
    known = spec.rejection is not None and spec.rejection.score == KNOWN
    wanted = [PROBABILITIES, *([KNOWN] if known else []), *([LOGITS] if logits else [])]
    found = [value.name for value in outputs]
    if wanted != found:
        raise GateError(f"{name}: output names: expected {wanted}, found {found}")


def check_probabilities(answers: npt.NDArray[Any], images: int, classes: int, name: str) -> None:
    """Raise `GateError` unless outputs are probabilities, one row per image."""
    if answers.shape != (images, classes) or answers.dtype != np.float32:
        raise GateError(
            f"{name}: expected float32 [{images}, {classes}], got {answers.dtype} "
            f"{list(answers.shape)}"
        )
    if not np.isfinite(answers).all():
        raise GateError(f"{name}: {int((~np.isfinite(answers)).sum())} answers are not finite")
    off = float(np.abs(answers.sum(axis=1) - 1).max())
    if off > 1e-3 or answers.min() < 0:
        raise GateError(
            f"{name}: probabilities do not sum to one (off by {off:.1e}, least {answers.min():.1e})"
            "; are they logits?"
        )


def time_files(
    files: Mapping[str, Path], validation: ValidationSet, seconds: float, provider: str = "cpu"
) -> Timing:
    """Time files interleaved, with the first image (or a fixed batch of it) per call."""
    candidates = {}
    for name, path in files.items():
        model = OnnxPredictor(path, provider=provider)
        images = validation.images[:1].repeat(model.fixed_batch or 1, axis=0)
        feed = {model.input_name: to_layout(images, model.spec.layout)}
        candidates[name] = lambda session=model.session, feed=feed: session.run(None, feed)
    count = progress_bar("timing, seconds", math.ceil(seconds))
    timing = compare(candidates, seconds, progress=lambda spent: count(int(spent)))
    count(math.ceil(seconds))
    return timing


def too_slow(ratio: Ratio) -> str:
    """Describe a candidate that is slower than fp32; empty otherwise."""
    if ratio.low <= SLOWER:
        return ""
    return f"it takes {ratio} times as long as fp32, all of the 95 % interval above {SLOWER}"
