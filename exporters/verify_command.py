"""What `catdog-edge verify A B` does, from two files to a report.

Joins the rooms of the exporters; knows nothing of click's options. Words go to stderr.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catdog_edge.errors import ModelError
from catdog_edge.spec import ModelSpec
from catdog_edge.training.runs import run_of
from catdog_edge.training.words import say
from exporters.flips import save_flip_sheet, write_flips
from exporters.gates import FP32_BATCH, check
from exporters.info import read_spec_file
from exporters.sample import Sample, checking_sample, find_data
from exporters.session import Answers, ask, open_session, spec_in
from exporters.verify import Verification


@dataclass(frozen=True)
class Verified:
    """A comparison of two files.

    Attributes:
        reference: The first file.
        candidate: The second.
        source: The pictures, in words.
        verification: How they compare.
        folder: Where `verify-flips.csv` and `verify-flips.png` are.
    """

    reference: Path
    candidate: Path
    source: str
    verification: Verification
    folder: Path

    def to_json(self) -> str:
        """One JSON document."""
        document: dict[str, Any] = {
            "reference": str(self.reference),
            "candidate": str(self.candidate),
            "pictures": self.source,
            "verification": self.verification.to_dict(),
            "failures": list(self.verification.failures),
        }
        return json.dumps(document, indent=2)

    def __str__(self) -> str:
        verdict = "met" if self.verification.passed else "NOT met"
        return (
            f"{self.verification}\n"
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
        reference: A `.pt`, `.onnx` or `.ort` file: what is right.
        candidate: An `.onnx` or `.ort` file.
        data: A folder, a `.zip` or `sample`; `None` takes the data of the run that a file lies
            in, else drawings.
        spec_file: A spec as JSON, for a file that has none.
        limit: At most this many pictures, stratified.
        max_drop: Percentage points of accuracy that may be lost, in place of the limits'.
        out: Where `verify-flips.csv` and its contact sheet go; `None` is the candidate's folder.

    Raises:
        CatdogError: A file or the data is missing or damaged, or they do not fit each other.
        GateError: Names, types, shapes, labels or sizes differ.
    """
    given = None if spec_file is None else read_spec_file(spec_file)
    if candidate.suffix in (".pt", ".pth"):
        raise ModelError(f"{candidate} is a checkpoint; name it first, and the exported file after")
    answer, spec = _open(reference, given)
    run = run_of(reference) or run_of(candidate)
    found = find_data(spec, reference, run, data, say)
    sample = checking_sample(found, spec, limit)
    say(f"verify: {candidate} against {reference} on {sample.source}")
    checked = check(
        candidate,
        str(candidate),
        answer(sample),
        spec,
        sample,
        logits=_has_logits(candidate),
        max_drop=max_drop,
        given=given,
    )
    folder = out if out is not None else candidate.parent
    flips = [(candidate.name, flip) for flip in checked.verification.flips]
    write_flips(folder / "verify-flips.csv", flips, spec.labels, sample.files)
    save_flip_sheet(folder / "verify-flips.png", flips, spec.labels, sample.files, sample.pictures)
    return Verified(reference, candidate, sample.source, checked.verification, folder)


def _open(path: Path, given: ModelSpec | None) -> tuple[Any, ModelSpec]:
    """A function from a sample to answers, and the spec."""
    if path.suffix in (".pt", ".pth"):
        from catdog_edge.training.checkpoint import load_checkpoint
        from catdog_edge.training.inference import probabilities

        network, spec = load_checkpoint(path)

        def by_torch(sample: Sample) -> Answers:
            return probabilities(network, spec, sample.pictures)

        return by_torch, spec
    session = open_session(path)
    spec = spec_in(session, path, given)
    batch = 1 if spec.precision.startswith("int8") else FP32_BATCH

    def by_onnxruntime(sample: Sample) -> Answers:
        return ask(session, spec, sample.pictures, batch)

    return by_onnxruntime, spec


def _has_logits(path: Path) -> bool:
    return len(open_session(path, threads=1).get_outputs()) > 1
