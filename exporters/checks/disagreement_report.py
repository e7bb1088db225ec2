"""Write the images on which models differ: a table and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from catdog_edge.training.data.dataset import write_csv
from exporters.checks.comparison import Flip
from exporters.checks.validation_data import ValidationSet

SHOWN = 30  # images on the contact sheet

TABLE, SHEET = "verify-flips.csv", "verify-flips.png"

COLUMNS = (
    "candidate", "file", "truth", "reference_answer", "reference_probability",
    "candidate_answer", "candidate_probability", "reference_margin",
)  # fmt: skip


def save_flips(
    folder: Path,
    flips: Sequence[tuple[str, Flip]],
    labels: Sequence[str],
    validation: ValidationSet,
) -> None:
    """Write `verify-flips.csv` and, if any images differ, `verify-flips.png`.

    `flips` has the name of the candidate with each image for which it predicts another class.
    """
    from catdog_edge.training.runs.plots import save_contact_sheet, short_name

    def label(index: int) -> str:
        return labels[index] if index >= 0 else "not known"

    rows = (
        (name, validation.files[one.index], *map(label, (one.truth, one.reference)),
         f"{one.reference_probability:.6f}", label(one.candidate),
         f"{one.candidate_probability:.6f}", f"{one.margin:.6f}")
        for name, one in flips
    )  # fmt: skip
    write_csv(folder / TABLE, COLUMNS, rows)
    # An image for which two candidates predict the same (a file and its ORT form) is shown once.
    first = {(flip.index, flip.candidate): (name, flip) for name, flip in reversed(flips)}
    ranked = sorted(first.values(), key=lambda pair: -pair[1].margin)[:SHOWN]
    cells = [
        (
            np.array(validation.images[flip.index]),
            f"{short_name(validation.files[flip.index])}: {label(flip.truth)}\n"
            f"reference {label(flip.reference)} {flip.reference_probability:.2f}\n"
            f"{name} {label(flip.candidate)} {flip.candidate_probability:.2f}",
        )
        for name, flip in ranked
    ]
    title = f"{len(ranked)} of {len(first)} answers that differ, the most certain first"
    save_contact_sheet(folder / SHEET, cells, title)
