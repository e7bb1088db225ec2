"""Whether the ends of a file are what its spec says, and whether two specs ask the same question.

Knows names, types and shapes of inputs and outputs; never looks at a value.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from catdog_edge.errors import GateError, ModelError
from catdog_edge.runtime.model_file import KNOWN, LOGITS, PROBABILITIES
from catdog_edge.spec import ModelSpec


def answer_name(outputs: Sequence[Any]) -> str:
    """The output that gives probabilities: the one of that name, else the first.

    Args:
        outputs: `session.get_outputs()`.
    """
    names = [value.name for value in outputs]
    return PROBABILITIES if PROBABILITIES in names or not names else names[0]


def has_logits(outputs: Sequence[Any]) -> bool:
    """Whether a file gives logits beside its probabilities."""
    return len(outputs) > 1 and any(value.name == LOGITS for value in outputs)


def knows_others(outputs: Sequence[Any]) -> bool:
    """Whether a file says how sure it is that it sees one of its classes."""
    return any(value.name == KNOWN for value in outputs)


def hold_spec(
    inputs: Sequence[Any], outputs: Sequence[Any], spec: ModelSpec, name: str | os.PathLike[str]
) -> None:
    """A spec that was written by hand must fit the graph; names do not matter, places do.

    Wanted are one input and one output. Beside an output called `probabilities` others may be.
    Axes without a fixed size fit any.

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
    answers = [value for value in outputs if value.name == PROBABILITIES] or list(outputs)
    for kind, found, type_, shape in (
        ("input", list(inputs), "uint8" if by_bytes else "float", frame),
        ("output", answers, "float", [len(spec.labels)]),
    ):
        if (
            len(found) != 1
            or found[0].type != f"tensor({type_})"
            or not _fits(list(found[0].shape or []), shape)
        ):
            there = "; ".join(described(value) for value in found) or "none"
            wanted = ", ".join(str(axis) for axis in ("N", *shape))
            why = (
                f"layout {spec.layout}, {spec.height}x{spec.width}"
                if kind == "input"
                else f"{len(spec.labels)} labels"
            )
            raise ModelError(
                f"{name}: the spec given by hand does not fit it: {why} means one {kind} {type_} "
                f"[{wanted}], the file has {there}; correct the spec, or name its own file"
            )


def described(value: Any) -> str:
    """Name, type and shape of an input or output, in words.

    Args:
        value: An entry of `session.get_inputs()` or `get_outputs()`.
    """
    shape = ", ".join(str(axis) for axis in value.shape or ())
    return f"{value.name} {value.type.removeprefix('tensor(').rstrip(')')} [{shape}]"


def _fits(found: Sequence[Any], wanted: Sequence[int]) -> bool:
    return len(found) == 1 + len(wanted) and all(
        not isinstance(axis, int) or axis == size
        for axis, size in zip(found[1:], wanted, strict=True)
    )


def check_interface(reference: ModelSpec, candidate: ModelSpec, name: str) -> None:
    """Two specs must be about the same question: the same classes, size and resize rule.

    Raises:
        GateError: They are not; the message names what differs first.
    """
    for what, left, right in (
        ("labels", reference.labels, candidate.labels),
        ("input size", reference.size, candidate.size),
        ("resize rule", reference.resize, candidate.resize),
    ):
        if left != right:
            raise GateError(f"{name}: {what} differ: the reference has {left}, this has {right}")


def check_graph(
    inputs: Sequence[Any], outputs: Sequence[Any], spec: ModelSpec, name: str, logits: bool = False
) -> None:
    """Names, then types, then shapes of a loaded file must be what its spec says.

    Args:
        inputs: `session.get_inputs()`.
        outputs: `session.get_outputs()`.
        spec: Of the file.
        name: The file, for messages.
        logits: Whether a second output `logits` was asked for.

    Raises:
        GateError: One is another; the message says what was wanted and what was found.
    """
    by_bytes = spec.layout == "nhwc-uint8"
    shape = [spec.height, spec.width, 3] if by_bytes else [3, spec.height, spec.width]
    wanted_inputs = [("frames", "tensor(uint8)" if by_bytes else "tensor(float)", shape)]
    wanted_outputs = [(PROBABILITIES, "tensor(float)", [len(spec.labels)])]
    if spec.rejection is not None and spec.rejection.score == KNOWN:
        wanted_outputs.append((KNOWN, "tensor(float)", []))
    if logits:
        wanted_outputs.append((LOGITS, "tensor(float)", [len(spec.labels)]))
    for kind, found, wanted in (
        ("input", inputs, wanted_inputs),
        ("output", outputs, wanted_outputs),
    ):
        for what, left, right in (
            ("names", [entry[0] for entry in wanted], [value.name for value in found]),
            ("types", [entry[1] for entry in wanted], [value.type for value in found]),
            ("shapes", [entry[2] for entry in wanted], [list(value.shape)[1:] for value in found]),
        ):
            if left != right:
                raise GateError(f"{name}: {kind} {what}: wanted {left}, found {right}")
