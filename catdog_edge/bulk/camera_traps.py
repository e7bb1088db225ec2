"""Write results for camera-trap programs: MegaDetector's JSON and Timelapse's CSV.

Sources: https://lila.science/megadetector-output-format (version 1.6), and the help of Timelapse 2
on importing CSV files: `File` is required, `RelativePath` if images are in subfolders, other
headers are data labels of the template.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from catdog_edge.spec import NEITHER

ResultRows = Iterable[dict[str, Any]]


def megadetector(rows: ResultRows, labels: Sequence[str], model: str) -> Iterator[bytes]:
    """Write one JSON document, with one image per line.

    An image with a class is a detection of the category `animal` over the whole frame; `conf` is
    the score that rejection compares, else the confidence. An image of `neither` has none.
    """
    head = {
        "info": {"format_version": "1.6", "classifier": model},
        "detection_categories": {"1": "animal"},
        "classification_categories": {str(index): label for index, label in enumerate(labels)},
        "images": [],
    }
    yield json.dumps(head, ensure_ascii=False).removesuffix("]}").encode()
    before = "\n"
    for row in rows:
        yield f"{before}{json.dumps(_image(row, labels), ensure_ascii=False)}".encode()
        before = ",\n"
    yield b"\n]}\n"


def _image(row: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    if "error" in row:
        return {"file": row["file"], "failure": row["error"], "detections": None}
    if row["label"] == NEITHER:
        return {"file": row["file"], "detections": []}
    found = [[str(index), row["probabilities"][label]] for index, label in enumerate(labels)]
    found.sort(key=lambda one: -one[1])
    conf = row.get("score", row["confidence"])
    whole = [0.0, 0.0, 1.0, 1.0]  # left, top, width and height as fractions of the frame
    detection = {"category": "1", "conf": conf, "bbox": whole, "classifications": found}
    return {"file": row["file"], "detections": [detection]}


def timelapse(rows: ResultRows, labels: Sequence[str], model: str) -> Iterator[bytes]:
    r"""Write a CSV file: File, RelativePath (`station1\day2`), Label and Confidence.

    The confidence of `neither` is the score that rejection compares: that of the best class may be
    1 where the score is 0.
    """
    del labels, model
    yield _line("File", "RelativePath", "Label", "Confidence")
    for row in rows:
        path = PurePosixPath(row["file"])
        folder = "\\".join(path.parts[:-1])
        label, confidence = row.get("label", ""), row.get("confidence", "")
        if label == NEITHER:
            confidence = row.get("score", confidence)
        yield _line(path.name, folder, label, confidence)


def _line(*fields: Any) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(fields)
    return text.getvalue().encode()


WRITERS: dict[str, tuple[str, Callable[[ResultRows, Sequence[str], str], Iterator[bytes]]]] = {
    "megadetector": ("megadetector.json", megadetector),
    "timelapse": ("timelapse.csv", timelapse),
}
"""By format: the name of the one file with all results, and what writes it from their rows."""
