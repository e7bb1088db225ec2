"""Whether a candidate file is kept: it loads, answers alike, and is not slower than fp32.

Knows files, limits and clocks; how a candidate was made is for the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catdog_edge.images.preprocess import to_layout
from catdog_edge.runtime.model_file import KNOWN, LOGITS
from catdog_edge.runtime.threads import choose_threads
from catdog_edge.spec import ModelSpec
from exporters.checks.compare import Verification, compare_answers
from exporters.checks.interface import (
    answer_name,
    check_graph,
    check_interface,
    has_logits,
    knows_others,
)
from exporters.checks.outputs import with_known, with_logits
from exporters.checks.sample import Sample
from exporters.checks.session import Answers, ask_all, has_spec, open_session, spec_in
from exporters.checks.timing import Ratio, Timing, compare

SLOWER = 1.05
"""A quantized file whose time ratio to fp32 has its whole 95 % interval above this is refused."""

FP32_BATCH = 16
"""Pictures per call of an fp32 check: with the rest at the end, two sizes of batch are tried."""


@dataclass(frozen=True)
class Checked:
    """A file that loads and has answered.

    Attributes:
        spec: In the file.
        answers: `float32 [N,K]`, one row per picture of the sample.
        verification: How they compare with the reference's.
        logits: `float32 [N,K]` of its second output; `None` where it has none.
        known: `float32 [N]`, how sure it is to see a class; `None` where it does not say.
    """

    spec: ModelSpec
    answers: Answers
    verification: Verification
    logits: Answers | None
    known: Answers | None = None


def check(
    path: Path,
    name: str,
    reference: Answers,
    reference_spec: ModelSpec,
    sample: Sample,
    *,
    logits: bool = False,
    max_drop: float | None = None,
    given: ModelSpec | None = None,
    reference_logits: Answers | None = None,
    reference_known: Answers | None = None,
) -> Checked:
    """Load a file, look at its ends, ask it about every picture and compare.

    A dynamically quantized file is asked one picture at a time: its answer depends slightly
    on what else is in the batch. All int8 files are, to be checked as a camera loop runs them.

    Args:
        path: The file.
        name: What messages call it.
        reference: `float32 [N,K]`, what it is to answer.
        reference_spec: Of the reference.
        sample: The pictures.
        logits: Whether the file is to have a second output `logits`.
        max_drop: See `compare_answers`.
        given: The spec of a file that has none; its ends then go by place, not by name.
        reference_logits: `float32 [N,K]`; `None` where the reference gives none.
        reference_known: `float32 [N]`; likewise.

    Raises:
        ModelError: It does not load, or its spec is missing, damaged or too new.
        GateError: Its names, types or shapes are other ones, or its answers no probabilities.
    """
    session = open_session(path, choose_threads().count, name=name)
    spec = spec_in(session, path, given)
    check_interface(reference_spec, spec, name)
    if has_spec(session):
        check_graph(session.get_inputs(), session.get_outputs(), spec, name, logits)
    batch = 1 if spec.precision.startswith("int8") else FP32_BATCH
    outputs = session.get_outputs()
    more = [LOGITS] if has_logits(outputs) else []
    more += [KNOWN] if knows_others(outputs) else []
    answers, *rest = ask_all(session, spec, sample.pictures, batch, [answer_name(outputs), *more])
    second = dict(zip(more, rest, strict=True))
    values, scores = second.get(LOGITS), second.get(KNOWN)
    verification = compare_answers(
        reference, answers, sample.truth, spec.precision, name=name, max_drop=max_drop
    )
    if values is not None:
        verification = with_logits(verification, answers, values, reference_logits, spec)
    if scores is not None and reference_known is not None:
        verification = with_known(verification, scores, reference_known, spec)
    return Checked(spec, answers, verification, values, scores)


def race(files: Mapping[str, Path], sample: Sample, seconds: float) -> Timing:
    """Time files against each other in one run, a picture at a time.

    Args:
        files: By name; the first is the yardstick.
        sample: Its first picture is the one that is asked about.
        seconds: How long to measure.
    """
    candidates = {}
    for name, path in files.items():
        session = open_session(path, choose_threads().count)
        spec = spec_in(session, path)
        shape = session.get_inputs()[0].shape
        count = shape[0] if isinstance(shape[0], int) else 1
        feed = to_layout(sample.pictures[:1].repeat(count, axis=0), spec.layout)
        candidates[name] = _call(session, {session.get_inputs()[0].name: feed})
    return compare(candidates, seconds)


def too_slow(ratio: Ratio) -> str:
    """What is wrong with a candidate's time, in words with figures; empty where nothing is."""
    if ratio.low <= SLOWER:
        return ""
    return f"it takes {ratio} times as long as fp32, all of the 95 % interval above {SLOWER}"


def _call(session: Any, feed: dict[str, Any]) -> Any:
    def call() -> object:
        result: object = session.run(None, feed)
        return result

    return call
