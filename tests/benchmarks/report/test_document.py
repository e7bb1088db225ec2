"""The report in each of its forms."""

from __future__ import annotations

import copy
import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from support.paths import ROOT

pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.benchdoc import GPU_ROWS, ROWS, document

from benchmarks.report import document as report
from benchmarks.report import gates, html
from benchmarks.report import text as words
from benchmarks.report.tables import card, tables

NOT_OF_THIS = ("variant", "noise", "tf32", "gpu_bytes")  # columns without a figure of this row


@pytest.fixture(scope="module")
def doc():
    return document()


def test_rows_on_a_gpu_are_told_with_the_card_its_memory_and_tf32(doc):
    found = document(GPU_ROWS)
    for text in (report.terminal(found, Path("runs/x")), report.markdown(found)):
        text = " ".join(text.split())
        assert "compared on the same device" in text
        assert "GPU MB" in text
        assert "Example H1, 80 GiB, driver 580.1, cuda 13.0, cudnn 92400" in text
        assert "1755 to 1980 MHz in 12 readings while measuring" in text
        assert "float32 with TF32: pytorch@cuda, model@cuda" in text
    assert max(len(line) for line in report.terminal(found, Path("x")).splitlines()) <= 100
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(report.sheet(found)))}
    assert (rows["model@cuda"]["ratio_to"], rows["model@cuda"]["device"]) == (
        "pytorch@cuda", "cuda",
    )  # fmt: skip
    assert (rows["model@cuda"]["gpu_bytes"], rows["model"]["gpu_bytes"]) == ("640000000", "")
    page = html.page(found)
    assert "PyTorch on the same device" in page
    assert "Example H1" in page
    assert html.headline(found)["name"] == "model@cuda"
    assert "GPU MB" not in report.markdown(doc)


def test_an_imported_file_is_named_where_pytorch_is_otherwise_the_reference(doc):
    corrupted = document(ROWS[2:])
    figures = corrupted["corruptions"]["results"]["clean"]
    made = {"name": "originals.zip", "pictures": 9, "median_height": 375, "median_width": 499}
    for labels in (("cat", "dog"), tuple("abcde")):
        found = document(ROWS[2:], labels=labels, originals={**made, "rows": figures})
        found["gates"] = [
            asdict(gate)
            for gate in gates.check(found, gates.Limits(5, 50, {"model.half": 9}), found)
        ]
        page = html.page(found)
        for text in (report.terminal(found, Path("x")), report.markdown(found), page):
            text = " ".join(text.split())
            assert "PyTorch" not in text
            assert "time / reference&#39;s" in text or "time / reference's" in text
            assert "; the reference is model" in text
            assert "agrees with model on" in text
        assert "Speed against model" in page
        assert "the dashed line is model on the CPU with" in page
    assert html.headline(found)["name"] == "model.static"
    alone = document(ROWS[2:3])
    assert html.headline(alone) is None
    assert "PyTorch" not in html.page(alone)


def test_the_terminal_gets_at_most_100_columns_whatever_the_names(doc):
    text = report.terminal(doc, Path("runs/cat_dog-simple_cnn-1"))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "model.static" in text
    assert "0.14 (0.14-0.14)" in text
    assert "load: 0.10 before, 1.60 (up to 2.10) during, 1.90 after" in text
    assert "packages: numpy" in text
    long = [
        (f"{base}-with-a-name-that-goes-on@openvino:t16:b32", *rest) for base, *rest in ROWS[1:]
    ]
    slow = [(base, *rest[:-3], 4321.0, *rest[-2:]) for base, *rest in long]
    text = report.terminal(document((ROWS[0], *slow)), Path("runs/x"))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert ":t16:b32" in text  # what tells rows apart is not what is cut


def test_a_noisy_run_says_so_first(doc):
    noisy = {**doc, "noise": ["other processes took 1.5 of 2 processors while measuring"]}
    text = report.terminal(noisy, Path("runs/x"))
    assert text.startswith("NOISY RUN: other processes took 1.5 of 2 processors")
    assert "Repeat it on a quiet machine" in text
    assert "NOISY" not in report.terminal(doc, Path("runs/x"))
    assert "**Noisy run:**" in report.markdown(noisy)


