"""`bench.html`: one page that holds everything, charts and pictures included.

Knows the document of `bench.json` and the pictures of the contact sheet. The page loads
nothing from anywhere (its own policy forbids it), runs no script, follows the reader's light
or dark setting, and fits a desktop and a phone.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

import cv2

from benchmarks.measure.parity import AS_THEY_ARE, Flip
from benchmarks.report import charts, tables
from benchmarks.report import document as report
from catdog_edge.images.preprocess import Image

WIDE, SLIM = 980, 330
"""Widths in pixels that each chart is drawn for."""

THUMBNAIL = 220
"""Longer side of a picture on the contact sheet, in pixels."""

Document = Mapping[str, Any]

FAMILIES = {
    "torch": "PyTorch",
    "fp32": "float32 file",
    "fp16": "float16 file",
    "int8-dynamic": "int8 file, dynamic",
    "int8-static": "int8 file, static",
}


@dataclass(frozen=True)
class Shown:
    """A picture of the contact sheet.

    Attributes:
        frame: `uint8 [H,W,3]` BGR.
        flips: The rows that differ from PyTorch on it, one or more.
    """

    frame: Image
    flips: Sequence[Flip]


def page(document: Document, shown: Sequence[Shown] = ()) -> str:
    """The page.

    Args:
        document: What `bench.json` holds.
        shown: The contact sheet, in the order of the page.
    """
    style = resources.files("benchmarks.report").joinpath("page.css").read_text(encoding="utf-8")
    body = "".join(
        (
            _head(document),
            _tiles(document),
            _ratios(document),
            _chart(
                "How the calls are spread",
                "Each shape holds the middle 98 % of a row's calls; the tall line is the median, "
                "the short coloured one p95. Point at a shape for the other percentiles.",
                lambda width: charts.distributions(document, width),
            ),
            _chart(
                "Accuracy against latency",
                "Up and to the left is better. The dashed line joins the rows that no other row "
                "beats in both; whiskers are 95 % intervals of the accuracy.",
                lambda width: charts.front(document, width),
            ),
            _reliability(document),
            *(_table(document, table) for table in _plain_tables(document)),
            _corruptions(document),
            _flips(document, shown),
            _gates(document),
            _machine(document),
            _foot(document),
        )
    )
    title = escape(f"Bench of {document['run']}")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _head(document: Document) -> str:
    model, data = document["model"], document["data"]
    where = "drawings made by the program, not photographs" if data["drawings"] else data["name"]
    counts = ", ".join(f"{count:,} {label}" for label, count in data["counts"].items())
    parts = [
        '<header><p class="eyebrow">catdog-edge bench, ',
        escape(str(document["created"]).replace("T", " ").replace("+00:00", " UTC")),
        f"</p><h1>{escape(str(document['run']))}</h1>",
        f'<p class="lead">{escape(model["architecture"])} at {model["height"]}\u00d7'
        f"{model['width']}, {escape(' or '.join(model['labels']))}; measured on "
        f"{data['pictures']:,} test pictures ({escape(counts)}) of {escape(where)}.</p>",
    ]
    if document["noise"]:
        parts.append(
            '<div class="banner noisy"><p><strong>Noisy run.</strong> '
            f"{escape(_sentence('; '.join(document['noise'])))} {escape(report.DOUBT)}</p></div>"
        )
    broken = [gate for gate in document["gates"] if not gate["met"]]
    if broken:
        listed = "; ".join(f"{gate['row']} {gate['says']}" for gate in broken)
        parts.append(
            f'<div class="banner broken"><p><strong>{len(broken)} of {len(document["gates"])} '
            f"gates not met.</strong> {escape(listed)}.</p></div>"
        )
    return "".join(parts) + "</header>\n"


def headline(document: Document) -> Mapping[str, Any] | None:
    """The row of the tiles: the exported file that takes least time for a frame.

    Of those that take one frame at a time; where there are none, of all.
    """
    return min(_single(document), key=charts.per_frame, default=None)


def _single(document: Document) -> list[Mapping[str, Any]]:
    rows = [row for row in document["rows"] if row["engine"] == "onnxruntime"]
    return [row for row in rows if row["batch"] == 1] or rows


def _level(document: Document, first: Mapping[str, Any]) -> list[str]:
    """Rows that the fastest one cannot be told from: their intervals overlap."""
    return [
        str(row["name"])
        for row in _single(document)
        if row is not first
        and row["ratio"]["to"] == first["ratio"]["to"]
        and row["ratio"]["low"] <= first["ratio"]["high"]
    ]


def _tiles(document: Document) -> str:
    row = headline(document)
    if row is None:
        return ""
    torch = next(one for one in document["rows"] if one["name"] == row["ratio"]["to"])
    ratio, answers = row["ratio"], row["answers"]
    low, high = (100 * answers[f"difference_{end}"] for end in ("low", "high"))
    tiles = [
        _tile(
            "Speed against PyTorch",
            f"{1 / ratio['value']:.1f}",
            "\u00d7",
            f"95 % interval {1 / ratio['high']:.2f} to {1 / ratio['low']:.2f}",
        ),
        _tile(
            "Accuracy",
            f"{100 * answers['accuracy']:.2f}",
            "%",
            f"{100 * answers['difference']:+.2f} points to PyTorch ({low:+.2f} to {high:+.2f})",
        ),
        _tile(
            "Agreement",
            f"{100 * answers['agreement']:.2f}",
            "%",
            f"{answers['flips']:,} of {answers['pictures']:,} pictures differ from PyTorch",
        ),
        _tile(
            "File",
            f"{row['size_bytes'] / 1e6:.2f}",
            "MB",
            f"the checkpoint has {torch['size_bytes'] / 1e6:.2f} MB",
        ),
    ]
    if row["cold"] and torch["cold"]:
        tiles.append(
            _tile(
                "First answer",
                f"{row['cold']['first_answer_s']:.2f}",
                "s",
                f"PyTorch {torch['cold']['first_answer_s']:.2f} s; peak memory "
                f"{row['cold']['peak_rss_bytes'] / 1e6:.0f} MB against "
                f"{torch['cold']['peak_rss_bytes'] / 1e6:.0f}",
            )
        )
    name = escape(str(row["name"]))
    same = _level(document, row)
    level = f", level with {escape(', '.join(same))} (the intervals overlap)" if same else ""
    return (
        f'<p class="lead">The fastest exported file is <strong>{name}</strong>{level}:</p>'
        f'<div class="tiles">{"".join(tiles)}</div>\n'
    )


def _tile(name: str, figure: str, unit: str, note: str) -> str:
    return (
        f'<div class="tile"><div class="name">{escape(name)}</div>'
        f'<div class="figure">{escape(figure)} <span class="unit">{escape(unit)}</span></div>'
        f'<div class="note">{escape(note)}</div></div>'
    )


def _chart(title: str, hint: str, draw: Callable[[int], str], before: str = "") -> str:
    wide, slim = draw(WIDE), draw(SLIM)
    if not wide:
        return ""
    return (
        f'<section><h2>{escape(title)}</h2><p class="hint">{escape(hint)}</p>{before}'
        f'<div class="wide">{wide}</div><div class="narrow">{slim}</div></section>\n'
    )


def _ratios(document: Document) -> str:
    used = {charts.family(row) for row in document["rows"]}
    legend = "".join(
        f'<span><i class="fill-{name}"></i>{escape(words)}</span>'
        for name, words in FAMILIES.items()
        if name in used
    )
    return _chart(
        "Time relative to PyTorch",
        "Less is faster; the dashed line is PyTorch with the same threads and batch. The bars "
        "are 95 % intervals, and the figure to quote.",
        lambda width: charts.ratios(document, width),
        f'<div class="legend">{legend}</div>',
    )


def _reliability(document: Document) -> str:
    panels = "".join(
        f"<div><h3>{escape(str(row['base']))}</h3>{drawn}</div>"
        for row, drawn in zip(tables.bases(document), charts.reliability(document), strict=True)
    )
    return (
        '<section><h2>Reliability</h2><p class="hint">How often an answer is right (upwards, %) '
        "against how sure it says it is (to the right, %); on the diagonal the two are equal. "
        "A larger dot stands for more answers; ECE, the expected calibration error, is their mean "
        "distance from the diagonal.</p>"
        f'<div class="small-multiples">{panels}</div></section>\n'
    )


def _plain_tables(document: Document) -> list[tables.Table]:
    return [table for table in tables.tables(document) if not table[0].startswith("Spoiled")]


def _table(document: Document, table: tables.Table) -> str:
    del document
    title, heads, rows = table
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<section><h2>{escape(title)}</h2><div class="scroll"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div></section>\n"
    )


def _corruptions(document: Document) -> str:
    spoiled = document["corruptions"]
    if spoiled is None:
        return ""
    results = spoiled["results"]
    says = {one["name"]: one["says"] for one in spoiled["set"]}
    head = "".join(
        f'<th title="{escape(says.get(name, "as they are"))}">{escape(name)}</th>'
        for name in results
    )
    body = []
    for base in results["clean"]:
        cells = []
        for by_row in results.values():
            found = by_row[base]
            # Ten points below PyTorch on the same pictures are the full shade; what chance
            # explains has none.
            lost = found["difference_high"] < 0
            shade = min(1.0, -10 * found["difference"]) * 0.55 if lost else 0.0
            style = f' style="background: rgba(var(--shade), {shade:.2f})"' if shade else ""
            agree = (
                "" if base == "pytorch" else f"<small>{100 * found['agreement']:.0f} agree</small>"
            )
            low, high = (100 * found[f"accuracy_{end}"] for end in ("low", "high"))
            cells.append(
                f"<td{style}>{100 * found['accuracy']:.1f}"
                f"<small>{low:.1f} to {high:.1f}</small>{agree}</td>"
            )
        body.append(f"<tr><td>{escape(base)}</td>{''.join(cells)}</tr>")
    listed = "; ".join(f"{one['name']}: {one['says']}" for one in spoiled["set"])
    return (
        '<section><h2>Spoiled pictures</h2><p class="hint">Accuracy in % on '
        f"{spoiled['pictures']:,} test pictures, and how many of them are answered as PyTorch "
        "answers them, with Wilson's interval. A shaded cell loses accuracy against PyTorch on the "
        "same pictures, by more than chance (Tango's paired interval). "
        f'{escape(_sentence(listed))}</p><div class="scroll"><table class="heat"><thead><tr>'
        f"<th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div></section>\n"
    )


def _flips(document: Document, shown: Sequence[Shown]) -> str:
    """The contact sheet: the test split as it is, and below it, folded up, other pictures."""
    by_pictures: dict[str, list[Shown]] = {}
    for one in shown:
        by_pictures.setdefault(one.flips[0].pictures, []).append(one)
    plain = by_pictures.pop(AS_THEY_ARE, [])
    counted, file = document["flips"]["by_pictures"], escape(document["flips"]["file"])
    if plain:
        test = counted[AS_THEY_ARE]
        lead = (
            f'<p class="hint">{_of(len(plain), test["pictures"])} of the test split on which a row '
            "and PyTorch give different answers, those first on which both are surest "
            f"({_many(test['disagreements'], 'disagreement')} in all, listed in {file}).</p>"
        )
    else:
        words = "There is no test picture on which a row and PyTorch give different answers."
        lead = f'<p class="lead">{words}</p>'
    folded = "".join(
        f"<details><summary>{escape(name)}: {_of(len(group), counted[name]['pictures'])}, "
        f"{_many(counted[name]['disagreements'], 'disagreement')}</summary>"
        f"{_contact_sheet(group)}</details>"
        for name, group in by_pictures.items()
    )
    if folded:
        folded = (
            '<p class="hint below">The same for pictures that are spoiled or at their original '
            f"size, as they were seen:</p>{folded}"
        )
    return (
        f"<section><h2>Disagreements</h2>{lead}{_contact_sheet(plain) if plain else ''}{folded}"
        "</section>\n"
    )


def _of(shown: int, count: int) -> str:
    """How many pictures are shown, and of how many where that is not all."""
    words = _many(count, "picture")
    return words if shown == count else f"{shown:,} of {words}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _contact_sheet(shown: Sequence[Shown]) -> str:
    return f'<div class="sheet">{"".join(_figure(one) for one in shown)}</div>'


def _figure(one: Shown) -> str:
    first = one.flips[0]
    answers = [("pytorch", first.reference_answer, first.reference_confidence)]
    answers += [(flip.row, flip.answer, flip.confidence) for flip in one.flips]
    lines = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(answer)} {100 * confidence:.0f}% "
        f"{_mark(answer == first.label)}</dd></div>"
        for name, answer, confidence in answers
    )
    return (
        f'<figure><img alt="{escape(first.file)}" src="{_data_uri(one.frame)}"><figcaption>'
        f"<strong>{escape(first.label)}</strong> "
        f'<span class="file">{escape(first.file)}</span><dl>{lines}</dl></figcaption></figure>'
    )


def _mark(right: bool) -> str:
    kind, sign, words = ("right", "\u2713", "right") if right else ("wrong", "\u2717", "wrong")
    return f'<span class="{kind}" title="{words}">{sign}</span>'


def _data_uri(frame: Image) -> str:
    height, width = frame.shape[:2]
    share = min(1.0, THUMBNAIL / max(height, width))
    size = (max(1, round(width * share)), max(1, round(height * share)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if share < 1 else frame
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _gates(document: Document) -> str:
    if not document["gates"]:
        return ""
    rows = "".join(
        f"<tr><td>{escape(gate['row'])}</td><td>{escape(gate['gate'])}</td>"
        f"<td>{_mark(gate['met'])} {'met' if gate['met'] else 'not met'}</td>"
        f"<td>{escape(gate['says'])}</td></tr>"
        for gate in document["gates"]
    )
    return (
        '<section><h2>Gates</h2><div class="scroll"><table><thead><tr><th>row</th><th>gate</th>'
        f"<th></th><th>found</th></tr></thead><tbody>{rows}</tbody></table></div></section>\n"
    )


def _machine(document: Document) -> str:
    pairs = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in tables.card(document)
    )
    left = "".join(
        f'<p class="hint">Left out: {escape(one["row"])}: {escape(one["reason"])}</p>'
        for one in document["left_out"]
    ) + "".join(
        f'<p class="hint">No cold start: {escape(one["reason"])}</p>'
        for one in document["no_cold_start"]
    )
    return f'<section><h2>Machine</h2><dl class="card">{pairs}</dl>{left}</section>\n'


def _foot(document: Document) -> str:
    return (
        f"<footer><p>{escape(report.notes(document).replace('`', ''))}</p>"
        f"<p><code>{escape(str(document['command']))}</code>, catdog-edge "
        f"{escape(str(document['tool_version']))}. The figures behind this page are in "
        f"{report.DOCUMENT}.</p></footer>\n"
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + "."
