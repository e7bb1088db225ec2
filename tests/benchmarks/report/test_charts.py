"""The charts of the page: inside their frames, with names and ticks that can be read."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.models.bench_document import ROWS, document

from benchmarks.report import chart_scale, charts, html


@pytest.fixture(scope="module")
def doc():
    counts = {"test": {"disagreements": 3, "pictures": 3}}
    return document(flips={"count": 3, "by_pictures": counts, "file": "bench-flips.csv"})


@pytest.mark.parametrize("spread", ["as measured", "from end to end"])
def test_every_drawing_is_well_formed_and_stays_inside_its_frame(doc, spread):
    if spread == "from end to end":
        doc = copy.deepcopy(doc)
        wide = np.geomspace(0.5, 50, 101).tolist()
        for row in doc["rows"]:
            row["latency"] |= {"quantiles_ms": wide, "p50_ms": 0.5, "p95_ms": 45.0}
    for width in (html.WIDE, html.NARROW):
        drawings = [
            charts.ratios(doc, width),
            charts.distributions(doc, width),
            charts.pareto_chart(doc, width),
            *(drawn for _, drawn in charts.reliability(doc)),
        ]
        assert len(drawings) == 3 + len(ROWS)
        for drawing in drawings:
            root = ET.fromstring(drawing)
            wide, high = (float(root.get(name)) for name in ("width", "height"))
            assert root.get("aria-label")
            for node in root.iter():
                limits = {"x": wide, "x1": wide, "x2": wide, "cx": wide}
                limits |= {"y": high, "y1": high, "y2": high, "cy": high}
                for name, limit in limits.items():
                    if node.get(name) is not None:
                        assert 0 <= float(node.get(name)) <= limit
            labels = [node for node in root.iter() if node.tag.endswith("text")]
            for node in labels:  # a generous 7 pixels per character
                long = 7 * len(node.text)
                x, anchor = float(node.get("x")), node.get("text-anchor")
                start = {"start": x, "middle": x - long / 2, "end": x - long}[anchor]
                assert start >= -8
                assert start + long <= wide + 16


def _nodes(drawing, kind):
    found = (node for node in ET.fromstring(drawing).iter())
    return [node for node in found if (node.get("class") or "").split(" ")[0] == kind]


def _at(node, *names):
    return [float(node.get(name)) for name in names]


def test_names_stand_beside_their_marks_or_above_them_on_a_phone(doc):
    for width in (html.WIDE, html.NARROW):
        drawing = charts.ratios(doc, width)
        names, chips, dots = (_nodes(drawing, kind) for kind in ("label", "chip", "dot"))
        assert [name.text for name in names] == [base for base, *_ in ROWS[1:]]
        for name, chip, dot in zip(names, chips, dots, strict=True):
            (x, y), (left, top), mark = _at(name, "x", "y"), _at(chip, "x", "y"), _at(dot, "cy")[0]
            assert (x, y) == pytest.approx((left + 16, top + 9.5), abs=0.5)
            if width == html.WIDE:
                assert y == pytest.approx(mark + 4)
                assert x + 7 * len(name.text) < min(_at(dot, "cx")[0] for dot in dots)
            else:
                assert 10 < mark - y < 25
        marks = [_at(dot, "cy")[0] for dot in dots]
        assert np.diff(marks) == pytest.approx(30 if width == html.WIDE else 48)


@pytest.mark.parametrize("width", [html.WIDE, html.NARROW])
def test_names_in_the_front_are_beside_their_points_and_cover_nothing(doc, width):
    made = copy.deepcopy(doc)
    for row, p50 in zip(made["rows"], (9.0, 9.1, 9.2, 9.3, 9.4, 3.0), strict=True):
        row["latency"]["p50_ms"] = p50
    drawing = charts.pareto_chart(made, width)
    points = {tuple(_at(dot, "cx", "cy")) for dot in _nodes(drawing, "dot")}
    ends = {tuple(_at(line, "x1", "y1")) for line in _nodes(drawing, "leader")}
    assert ends <= points
    boxes = []
    for name in _nodes(drawing, "label"):
        (x, y), long = _at(name, "x", "y"), 7 * len(name.text)
        side = ("middle", "start", "end").index(name.get("text-anchor"))
        side, left = (0, 1, -1)[side], (x - long / 2, x, x - long)[side]
        own = [(px, py) for px, py in points if px == pytest.approx(x - side * 12, abs=0.02)]
        assert any(abs(y - py) <= 20 or (px, py) in ends for px, py in own)
        boxes.append((left, left + long, y))
    for index, (left, right, y) in enumerate(boxes):
        assert left >= 0
        assert right <= width
        for other_left, other_right, other in boxes[:index]:
            assert abs(y - other) >= 12 or left > other_right or right < other_left
    key = [one.text for one in _nodes(drawing, "key") if one.text]
    fastest_first = ["model.static", *(row["name"] for row in made["rows"][:5])]
    numbered = [f"{number}  {name}" for number, name in enumerate(fastest_first, 1)]
    assert key == (numbered if width == html.NARROW else [])


def test_ticks_are_written_as_numbers(doc):
    for chart in (charts.ratios, charts.distributions, charts.pareto_chart):
        for width in (html.WIDE, html.NARROW):
            ticks = [float(node.text) for node in _nodes(chart(doc, width), "tick")]
            assert 3 <= len(ticks) <= 16
    assert chart_scale.padded([90.0, 100.0]) == pytest.approx((89.4, 100.6))
    assert chart_scale.padded([1.0, 16.0], 0.25, log=True) == pytest.approx((0.5, 32.0))
    assert chart_scale.padded([5.0, 5.0]) == pytest.approx((4.995, 5.005))


def test_the_gain_of_a_row_stands_beside_the_chart_not_on_the_dashed_line(doc):
    near = copy.deepcopy(doc)
    near["rows"][2]["ratio"] |= {"value": 0.93, "low": 0.9, "high": 0.97}
    for width in (html.WIDE, html.NARROW):
        root = ET.fromstring(charts.ratios(near, width))
        (one,) = (node for node in root.iter() if node.get("class") == "one")
        values = [node for node in root.iter() if node.get("class") == "value"]
        assert len(values) == len(ROWS) - 1
        assert len({node.get("x") for node in values}) == 1  # a column
        assert all(float(node.get("x")) > float(one.get("x1")) for node in values)


def test_the_median_is_written_on_top_of_its_line(doc):
    root = ET.fromstring(charts.distributions(doc, html.WIDE))
    for shape in (node for node in root.iter() if node.tag.endswith("}g")):
        (median,) = (node for node in shape if node.get("class") == "median")
        (words,) = (node for node in shape if node.get("class") == "value")
        assert float(words.get("x")) == pytest.approx(float(median.get("x1")), abs=0.01)
        assert float(words.get("y")) < float(median.get("y1"))


@pytest.mark.parametrize(("pictures", "few"), [(600, 2), (600, 4), (2000, 9)])
def test_bins_with_few_answers_neither_draw_nor_bend_the_line(doc, pictures, few):
    """Fewer than five, or than one in 200."""
    made = copy.deepcopy(doc)
    made["data"]["pictures"] = pictures
    bins = made["rows"][0]["answers"]["calibration"]
    full = [one for one in bins if one["count"]]
    for one in full:
        one["count"] = max(one["count"], 10)
    full[2] |= {"count": few, "accuracy": 0.0}
    root = ET.fromstring(dict(charts.reliability(made))["pytorch"])
    dots = [node for node in root.iter() if node.tag.endswith("circle")]
    joins = [node for node in root.iter() if node.get("class", "").startswith("trace")]
    assert len(dots) == len(full) - 1
    assert len(joins) == len(full) - 3  # none to it and none across it
    ticks = [node.text for node in root.iter() if node.get("class") == "tick"]
    assert ticks[0] == "50"  # and the scale does not begin at 0 for its sake


def test_a_density_peaks_where_the_calls_are(doc):
    row = doc["rows"][2]
    outline = charts.density(row, chart_scale.Scale(1.0, 100.0, 0, 1000, log=True))
    peak = max(outline, key=lambda point: point[1])
    assert peak[1] == pytest.approx(1.0)
    assert peak[0] == pytest.approx(row["latency"]["p50_ms"], rel=0.1)
    assert outline[0][1] < 0.1
    assert outline[-1][1] < 0.1
    # It begins and ends where the calls do.
    assert 0.7 * row["latency"]["quantiles_ms"][1] < outline[0][0] < row["latency"]["p50_ms"]
    assert row["latency"]["p50_ms"] < outline[-1][0] < 1.4 * row["latency"]["quantiles_ms"][99]


def test_a_density_reaches_three_widths_beyond_the_middle_98_percent():
    row = {"latency": {"quantiles_ms": np.exp(np.linspace(0, 1, 101))}}
    outline = charts.density(row, chart_scale.Scale(0.1, 100.0, 0, 100, log=True))
    width = 0.9 * np.linspace(0.01, 0.99, 99).std() * 99**-0.2
    ends = [float(np.log(outline[place][0])) for place in (0, -1)]
    assert ends == pytest.approx([0.01 - 3 * width, 0.99 + 3 * width])


def test_calls_that_all_take_the_same_time_can_be_drawn(doc):
    flat = {
        **doc["rows"][0],
        "latency": {**doc["rows"][0]["latency"], "quantiles_ms": (5.0,) * 101},
    }
    outline = charts.density(flat, chart_scale.Scale(1.0, 10.0, 0, 100, log=True))
    assert all(np.isfinite(value) for point in outline for value in point)


def test_the_front_is_what_no_other_row_beats():
    points = [(3.0, 0.94), (9.0, 0.95), (9.5, 0.93), (12.0, 0.95), (20.0, 0.99), (20.0, 0.98)]
    assert charts.pareto(points) == [0, 1, 4]
    assert charts.pareto([(1.0, 0.5)]) == [0]


@pytest.mark.parametrize("width", [345, 1000])
def test_a_long_name_is_cut_where_the_chart_ends(doc, width):
    made = copy.deepcopy(doc)
    for number, row in enumerate(made["rows"]):
        row["name"] = f"{'long-name-of-a-file-' * 5}{number}"
    for chart in (charts.ratios, charts.distributions):
        names = re.findall(r'class="label"[^>]*>([^<]+)<', chart(made, width))
        assert len(set(names)) == len(names) > 3
        assert max(map(len, names)) * charts.CHARACTER < width