def test_a_row_without_a_cold_start_says_why(doc):
    failed = {**doc, "no_cold_start": [{"row": "model", "reason": "model: no memory left"}]}
    assert "No cold start: model: no memory left" in report.markdown(failed)


def test_gates_are_told_with_their_rows(doc):
    gate = {"gate": "max-ratio", "row": "model", "limit": 0.2, "value": 0.4, "met": False}
    gated = {**doc, "gates": [{**gate, "says": "takes 0.4 times PyTorch's time, allowed 0.2"}]}
    assert "gate NOT MET model takes 0.4" in report.terminal(gated, Path("runs/x"))
    assert "**not met**" in report.markdown(gated)


def test_the_csv_has_a_line_per_row_and_no_empty_figures(doc):
    rows = list(csv.DictReader(io.StringIO(report.sheet(doc))))
    assert [row["name"] for row in rows] == [base for base, *_ in ROWS]
    static = rows[-1]
    given = doc["rows"][-1]
    assert float(static["ratio"]) == given["ratio"]["value"]
    assert float(static["p95_ms"]) == given["latency"]["p95_ms"]
    assert float(static["session_ms"]) == given["stages_ms"]["session"]
    assert float(static["agreement"]) == given["answers"]["agreement"]
    assert static["precision"] == given["precision"]
    assert all(static[name] for name in report.COLUMNS if name not in NOT_OF_THIS)
    assert "threads: 2" in static["card"]
    noisy = {**doc, "noise": ["the load average was 3.00 before the start"]}
    assert "load average was 3.00" in report.sheet(noisy)


def test_what_was_not_measured_is_a_dash_and_an_empty_cell(doc):
    bare = document()
    for row in bare["rows"]:
        row["cold"] = row["stages_ms"] = None
    bare["corruptions"] = None
    text = report.terminal(bare, Path("runs/x"))
    assert "fresh process" not in text
    assert "Corrupted" not in text
    rows = list(csv.DictReader(io.StringIO(report.sheet(bare))))
    assert rows[0]["first_answer_s"] == ""
    bare["rows"][2]["cold"] = doc["rows"][2]["cold"]
    lines = report.terminal(bare, Path("runs/x")).splitlines()
    assert any(line.startswith("model ") and line.rstrip().endswith("-") for line in lines)


def test_markdown_tables_are_well_formed(doc):
    text = report.markdown({**doc, "left_out": [{"row": "model@cuda", "reason": "no | driver"}]})
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = []
    for line in tables:
        if line.startswith("|---"):
            widths.append(line.count("|"))
    assert len(widths) == 5
    assert all(line.count("|") in widths for line in tables)
    assert "Left out: model@cuda" in text
    assert "Example 9000" in text
    assert "`catdog-edge bench --seconds 60`" in text


def test_every_report_says_in_how_many_passes_the_rows_were_opened(doc):
    several = copy.deepcopy(doc)
    several["settings"]["pass_starts"] = [0, 4, 8, 12, 16, 20]
    for made, told in ((doc, "24 rounds in 1 pass"), (several, "24 rounds in 6 passes")):
        once = "the rows were opened once" in report.markdown(made)
        assert once == (made is doc)
        for text in (report.markdown(made), report.terminal(made, Path("there"))):
            assert told in " ".join(text.split())
        terminal = " ".join(report.terminal(made, Path("there")).split())
        assert ("rows opened once" in terminal) == (made is doc)
        assert ("rows opened once" in report.sheet(made)) == (made is doc)


