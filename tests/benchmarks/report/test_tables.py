"""The tables of the reports, and the environment card."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.models.bench_document import ROWS, document

from benchmarks.report import document as report
from benchmarks.report import html
from benchmarks.report import text as words
from benchmarks.report.tables import card, tables


@pytest.fixture(scope="module")
def doc():
    return document()


def test_with_300_classes_every_report_stays_small_and_shows_the_worst_ten():
    labels = tuple(f"class-{number:03}" for number in range(300))
    doc = document(labels=labels, pictures=3000)
    recall = doc["classes"]["rows"]["pytorch"]["recall"]
    text = json.dumps(doc, indent=1, allow_nan=False)
    assert len(text) < 500_000
    assert text.count("confusion") == 1
    assert sum(count for _, _, count in doc["classes"]["confusion"]) == 3000
    worst = sorted(range(300), key=lambda index: recall[index])[:10]
    title, heads, rows = next(table for table in tables(doc) if "classes" in table[0])
    assert "10 of 300 classes" in title
    assert heads == ["class", "pictures", *(base for base, *_ in ROWS)]
    assert [row[0] for row in rows] == [labels[index] for index in worst]
    assert rows[0][1] == "10"
    assert rows[0][2].startswith(f"{100 * recall[worst[0]]:.1f} / ")
    markdown, page = report.markdown(doc), html.page(doc)
    assert "class-009 and 290 more" in markdown
    assert "10 class-004 and 295 more" in page
    for made, limit in ((markdown, 10_000), (page, 200_000), (report.sheet(doc), 20_000)):
        assert len(made) < limit
        assert made.count("class-") < 40
    assert max(map(len, report.terminal(doc, Path("x")).splitlines())) <= words.WIDTH


def test_a_class_that_is_never_predicted_or_absent_is_a_dash(doc):
    changed = copy.deepcopy(doc)
    changed["classes"]["rows"]["model"] = {"precision": [None, 0.5], "recall": [0.0, 1.0]}
    rows = {row[0]: row[1:] for row in tables(changed)[2][2]}
    assert rows["model"] == ["-", "0.00%", "300", "50.00%", "100.00%", "0"]


def _rows(doc, title):
    return next(rows for found, _, rows in tables(doc) if found.startswith(title))


def test_the_table_of_fresh_processes_has_both_halves_or_dashes(doc):
    made = copy.deepcopy(doc)
    made["rows"][1]["cold"] = None
    made["rows"][2]["stages_ms"] = None
    made["rows"][3]["stages_ms"]["rest"] = None
    rows = _rows(made, "A fresh process")
    assert rows[0] == ["pytorch", "2.40", "40.0", "340", "39.9", "0.60", "0.10", "20.9", "0.05"]
    assert rows[1][1:] == ["-"] * 4 + ["0.60", "0.10", "16.9", "0.05"]
    assert rows[2][1:] == ["0.40", "40.0", "112", "17.9"] + ["-"] * 4
    assert rows[3][-1] == "-"


def test_what_loadgen_says_is_a_table(doc):
    figures = {"valid": True, "p50_ns": 2.5e6, "p90_ns": 3e6, "p99_ns": 4e6, "mean_ns": 2.6e6}
    rows = {
        "model": {**figures, "queries_per_second": 4321.0},
        "slow": {**figures, "valid": False, "unsatisfied": ["min duration", "early stopping"]},
        "bad": {"valid": False, "reason": "out of order"},
    }
    loadgen = {"scenario": "offline", "loadgen": "6.0", "seconds": 10.0, "rows": rows}
    made = {**doc, "loadgen": {**loadgen, "folder": "bench-loadgen/offline"}}
    assert _rows(made, "LoadGen 6.0, offline, at least 10 s a row; all are asked") == [
        ["model", "2.50", "3.00", "4.00", "2.60", "4,321.0", "valid"],
        ["slow", "2.50", "3.00", "4.00", "2.60", "-", "INVALID (min duration, early stopping)"],
        ["bad", "-", "-", "-", "-", "-", "INVALID"],
    ]
    assert "bench-flips.csv, bench-loadgen/offline/" in report.terminal(made, Path("x"))


def test_the_card_tells_what_is_not_known_and_what_was_set(doc):
    text = dict(card(doc))
    assert text["memory"] == "8.0 GiB, 6.0 GiB free at the start"
    assert text["governor"] == "not known"
    assert text["processors"] == "2 usable of 4"
    assert text["providers"] == "asked for cpu; obtained cpu"
    assert "variables" not in text
    made = copy.deepcopy(doc)
    made["environment"] |= {"quota": 1.5, "hypervisor": True, "variables": {"A": "1", "B": "2"}}
    made["environment"]["providers_obtained"] = []
    text = dict(card(made))
    assert text["processors"] == "2 usable of 4, cgroup quota 1.5"
    assert text["processor"].endswith("(family 1, model 2), virtual machine")
    assert text["variables"] == "A=1, B=2"
    assert text["providers"] == "asked for cpu; obtained none"


@pytest.mark.parametrize(("labels", "title"), [("abc", "Class by class"), ("abcd", "Recall / ")])
def test_more_than_three_classes_have_a_line_each_and_no_columns(labels, title):
    found = [one[0] for one in tables(document(labels=tuple(labels)))]
    assert sum(one.startswith(title) for one in found) == 1
