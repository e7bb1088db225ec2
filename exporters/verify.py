"""What `catdog-edge verify A B` does, from two files to a report.

Joins the rooms of the exporters; knows nothing of click's options. Words go to stderr.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catdog_edge.errors import ModelError
from catdog_edge.runtime.model_file import KNOWN, LOGITS, find_model
from catdog_edge.spec import ModelSpec
from catdog_edge.training.runs.run_folder import run_of
from exporters.checks.compare import Verification
from exporters.checks.flips import save_flip_sheet, write_flips
from exporters.checks.gates import FP32_BATCH, check
from exporters.checks.interface import answer_name, has_logits, knows_others
from exporters.checks.sample import Sample, checking_sample, find_data
from exporters.checks.session import Answers, ask_all, has_spec, open_session, spec_in
from exporters.info import read_spec_file

log = logging.getLogger(__name__)

Asked = tuple[Answers, Answers | None, Answers | None]
"""Probabilities and, where there are any, logits, `float32 [N,K]`, and scores, `float32 [N]`."""


@dataclass(frozen=True)
class Verified:
    """A comparison of two files.

    Attributes:
        reference: The first file.
        candidate: The second.
        source: The pictures, in words.
        verification: How they compare.
        folder: Where `verify-flips.csv` and `verify-flips.png` are.
        by_hand: What was taken by place, of files whose spec was given by hand.
    """

    reference: Path
    candidate: Path
    source: str
    verification: Verification
    folder: Path
    by_hand: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One JSON document."""
        document: dict[str, Any] = {
            "reference": str(self.reference),
            "candidate": str(self.candidate),
            "pictures": self.source,
            "verification": self.verification.to_dict(),
            "failures": list(self.verification.failures),
            "spec_by_hand": list(self.by_hand),
        }
        return json.dumps(document, indent=2)

    def __str__(self) -> str:
        verdict = "met" if self.verification.passed else "NOT met"
        by_hand = "".join(f"{'spec by hand':<20}{text}\n" for text in self.by_hand)
        return (
            f"{by_hand}{self.verification}\n"
            f"{'limits':<20}of {self.verification.precision}: {verdict}\n"
            f"{'differing pictures':<20}{self.folder / 'verify-flips.csv'} and .png"
        )


def verify(
    reference: Path,
    candidate: Path,
    *,
    data: str | None = None,
    spec_file: Path | None = None,
    limit: int | None = None,
    max_drop: float | None = None,
    out: Path | None = None,
) -> Verified:
    """Compare two files on validation pictures.

    Args:
        reference: A `.pt`, `.onnx` or `.ort` file or the name of a shipped model: what is
            right.
        candidate: An `.onnx` or `.ort` file, or the name of a shipped model.
        data: A folder, a `.zip` or `sample`; `None` takes the data of the run that a file lies
            in, else drawings.
        spec_file: A spec as JSON, for a file that has none. It is held against the graph; then
            the file's input and output are taken by place, whatever they are called.
        limit: At most this many pictures, stratified.
        max_drop: Percentage points of accuracy that may be lost, in place of the limits'.
        out: Where `verify-flips.csv` and its contact sheet go; `None` is the candidate's folder,
            for a shipped model the current one.

    Raises:
        CatdogError: A file or the data is missing or damaged, or they do not fit each other.
        GateError: Names, types, shapes, labels or sizes differ.
    """
    given = None if spec_file is None else read_spec_file(spec_file)
    if candidate.suffix in (".pt", ".pth"):
        raise ModelError(f"{candidate} is a checkpoint; name it first, and the exported file after")
    folder = out if out is not None else candidate.parent
    reference, candidate = _found(reference), _found(candidate)
    session = open_session(candidate, threads=1)
    second = has_logits(session.get_outputs())
    answer, spec = _open(reference, given, second)
    by_hand = tuple(
        text for text in (_by_hand(reference), _by_hand(candidate, session)) if text is not None
    )
    if given is not None and not by_hand:
        log.info(f"note: both files have specs of their own; {spec_file} is not used")
    run = run_of(reference) or run_of(candidate)
    found = find_data(spec, reference, run, data)
    sample = checking_sample(found, spec, limit)
    log.info(f"verify: {candidate} against {reference} on {sample.source}")
    answers, values, scores = answer(sample)
    checked = check(
        candidate,
        str(candidate),
        answers,
        spec,
        sample,
        logits=second,
        max_drop=max_drop,
        given=given,
        reference_logits=values,
        reference_known=scores,
    )
    flips = [(candidate.name, flip) for flip in checked.verification.flips]
    write_flips(folder / "verify-flips.csv", flips, spec.labels, sample.files)
    save_flip_sheet(folder / "verify-flips.png", flips, spec.labels, sample.files, sample.pictures)
    return Verified(reference, candidate, sample.source, checked.verification, folder, by_hand)


def _found(path: Path) -> Path:
    """A file as it is, or the file of a shipped model that is named.

    Raises:
        ModelError: There is neither.
    """
    if path.suffix in (".pt", ".pth"):
        return path
    # A file of that name in the current folder comes first: a path was asked for.
    found = find_model(path if path.exists() else str(path))
    assert found.path is not None
    return found.path if found.shipped else path


def _by_hand(path: Path, session: Any = None) -> str | None:
    """What is taken by place in a file without a spec of its own, in words."""
    if path.suffix in (".pt", ".pth"):
        return None
    session = session or open_session(path, threads=1)
    if has_spec(session) or not session.get_inputs() or not session.get_outputs():
        return None
    return (
        f"{path.name}: input {session.get_inputs()[0].name!r}, "
        f"probabilities {answer_name(session.get_outputs())!r}"
    )


def _open(path: Path, given: ModelSpec | None, with_logits: bool) -> tuple[Any, ModelSpec]:
    """A function from a sample to answers, logits, scores (`None` without any), and the spec."""
    if path.suffix in (".pt", ".pth"):
        from catdog_edge.training.evaluation.inference import known, logits
        from catdog_edge.training.evaluation.metrics import softmax
        from catdog_edge.training.models.checkpoint import load_checkpoint

        network, spec = load_checkpoint(path)

        def by_torch(sample: Sample) -> Asked:
            every = logits(network, spec.normalization, sample.pictures)
            values = every[:, : len(spec.labels)]
            scores = known(every) if spec.logits > len(spec.labels) else None
            answers = softmax(values, spec.temperature)
            return answers, values if with_logits else None, scores

        return by_torch, spec
    session = open_session(path)
    spec = spec_in(session, path, given)
    batch = 1 if spec.precision.startswith("int8") else FP32_BATCH

    outputs = session.get_outputs()
    more = [LOGITS] if has_logits(outputs) else []
    more += [KNOWN] if knows_others(outputs) else []

    def by_onnxruntime(sample: Sample) -> Asked:
        wanted = [answer_name(outputs), *more]
        answers, *rest = ask_all(session, spec, sample.pictures, batch, wanted)
        second = dict(zip(more, rest, strict=True))
        return answers, second.get(LOGITS), second.get(KNOWN)

    return by_onnxruntime, spec
