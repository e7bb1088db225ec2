"""Check the inputs and outputs of a file: names, types and shapes, never values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from catdog_edge.errors import GateError, ModelError
from catdog_edge.runtime.model_file import KNOWN, LOGITS, PROBABILITIES
from catdog_edge.spec import ModelSpec


def described(value: Any) -> str:
    """Name, type and shape of an entry of `session.get_inputs()` or `get_outputs()` as text."""
    shape = ", ".join(str(axis) for axis in value.shape or ())
    return f"{value.name} {value.type.removeprefix('tensor(').rstrip(')')} [{shape}]"


def check_given_spec(
    inputs: Sequence[Any], outputs: Sequence[Any], spec: ModelSpec, name: str | os.PathLike[str]
) -> None:
    """Check that a spec written by hand fits a graph, whatever its input and output are called.

    Wanted are one input and one output; others may stand beside an output called `probabilities`.
    An axis without a fixed size fits any.

    Args:
        inputs: `session.get_inputs()`.
        outputs: `session.get_outputs()`.
        spec: What was given.
        name: The file, for messages.

    Raises:
        ModelError: They contradict each other; the message says where.
    """
    by_bytes = spec.layout == "nhwc-uint8"
    frame = [spec.height, spec.width, 3] if by_bytes else [3, spec.height, spec.width]
    answers = [value for value in outputs if value.name == PROBABILITIES] or outputs
    size = f"layout {spec.layout}, {spec.height}x{spec.width}"
    labels = f"{len(spec.labels)} labels"
    for kind, why, found, type_, shape in (
        ("input", size, inputs, "uint8" if by_bytes else "float", frame),
        ("output", labels, answers, "float", [len(spec.labels)]),
    ):
        fits = len(found) == 1 and found[0].type == f"tensor({type_})"
        if not fits or not _fits(found[0].shape or (), shape):
            wanted = ", ".join(str(axis) for axis in ("N", *shape))
            raise ModelError(
                f"{name}: the spec given by hand does not fit it: {why} means one {kind} {type_} "
                f"[{wanted}], the file has {'; '.join(map(described, found)) or 'none'}; correct "
                "the spec, or name its own file"
            )


def _fits(found: Sequence[Any], wanted: Sequence[int]) -> bool:
    return len(found) == 1 + len(wanted) and all(
        not isinstance(axis, int) or axis == size
        for axis, size in zip(found[1:], wanted, strict=True)
    )


def check_same_task(reference: ModelSpec, candidate: ModelSpec, name: str) -> None:
    """Check that two specs have the same classes, input size and resize rule.

    Raises:
        GateError: They have not; the message names what differs first.
    """
    if reference.labels != candidate.labels:
        difference = _labels_difference(reference.labels, candidate.labels)
        raise GateError(f"{name}: labels differ: {difference}")
    for what, left, right in (
        ("input size", reference.size, candidate.size),
        ("resize rule", reference.resize, candidate.resize),
    ):
        if left != right:
            raise GateError(f"{name}: {what} differ: the reference has {left}, this has {right}")


def _labels_difference(reference: Sequence[str], candidate: Sequence[str]) -> str:
    if len(reference) != len(candidate):
        return f"the reference has {len(reference)} labels, this has {len(candidate)}"
    pairs = enumerate(zip(reference, candidate, strict=True))
    return next(f"label {i} is {a!r}, here {b!r}" for i, (a, b) in pairs if a != b)


def check_outputs(outputs: Sequence[Any], spec: ModelSpec, name: str, logits: bool = False) -> None:
    """Check that a file has the outputs that it was exported with, and no other.

    Args:
        outputs: `session.get_outputs()`.
        spec: Of the file, which fits its graph.
        name: The file, for messages.
        logits: Whether a second output `logits` was asked for.

    Raises:
        GateError: There are others; the message says what was wanted and what was found.
    """
    known = spec.rejection is not None and spec.rejection.score == KNOWN
    wanted = [PROBABILITIES, *([KNOWN] if known else []), *([LOGITS] if logits else [])]
    found = [value.name for value in outputs]
    if wanted != found:
        raise GateError(f"{name}: output names: wanted {wanted}, found {found}")
