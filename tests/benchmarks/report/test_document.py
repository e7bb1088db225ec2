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

from support.models.bench_document import GPU_ROWS, ROWS, document

from benchmarks.report import document as report
from benchmarks.report import gates, html
from benchmarks.report import text as words

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
    found["environment"]["gpu"] |= {"memory_bytes": None, "used_bytes": None}
    text = " ".join(report.markdown(found).split())
    assert "Example H1, driver 580.1" in text
    assert "before the start 1 visible processes, busy 0%" in text


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
    assert "100 images of originals.zip, about 499x375" in text
    made["name"] = "pictures-of-" + "the-neighbourhood-" * 12
    text = report.terminal({**doc, "originals": {**made, "rows": figures}}, Path("runs/x"))
    assert max(map(len, text.splitlines())) <= words.WIDTH


def test_files_are_written_and_read_back(doc, tmp_path):
    report.write(doc, tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text()) == json.loads(json.dumps(doc))
    assert (tmp_path / "bench.csv").read_text().startswith("name,base,engine")
    assert (tmp_path / "bench.md").read_text().startswith("# Bench of cat_dog-simple_cnn-1")
    with pytest.raises(ValueError, match="JSON"):
        report.write({**doc, "quiet": float("nan")}, tmp_path)


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


def test_a_call_of_several_frames_is_not_called_one_frame(doc):
    several = copy.deepcopy(doc)
    assert "Latency: a frame to its" in report.terminal(several, Path("x"))
    several["rows"][-1]["batch"] = 8
    assert "Latency: the frames of a call to their" in report.terminal(several, Path("x"))
