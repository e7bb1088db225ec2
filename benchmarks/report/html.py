"""`bench.html`: one page with charts, tables and images that loads nothing and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import cv2
from markupsafe import Markup

from benchmarks.measure.parity import Disagreement
from benchmarks.report import charts, tables, templates
from benchmarks.report import document as report
from benchmarks.report.tables import Document
from benchmarks.report.text import few
from catdog_edge.images.preprocess import Image

WIDE, NARROW = 980, 330  # widths in pixels that each chart is drawn for
THUMBNAIL = 220  # longer side of an image on the contact sheet, in pixels

FAMILIES = {
    "torch": "PyTorch", "fp32": "float32 file", "fp16": "float16 file",
    "int8-dynamic": "int8 file, dynamic", "int8-static": "int8 file, static",
}  # fmt: skip
"""The legend."""


@dataclass(frozen=True)
class SheetImage:
    """An image of the contact sheet, and the rows that disagree on it with `reference`."""

    frame: Image  # `uint8 [H,W,3]` BGR
    disagreements: Sequence[Disagreement]
    reference: str = "pytorch"
    explained: str = ""  # the row whose heat map is drawn on it

    @property
    def first(self) -> Disagreement:
        """The first of them."""
        return self.disagreements[0]

    @property
    def answers(self) -> list[tuple[str, str, float]]:
        """Row, class and confidence of the reference's answer and of each other one."""
        answers = [(self.reference, self.first.reference_answer, self.first.reference_confidence)]
        return answers + [(one.row, one.answer, one.confidence) for one in self.disagreements]

    @property
    def uri(self) -> str:
        """A thumbnail as a data URI."""
        height, width = self.frame.shape[:2]
        scale = min(1.0, THUMBNAIL / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(self.frame, size, interpolation=cv2.INTER_AREA)
        _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])
        return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def page(document: Document, images: Sequence[SheetImage] = ()) -> str:
    """Render the page from the content of `bench.json` and the contact sheet, in order."""
    families = {templates.family(row) for row in document["rows"]}
    sheets: dict[str, list[SheetImage]] = {"test": []}
    for image in images:
        sheets.setdefault(image.first.pictures, []).append(image)
    corrupted = document["corruptions"] or {"set": ()}
    corruptions = {one["name"]: one["says"] for one in corrupted["set"]}
    labels = document["model"]["labels"]
    fastest = headline(document)
    style = (resources.files("benchmarks.report") / "templates/page.css").read_text("utf-8")
    return templates.get("page.html").render(
        doc=document,
        style=Markup(style),
        created=str(document["created"]).replace("T", " ").replace("+00:00", " UTC"),
        labels=" or ".join(labels) if len(labels) <= 5 else few(labels, 5),
        counts=few([f"{n:,} {label}" for label, n in document["data"]["counts"].items()], 5),
        doubt=report.DOUBT,
        broken=[gate for gate in document["gates"] if not gate["met"]],
        fastest=fastest,
        level=[] if fastest is None else _level(document, fastest),
        compared=fastest
        and next(row for row in document["rows"] if row["name"] == fastest["ratio"]["to"]),
        reference=tables.reference_name(document),
        legend=[(kind, words) for kind, words in FAMILIES.items() if kind in families],
        **{
            draw.__name__: {"wide": draw(document, WIDE), "narrow": draw(document, NARROW)}
            for draw in (charts.ratios, charts.distributions, charts.pareto_chart)
        },
        reliability=charts.reliability(document),
        tables=[one for one in tables.tables(document) if not one[0].startswith("Corrupted")],
        corruptions=corruptions,
        corruption_list="; ".join(f"{name}: {says}" for name, says in corruptions.items()),
        sheets=sheets,
        by_pictures=document["flips"]["by_pictures"],
        card=tables.card(document),
        notes=report.notes(document).replace("`", ""),
        file=report.DOCUMENT,
    )


def headline(document: Document) -> Mapping[str, Any] | None:
    """Return the row of the tiles: the exported file that takes least time for a frame."""
    return min(_exported(document), key=charts.per_frame, default=None)


def _exported(document: Document) -> list[Mapping[str, Any]]:
    """Return the rows of exported files with batch 1, or with any batch if there are none."""
    exported = (row for row in document["rows"] if row["engine"] == "onnxruntime")
    rows = [row for row in exported if not row["is_reference"]]  # that of an imported file is
    return [row for row in rows if row["batch"] == 1] or rows


def _level(document: Document, fastest: Mapping[str, Any]) -> list[str]:
    """Return the rows that the fastest one cannot be told from: their intervals overlap."""
    return [
        str(row["name"])
        for row in _exported(document)
        if row is not fastest
        and row["ratio"]["to"] == fastest["ratio"]["to"]
        and row["ratio"]["low"] <= fastest["ratio"]["high"]
    ]
