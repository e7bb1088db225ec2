"""The pictures on which two models differ: a table and a contact sheet.

Knows how to write them; which pictures they are is for `verify`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from catdog_edge.system.files import write_text
from exporters.checks.comparison import Flip
from exporters.checks.session import Pictures

SHOWN = 30
"""Pictures on the contact sheet."""


def write_flips(
    path: Path, flips: Sequence[tuple[str, Flip]], labels: Sequence[str], files: Sequence[str]
) -> None:
    """Write `candidate,file,truth,reference,...` as CSV; only the header where none differ.

    Args:
        path: The file to write.
        flips: Name of the candidate and the picture on which it differs.
        labels: Class names.
        files: Names of the pictures, by `Flip.index`.

    Raises:
        CatdogError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        (
            "candidate",
            "file",
            "truth",
            "reference_answer",
            "reference_probability",
            "candidate_answer",
            "candidate_probability",
            "reference_margin",
        )
    )
    for name, flip in flips:
        writer.writerow(
            (
                name,
                files[flip.index],
                _label(labels, flip.truth),
                labels[flip.reference],
                f"{flip.reference_probability:.6f}",
                labels[flip.candidate],
                f"{flip.candidate_probability:.6f}",
                f"{flip.margin:.6f}",
            )
        )
    write_text(path, text.getvalue())


def save_flip_sheet(
    path: Path,
    flips: Sequence[tuple[str, Flip]],
    labels: Sequence[str],
    files: Sequence[str],
    pictures: Pictures,
) -> None:
    """Write a contact sheet of the pictures on which candidates differ, widest margin first.

    Args:
        path: The PNG to write.
        flips: See `write_flips`.
        labels: Class names.
        files: Names of the pictures.
        pictures: `uint8 [N,S,S,3]`, BGR.

    Raises:
        CatdogError: The file cannot be written.
    """
    from catdog_edge.training.runs.plots import save_contact_sheet, short_name

    # A picture that two candidates answer alike (a file and its ORT form) is shown once.
    first = {(flip.index, flip.candidate): (name, flip) for name, flip in reversed(flips)}
    ranked = sorted(first.values(), key=lambda pair: -pair[1].margin)[:SHOWN]
    cells = [
        (
            np.array(pictures[flip.index]),
            f"{short_name(files[flip.index])}: {_label(labels, flip.truth)}\n"
            f"reference {labels[flip.reference]} {flip.reference_probability:.2f}\n"
            f"{name} {labels[flip.candidate]} {flip.candidate_probability:.2f}",
        )
        for name, flip in ranked
    ]
    title = f"{len(ranked)} of {len(first)} answers that differ, the most certain first"
    save_contact_sheet(
        path, cells, title if flips else "verify", nothing="every answer is the same"
    )


def _label(labels: Sequence[str], index: int) -> str:
    return labels[index] if index >= 0 else "not known"