def test_originals_have_their_own_table(doc):
    figures = doc["corruptions"]["results"]["clean"]
    made = {"name": "originals.zip", "pictures": 100, "median_height": 375, "median_width": 499}
    text = report.terminal({**doc, "originals": {**made, "rows": figures}}, Path("runs/x"))
    assert "100 pictures of originals.zip, about 499x375" in text
    made["name"] = "pictures-of-" + "the-neighbourhood-" * 12
    text = report.terminal({**doc, "originals": {**made, "rows": figures}}, Path("runs/x"))
    assert max(map(len, text.splitlines())) <= words.WIDTH


def test_files_are_written_and_read_back(doc, tmp_path):
    report.write(doc, tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(doc))
    assert (tmp_path / "bench.csv").read_text().startswith("name,base,engine")
    assert (tmp_path / "bench.md").read_text().startswith("# Bench of cat_dog-simple_cnn-1")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0523, "0.052"), (0.523, "0.52"), (1.25, "1.25"), (12.34, "12.3")]
)
def test_figures_have_the_digits_that_count(value, text):
    assert words.figure(value) == text


def test_words():
    assert words.abbreviate("pytorch-channels-last", 12) == "pytor~s-last"
    assert words.abbreviate("pytorch-channels-last", 12, head=2) == "py~nels-last"
    assert words.p_value(0.0004) == "<0.001"
    assert words.p_value(0.001) == "0.001"
    assert words.p_value(0.9994) == "0.999"
    assert words.p_value(0.9996) == words.p_value(1.0) == "1"
    assert words.milliseconds(-0.08) == "-0.08"
    assert words.milliseconds(123.4) == "123"
    assert words.wrap("a " * 60 + "b")[0] == "a " * 49 + "a"


def test_the_documentation_names_every_key_and_only_options_that_exist(doc):
    import re

    from catdog_edge.cli.main import main

    root = ROOT
    text = "".join(
        (root / "docs" / f"{name}.md").read_text() for name in ("bench", "bench-json", "gates")
    )
    told = set(re.findall(r"`([a-z0-9_]+)`", text))
    row = doc["rows"][0]
    parts = [doc, row, row["latency"]["warm_up"], row["answers"]["calibration"][0]]
    parts += [doc[name] for name in ("model", "data", "settings", "environment", "quiet")]
    parts += [row[name] for name in ("ratio", "latency", "stages_ms", "cold", "answers")]
    for part in (*parts, doc["corruptions"]):
        assert set(part) <= told
    workflow = (root / "examples" / "github-actions-bench.yml").read_text()
    shown = (text + workflow).replace(
        "\n          --", " --"
    )  # the workflow's folded command in one line
    for command, expected in (("bench", "--max-ratio"), ("export", "--quantize")):
        known = {option for param in main.commands[command].params for option in param.opts}
        lines = re.findall(rf"catdog-edge {command}( [^#\n]*)", shown)
        used = {option for line in lines for option in re.findall(r"--[a-z-]+", line)}
        assert expected in used
        assert used <= known


@pytest.mark.parametrize(
    "names",
    [
        ["model", "pytorch-channels-last"],
        [f"catdog-edge_cnn-{what}-2026-static-float32" for what in ("photographs", "drawings-set")],
        [f"simple/model.{kind}@openvino" for kind in ("static", "dynamic")],
        [f"{'a' * 20}{number}{'z' * 20}" for number in range(12)],
        [f"{'a' * 30}{left}{'-' * 30}{right}{'z' * 30}" for left in "12" for right in "12"],
    ],
)
def test_names_that_are_cut_can_still_be_told_apart(names):
    for width in (8, 12, 20, 30):
        short = words.abbreviate_all([*names, names[0]], width)
        assert set(short) == set(names)
        assert len(set(short.values())) == len(names)
        assert max(map(len, short.values())) <= width
        for name in names:
            assert short[name] == name or len(name) > width


def test_a_call_of_several_frames_is_not_called_one_frame(doc):
    several = copy.deepcopy(doc)
    assert "Latency: a frame to its" in report.terminal(several, Path("x"))
    several["rows"][-1]["batch"] = 8
    assert "Latency: the frames of a call to their" in report.terminal(several, Path("x"))


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
