"""The page: complete, self-contained, and readable in a real browser."""

from __future__ import annotations

import base64
import copy
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.models.bench_document import document

from benchmarks.measure.parity import Disagreement
from benchmarks.report import charts, html

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)

VOID = {"meta", "img", "br", "link", "input", "hr"}


@pytest.fixture(scope="module")
def doc():
    counts = {"test": {"disagreements": 3, "pictures": 3}}
    return document(flips={"count": 3, "by_pictures": counts, "file": "bench-flips.csv"})


@pytest.fixture(scope="module")
def shown():
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (90, 160, 3), dtype=np.uint8) for _ in range(3)]
    answers = ("cat", "cat", 0.6, "dog", 0.7, "reference", "test")
    return [
        html.SheetImage(frame, [Disagreement("model.static", f"a/{i}.jpg", *answers, index=i)])
        for i, frame in enumerate(frames)
    ]


@pytest.fixture(scope="module")
def text(doc, shown):
    return html.page(doc, shown)


class _Checker(HTMLParser):
    """Every element is closed in order; collects addresses and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "srcset", "data")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_loads_nothing(text):
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    assert len(checker.addresses) == 3  # the three pictures, and they are inside
    assert all(address.startswith("data:image/jpeg;base64,") for address in checker.addresses)
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "default-src 'none'" in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_tells_what_the_document_tells(text, doc):
    checker = _Checker()
    checker.feed(text)
    words = " ".join(checker.words)
    for row in doc["rows"]:
        assert row["name"] in words
    for part in ("7.3", "94.33", "Reliability", "Corrupted images", "Example 9000", "a/2.jpg"):
        assert part in words
    assert doc["command"] in words


def test_gates_that_are_not_met_stand_on_top(doc):
    gate = {"gate": "max-ratio", "row": "model", "limit": 0.2, "value": 0.4}
    gates = [{**gate, "met": met, "says": f"says {met}"} for met in (True, False, True)]
    made = html.page({**doc, "gates": gates})
    (banner,) = re.findall(r'<div class="banner broken">(.*?)</div>', made)
    assert "1 of 3 gates not met." in banner
    assert "model says False." in banner
    assert "says True" not in banner
    assert "banner" not in html.page(doc).partition("</style>")[2]


@pytest.mark.parametrize(("size", "shown"), [((90, 160), (90, 160)), ((300, 600), (110, 220))])
def test_thumbnails_are_small_and_never_enlarged(shown, size, doc):
    found = html.SheetImage(np.zeros((*size, 3), np.uint8), [])
    data = base64.b64decode(found.uri.partition(",")[2])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2] == shown


def test_of_many_disagreements_the_page_says_how_many_it_shows(shown, doc):
    counts = {"test": {"disagreements": 40, "pictures": 30}}
    made = html.page({**doc, "flips": {**doc["flips"], "by_pictures": counts}}, shown)
    assert "3 of 30 images of the test split" in made
    assert "(40 disagreements in all" in made
    assert "3 images of the test split" in html.page(doc, shown)


def test_only_losses_beyond_chance_are_shaded(doc):
    spoiled = copy.deepcopy(doc["corruptions"])
    for by_row in spoiled["results"].values():
        for found in by_row.values():
            found |= {"difference": -0.02, "difference_low": -0.05, "difference_high": 0.01}
    page = html.page({**doc, "corruptions": spoiled}, [])
    assert "rgba(var(--shade)" not in page
    spoiled["results"]["dark"]["model.static"]["difference_high"] = -0.001
    page = html.page({**doc, "corruptions": spoiled}, [])
    assert page.count("rgba(var(--shade)") == 1


def test_the_page_names_the_fastest_file_and_what_it_cannot_be_told_from(doc):
    def row(name, p50, low, high, to="pytorch"):
        base = copy.deepcopy(doc["rows"][-1])
        base["latency"]["p50_ms"] = p50
        ratio = {"value": (low + high) / 2, "low": low, "high": high, "to": to}
        return {**base, "name": name, "ratio": ratio}

    rows = [
        row("slow", 3.0, 0.50, 0.60),
        row("near", 1.1, 0.19, 0.21),
        row("first", 1.0, 0.18, 0.20),
        row("alone", 1.5, 0.10, 0.11, "pytorch:t1"),
    ]
    made = html.page(
        {**doc, "rows": [doc["rows"][0], {**doc["rows"][0], "name": "pytorch:t1"}, *rows]}
    )
    assert "<strong>first</strong>, level with near (the intervals overlap):" in made
    failed = [{"row": "near", "reason": "near: no <memory>"}]
    assert "No cold start: near: no &lt;memory&gt;" in html.page({**doc, "no_cold_start": failed})


def test_names_from_outside_cannot_break_the_page(doc):
    rows = [{**row, "name": "<b>&\"'", "base": "<b>&\"'"} for row in doc["rows"][2:3]]
    evil = {**doc, "run": "<script>alert(1)</script>", "rows": [doc["rows"][0], *rows]}
    made = html.page(evil)
    assert "<script" not in made
    assert "<b>" not in made
    checker = _Checker()
    checker.feed(made)
    assert checker.open == []


def test_without_batch_one_the_page_tells_the_time_of_a_frame(doc):
    made = copy.deepcopy(doc)
    for row in made["rows"]:
        row["batch"] = 32 if row["name"] == "model.static" else 8
        row["latency"]["p50_ms"] = 40.0 if row["name"] == "model.static" else 20.0
    assert html.headline(made)["name"] == "model.static"
    shown = charts.pareto_chart(made, 1000)
    assert "in 1.25 ms a frame" in shown  # 40 ms for 32 frames
    assert "in 2.50 ms a frame" in shown


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it(scheme, width, text, tmp_path):
    # A frame around the page: a window of a headless browser cannot be as narrow as a phone.
    (tmp_path / "bench.html").write_text(text)
    (tmp_path / "frame.html").write_text(
        "<!doctype html><body style='margin:0'><iframe src='bench.html' style='border:0;width:"
        f"{width}px;height:7000px'></iframe></body>"
    )
    shot = tmp_path / "shot.png"
    dark = "0" if scheme == "dark" else "1"
    subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={dark}", "--window-size=1280,7000",
            f"--screenshot={shot}", (tmp_path / "frame.html").as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    picture = cv2.imread(str(shot))[:, :width]
    assert picture.shape[1] == width
    corner = picture[:4, :4].mean()
    assert corner < 60 if scheme == "dark" else corner > 200
    ink = np.abs(picture.astype(int) - picture[2, 2].astype(int)).max(axis=2) > 40
    rows_with_ink = np.flatnonzero(ink.any(axis=1))
    assert rows_with_ink[-1] - rows_with_ink[0] > 2500  # the whole page is there
    assert ink.mean() > 0.01
    # Nothing is cut off at the right: the page keeps its margin there.
    assert not ink[:, -8:].any()
    colours = {"light": [(214, 120, 42), (42, 102, 224)], "dark": [(234, 150, 79), (66, 124, 240)]}
    for colour in colours[scheme]:  # the blue of float32 and the orange of int8, as BGR
        assert (np.abs(picture.astype(int) - colour).max(axis=2) < 12).sum() > 100
