"""`catdog-edge verify`: compare two files on validation images."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from catdog_edge.errors import ModelError
from catdog_edge.runtime.model_file import find_model
from catdog_edge.training.runs.run_folder import run_of
from exporters.checks.acceptance import Strictness, Verification
from exporters.checks.disagreement_report import SHEET, TABLE, save_flips
from exporters.checks.file_check import ReferenceModel, check_file
from exporters.checks.predictors import CHECKPOINTS, OnnxPredictor, open_predictor
from exporters.checks.validation_data import find_data
from exporters.info import read_spec_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verified:
    """The comparison of two files, and its images."""

    reference: Path
    candidate: Path
    source: str
    verification: Verification
    folder: Path  # has the images on which they differ
    by_place: tuple[str, ...] = ()  # inputs and outputs of files whose spec was given by hand

    def to_json(self) -> str:
        """Return one JSON document."""
        document = {
            "reference": str(self.reference),
            "candidate": str(self.candidate),
            "pictures": self.source,
            "verification": self.verification.to_dict(),
            "failures": self.verification.failures,
            "spec_by_hand": self.by_place,
        }
        return json.dumps(document, indent=2)

    def __str__(self) -> str:
        verdict = "met" if self.verification.passed else "NOT met"
        lines = [f"{'spec by hand':<20}{text}" for text in self.by_place]
        lines += [
            str(self.verification),
            f"{'limits':<20}of {self.verification.precision}: {verdict}",
        ]
        if self.verification.comparison.flips:
            lines.append(f"{'differing images':<20}{self.folder / TABLE} and {Path(SHEET).suffix}")
        return "\n".join(lines)


def verify(
    reference: Path,
    candidate: Path,
    *,
    data: str | None = None,
    spec_file: Path | None = None,
    limit: int | None = None,
    max_drop: float | None = None,
    strict: bool = False,
    out: Path | None = None,
) -> Verified:
    """Compare two files on validation images.

    Args:
        reference: The reference: a `.pt`, `.onnx` or `.ort` file or the name of a shipped model.
        candidate: An `.onnx` or `.ort` file, or the name of a shipped model.
        data: As in `--data`; `None`: the data of the run that a file is in, else drawings.
        spec_file: A spec as JSON, for a file without one; input and output go by position.
        limit: Maximum number of images, stratified.
        max_drop: Maximum loss of accuracy in percentage points, instead of the default limit.
        strict: Fail on every estimate beyond its limit, even with few images.
        out: Folder of `verify-flips.csv` and its contact sheet; `None`: the candidate's folder,
            for a shipped model the current folder.

    Raises:
        CatdogError: A file or the data is missing or damaged, or they do not match.
        GateError: Names, types, shapes, labels or sizes differ.

    Examples:
        >>> verify(Path("best.pt"), Path("model.onnx")).verification.passed
        True
    """
    given = None if spec_file is None else read_spec_file(spec_file)
    if candidate.suffix in CHECKPOINTS:
        raise ModelError(f"{candidate} is a checkpoint; name it first, and the exported file after")
    folder = out if out is not None else candidate.parent
    reference, candidate = _file(reference), _file(candidate)
    model, expected = OnnxPredictor(candidate, given), open_predictor(reference, given)
    pairs = ((reference, expected), (candidate, model))
    by_place = tuple(f"{path.name}: {one.by_place}" for path, one in pairs if one.by_place)
    if given is not None and not by_place:
        log.info(f"note: both files have specs of their own; {spec_file} is not used")
    found = find_data(expected.spec, reference, run_of(reference) or run_of(candidate), data)
    validation = found.validation(expected.spec, limit)
    log.info(f"verify: {candidate} against {reference} on {validation.source}")
    right, policy = ReferenceModel(expected, validation), Strictness(max_drop, strict)
    checked = check_file(model, str(candidate), right, policy, logits=model.has_logits)
    flips = [(candidate.name, flip) for flip in checked.verification.comparison.flips]
    save_flips(folder, flips, model.spec.labels, validation)
    return Verified(reference, candidate, validation.source, checked.verification, folder, by_place)


def _file(path: Path) -> Path:
    """Return the file itself, or the file of a shipped model."""
    if path.suffix in CHECKPOINTS:
        return path
    # A file of that name in the current folder comes first: a path was asked for.
    found = find_model(path if path.exists() else str(path))
    assert found.path is not None
    return found.path if found.shipped else path
