"""Results for programs that read camera traps'."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from support.commands.bulk_runs import BROKEN, predict, rows_of

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

from catdog_edge.bulk.camera_traps import timelapse


def test_programs_for_camera_traps_get_one_file_more(album: Path) -> None:
    (album / "day2").mkdir()
    (album / "00.png").rename(album / "day2" / "00.png")
    grey = np.full((40, 60, 3), 128, np.uint8)
    cv2.imwrite("shots/grey, still.png", grey)
    predict("shots", "--out", "md", "--format", "megadetector", "--part", "10", "--reject", "0.6")
    document = json.loads(Path("md/megadetector.json").read_text())
    float(document["info"]["format_version"])
    assert document["detection_categories"] == {"1": "animal"}
    categories = document["classification_categories"]
    rows, images = rows_of("md"), {image["file"]: image for image in document["images"]}
    assert len(rows) == len(images) == len(document["images"]) == 25
    for row in rows:
        image = images[row["file"]]
        if row.get("label", "neither") == "neither":
            assert image["detections"] == (None if "error" in row else [])
            assert image.get("failure") == row.get("error")
            continue
        (found,) = image["detections"]
        assert (found["category"], found["bbox"]) == ("1", [0, 0, 1, 1])
        assert found["conf"] == row["score"]
        assert categories[found["classifications"][0][0]] == row["label"]
        assert found["classifications"][0][1] == row["confidence"] > found["classifications"][1][1]
    assert images["shots/grey, still.png"]["detections"] == []
    predict("shots", "--out", "tl", "--format", "timelapse")
    with Path("tl/timelapse.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 25
    first = table[-2]
    assert (first["File"], first["RelativePath"], first["Label"]) == (
        "00.png",
        "shots\\day2",
        "dog",
    )
    assert table[-1]["File"] == "grey, still.png"
    assert next(row for row in table if row["File"] == BROKEN)["Label"] == ""


def test_the_confidence_of_neither_is_its_score() -> None:
    rows = [
        {"file": "a/1.jpg", "label": "cat", "confidence": 0.9, "score": 0.7},
        {"file": "a/2.jpg", "label": "neither", "confidence": 1.0, "score": 0.03},
    ]
    table = b"".join(timelapse(rows, ("cat", "dog"), "model.onnx")).decode()
    assert table.splitlines()[1:] == ["1.jpg,a,cat,0.9", "2.jpg,a,neither,0.03"]
