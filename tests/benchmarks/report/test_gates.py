"""Gates: what passes, what does not, and what is said about it."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.models.bench_document import GPU_ROWS, ROWS, document
from support.models.simulated_answers import broken, faithful, simulate

from benchmarks.measure.parity import row_figures
from benchmarks.report.gates import (
    Limits,
    advice,
    check,
    check_comparable,
    enforce,
    parse_max_ratio,
    read_baseline,
)
from catdog_edge.errors import CatdogError, GateError
from exporters.checks.comparison import compare_answers


@pytest.fixture(scope="module")
def good():
    return document()


def _row(doc, name):
    return next(row for row in doc["rows"] if row["name"] == name)


def _broken(gates):
    return [(gate.gate, gate.row) for gate in gates if not gate.met]


def test_without_limits_there_are_no_gates(good):
    assert check(good, Limits()) == []
    enforce([])


def test_accuracy_and_agreement_are_held_against_pytorch_for_every_other_row(good):
    gates = check(good, Limits(max_drop=1.0, min_agreement=99.0))
    assert len(gates) == 2 * (len(good["rows"]) - 1)  # PyTorch is not held against itself
    assert _broken(gates) == [("max-drop", "model.static"), ("min-agreement", "model.static")]
    with pytest.raises(GateError) as caught:
        enforce(gates)
    assert caught.value.exit_code == 3
    assert "model.static" in str(caught.value)
    assert "model.dynamic" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_limit_that_is_just_kept_is_kept(good):
    drop = -100 * _row(good, "model.static")["answers"]["difference"]
    agreement = 100 * _row(good, "model.static")["answers"]["agreement"]
    assert _broken(check(good, Limits(max_drop=drop, min_agreement=agreement))) == []
    assert _broken(check(good, Limits(max_drop=drop - 0.01))) == [("max-drop", "model.static")]


def one_row(reference, candidate, truth):
    """A document whose one row beside PyTorch is an int8 file with these answers."""
    answers = row_figures(candidate, truth, compare_answers(reference, candidate, truth))
    row = {"name": "model.static", "base": "model.static", "ratio": {}, "is_reference": False}
    return {"rows": [{**row, "precision": "int8-static", "answers": answers}], "left_out": []}


@pytest.mark.parametrize(
    ("images", "trials", "by_estimate"),
    [(50, 100, (0.7, 0.95)), (100, 100, (0.6, 0.9)), (1000, 60, (0.85, 1)), (10_000, 8, (1, 1))],
)
def test_how_often_a_faithful_row_is_kept_and_a_broken_one(images, trials, by_estimate):
    """As tests/exporters/checks/test_acceptance.py, without further images to judge by."""
    kept = {}
    for file in (faithful, broken):
        rng = np.random.default_rng(images)
        documents = [one_row(*simulate(rng, images, file)) for _ in range(trials)]
        for strict in (False, True):
            met = [check(one, Limits(0.5, strict=strict))[0].met for one in documents]
            kept[file.__name__, strict] = np.mean(met)
    assert kept["faithful", False] >= 0.95
    assert kept["broken", False] <= kept["broken", True] + 0.05
    low, high = by_estimate
    assert low <= kept["faithful", True] <= high
    assert kept["broken", True] <= (0.35 if images < 100 else 0.2)


def test_what_few_images_cannot_tell_is_said():
    truth = np.zeros(98, np.int64)
    reference = np.tile(np.float32([[0.9, 0.1]]), (98, 1))
    unsure = reference.copy()
    unsure[0] = 0.51, 0.49
    flipped = reference.copy()
    flipped[0] = 0.49, 0.51
    (gate,) = check(one_row(unsure, flipped, truth), Limits(0.5))
    assert gate.met
    assert gate.says == (
        "loses 1.02 points of accuracy against PyTorch, allowed 0.5; not statistically "
        "significant on 98 images, and no other check fails"
    )
    assert not check(one_row(unsure, flipped, truth), Limits(0.5, strict=True))[0].met
    flipped[0] = 1e-4, 0.9999
    (gate,) = check(one_row(unsure, flipped, truth), Limits(0.5))
    assert not gate.met
    assert gate.says.endswith("but the logits differ")


def test_one_line_says_which_file_to_ship(good, tmp_path):
    found = copy.deepcopy(good)
    names = {row["base"]: row["file"] for row in found["rows"] if row["engine"] == "onnxruntime"}
    for base, file in names.items():
        (tmp_path / file).write_text(base)  # whose digest the document has
    lossy = _row(found, "model.static")  # it loses more than half a point
    assert check(found, Limits(0.5))[-1].row == "model.static"
    pytorch, dynamic = _row(found, "pytorch"), _row(found, "model.dynamic")
    dynamic["ratio"]["value"], pytorch["size_bytes"], dynamic["size_bytes"] = 0.4, 4_000, 1_000
    dynamic["answers"]["agreement"] = 0.9983
    said = "2.5 times as fast as PyTorch, 4.0 times smaller, 99.83 % the same answers; ship"
    _row(found, "model")["ratio"]["value"] = 0.39  # as fast, and larger
    assert advice(found, tmp_path) == f"{said} {tmp_path}/model.dynamic.onnx"
    lossy["answers"] |= {"difference": 0.0, "difference_high": 0.01}
    assert advice(found, tmp_path).endswith("model.static.onnx")
    found["noise"] = ["other processes took 1.5 of 2 processors while measuring"]
    assert "as fast as PyTorch (NOISY RUN: measure again" in advice(found, tmp_path)
    # The row is that of another file of this name, which --also named.
    (tmp_path / "model.static.onnx").write_text("of this folder")
    assert advice(found, tmp_path).endswith("model.dynamic.onnx")
    for file in names.values():
        (tmp_path / file).unlink()
    assert advice(found, tmp_path) == "no exported file on the CPU answers as well as PyTorch"


def test_an_imported_file_is_shipped_itself_where_no_other_is_as_good(tmp_path):
    found = document(ROWS[2:])
    for row in found["rows"]:
        (tmp_path / row["file"]).write_text(row["base"])
    _row(found, "model.static")["answers"] |= {"difference": 0.0, "difference_high": 0.01}
    assert "times as fast as model, 3.8 times smaller" in advice(found, tmp_path)
    for row in found["rows"][1:]:
        row["ratio"]["value"] = 2.0
    found["noise"] = ["a neighbour"]
    assert advice(found, tmp_path) == (
        "no other file beside it is as fast and as good (NOISY RUN: measure again before you "
        f"quote it); ship {tmp_path}/model.onnx"
    )


def test_a_row_that_gains_accuracy_keeps_a_limit_of_zero(good):
    better = copy.deepcopy(good)
    for row in better["rows"]:
        row["answers"]["difference"] = 0.0 if row["is_reference"] else 0.01
    gates = check(better, Limits(max_drop=0.0))
    assert _broken(gates) == []
    assert [gate.row for gate in gates] == [row["name"] for row in good["rows"][1:]]
    assert not any("-0.00" in gate.says for gate in check(good, Limits(max_drop=0.5)))


def test_the_time_of_a_named_row(good):
    ratio = _row(good, "model.static")["ratio"]["value"]
    assert _broken(check(good, Limits(max_ratio={"model.static": ratio * 1.01}))) == []
    found = check(good, Limits(max_ratio={"model.static": ratio * 0.9, "model": 1.0}))
    assert _broken(found) == [("max-ratio", "model.static")]
    with pytest.raises(GateError, match=r"1 of 2 gates not met: model\.static takes 0\.1"):
        enforce(found)


def test_the_row_that_a_time_is_relative_to_is_named():
    found = document(GPU_ROWS)
    limits = Limits(max_ratio={"model": 9.0, "model@cuda": 9.0})
    said = {gate.row: gate.says for gate in check(found, limits)}
    assert "times PyTorch's time, allowed 9" in said["model"]
    assert "times pytorch@cuda's time, allowed 9" in said["model@cuda"]
    for gate in check(found, Limits(), baseline=found):
        if gate.gate == "baseline-ratio":
            to = "pytorch@cuda" if "@cuda" in gate.row else "PyTorch"
            assert f"times {to}'s time, in the baseline" in gate.says


def test_a_named_row_that_was_left_out_is_not_met(good):
    left = {**good, "left_out": [{"row": "model@cuda", "reason": "no driver"}]}
    found = check(left, Limits(max_ratio={"model@cuda": 1.0}))
    assert _broken(found) == [("max-ratio", "model@cuda")]
    assert "no driver" in found[0].says


def test_rows_on_a_gpu_have_gates_and_another_gpu_is_another_machine(tmp_path):
    doc = document(GPU_ROWS)
    slower = copy.deepcopy(doc)
    for end in ("value", "low", "high"):
        _row(slower, "model@cuda")["ratio"][end] *= 1.5
    gates = check(slower, Limits(max_drop=1.0, max_ratio={"model@cuda": 0.3}), doc)
    assert {"pytorch@cuda", "model@cuda"} <= {gate.row for gate in gates if gate.gate == "max-drop"}
    assert _broken(gates) == [("max-ratio", "model@cuda"), ("baseline-ratio", "model@cuda")]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(doc))
    check_comparable(read_baseline(path), path, doc)
    other = copy.deepcopy(doc)
    other["environment"]["gpu"]["name"] = "Example A2"
    with pytest.raises(
        CatdogError, match=r"another machine: its GPU is Example H1, here Example A2"
    ):
        check_comparable(doc, path, other)
    without = copy.deepcopy(doc)  # its PyTorch had no CUDA
    _row(without, "model@cuda")["ratio"]["to"] = "pytorch"
    with pytest.raises(
        CatdogError, match="timed model@cuda against pytorch, here it is against pytorch@cuda"
    ):
        check_comparable(without, path, doc)
    on_cpu = document()  # only the rows on the GPU are missing then, and the gates say so
    del on_cpu["environment"]["gpu"]
    check_comparable(doc, path, on_cpu)
    missing = [("baseline-row", "model@cuda")]
    assert _broken(check(on_cpu, Limits(tolerance=50), doc)) == missing


def test_a_run_is_as_good_as_itself(good):
    gates = check(good, Limits(), baseline=good)
    assert len(gates) == 4 * len(good["rows"])
    assert _broken(gates) == []


def test_a_slower_row_is_caught_only_beyond_tolerance_and_uncertainty(good):
    slower = copy.deepcopy(good)
    ratio = _row(slower, "model.static")["ratio"]
    for end in ("value", "low", "high"):
        ratio[end] *= 1.3
    assert _broken(check(slower, Limits(), good)) == [("baseline-ratio", "model.static")]
    assert _broken(check(slower, Limits(tolerance=40.0), good)) == []
    unsure = copy.deepcopy(slower)  # as slow, but so noisy that it may be chance
    _row(unsure, "model.static")["ratio"]["low"] = (
        _row(good, "model.static")["ratio"]["high"] * 0.99
    )
    assert _broken(check(unsure, Limits(), good)) == []


def test_a_resize_that_became_slow_is_caught_though_pytorch_pays_for_it_too(good):
    """Two milliseconds in every row hardly move the ratios of slow ones."""
    slower = copy.deepcopy(good)
    for row in slower["rows"]:
        row["stages_ms"]["resize"] += 2.0
    broken = _broken(check(slower, Limits(), good))
    assert broken == [("baseline-resize", row["name"]) for row in good["rows"]]
    assert _broken(check(slower, Limits(tolerance=100_000.0), good)) == []
    twice = copy.deepcopy(good)
    for row in twice["rows"]:
        row["stages_ms"]["resize"] *= 2
    assert len(_broken(check(twice, Limits(tolerance=90.0), good))) == len(good["rows"])
    assert _broken(check(twice, Limits(tolerance=110.0), good)) == []
    other_machine_state = copy.deepcopy(good)  # all of it at half the speed
    for row in other_machine_state["rows"]:
        row["stages_ms"] = {name: 2 * value for name, value in row["stages_ms"].items()}
    assert _broken(check(other_machine_state, Limits(), good)) == []
    without = copy.deepcopy(good)
    for row in without["rows"]:
        row["stages_ms"] = None  # of a batch above 1
    assert "baseline-resize" not in {gate.gate for gate in check(without, Limits(), good)}


def test_a_comparison_with_a_noisy_run_says_so(good):
    noisy = {**good, "noise": ["other processes took 1.5 of 2 processors while measuring"]}
    quiet_says = [gate.says for gate in check(good, Limits(), good)]
    assert not any("noisy" in says for says in quiet_says)
    timed = ("baseline-ratio", "baseline-resize")
    for gates, words in (
        (check(good, Limits(), noisy), "the baseline was noisy"),
        (check(noisy, Limits(), good), "this run is noisy"),
    ):
        said = {gate.gate for gate in gates if words in gate.says}
        assert said == set(timed)
        assert all(words in gate.says for gate in gates if gate.gate in timed)


def test_size_accuracy_and_missing_rows_are_held_against_the_baseline(good):
    worse = copy.deepcopy(good)
    _row(worse, "model")["size_bytes"] = int(_row(good, "model")["size_bytes"] * 1.2)
    _row(worse, "model.half")["answers"]["accuracy"] -= 0.006
    worse["rows"] = [row for row in worse["rows"] if row["name"] not in ("model.dynamic",)]
    assert _broken(check(worse, Limits(), good)) == [
        ("baseline-size", "model"),
        ("baseline-row", "model.dynamic"),
        ("baseline-accuracy", "model.half"),
    ]
    found = check(worse, Limits(max_drop=1.0), good)  # a limit of one's own wins
    assert ("baseline-accuracy", "model.half") not in _broken(found)


def test_rows_of_pytorch_may_come_and_go(good):
    fewer = copy.deepcopy(good)
    fewer["rows"] = [row for row in fewer["rows"] if row["name"] != "pytorch-channels-last"]
    assert _broken(check(fewer, Limits(), good)) == []


def _comparable(baseline, doc, tmp_path):
    check_comparable(baseline, tmp_path / "bench.json", doc)


def test_a_baseline_of_the_same_machine_model_and_data_is_taken(good, tmp_path):
    other_weights = copy.deepcopy(good)
    other_weights["model"]["temperature"] = 3.0
    _comparable(good, other_weights, tmp_path)


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        ("environment", "processor", "Example 1", "another machine"),
        ("environment", "processors_usable", 64, "another machine"),
        ("environment", "architecture", "aarch64", "another machine"),
        ("environment", "flags", ["avx2"], "another machine"),
        ("environment", "quota", 0.5, "cgroup quota 0.5"),
        ("model", "architecture", "resnet18", "another model: its architecture is resnet18"),
        ("model", "labels", ["dog", "cat"], "its labels is dog, cat"),
        ("data", "digest", "f" * 32, "other test images"),
    ],
)
def test_any_other_baseline_is_refused_with_the_reason(part, name, value, words, good, tmp_path):
    other = copy.deepcopy(good)
    other[part][name] = value
    with pytest.raises(CatdogError, match=words) as caught:
        _comparable(other, good, tmp_path)
    assert "--force" in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_baseline_of_another_pytorch_is_refused(good, tmp_path):
    other = copy.deepcopy(good)
    other["environment"]["packages"]["torch"] = "2.0.0"
    with pytest.raises(CatdogError, match=r"against PyTorch 2\.0\.0, here it is 2\.14") as caught:
        _comparable(other, good, tmp_path)
    assert "--force" in str(caught.value)
    newer_runtime = copy.deepcopy(good)  # what a gate is there to judge
    newer_runtime["environment"]["packages"]["onnxruntime"] = "1.0.0"
    _comparable(newer_runtime, good, tmp_path)


def test_a_baseline_whose_row_is_another_model_is_refused(good, tmp_path):
    other = copy.deepcopy(good)
    _row(other, "model.dynamic")["architecture"] = "resnet18"
    with pytest.raises(CatdogError, match=r"its row model\.dynamic is resnet18, here") as caught:
        _comparable(other, good, tmp_path)
    assert "--force" in str(caught.value)


def test_a_baseline_that_lacks_something_is_damaged(good, tmp_path):
    other = copy.deepcopy(good)
    del other["data"]["digest"]
    with pytest.raises(CatdogError, match="damaged"):
        _comparable(other, good, tmp_path)


@pytest.mark.parametrize("part", ["environment", "model", "data"])
def test_a_baseline_with_text_for_a_table_is_damaged(part, good, tmp_path):
    other = copy.deepcopy(good)
    other[part] = "x"
    with pytest.raises(CatdogError, match="is damaged"):
        _comparable(other, good, tmp_path)


def test_a_baseline_with_other_threads_is_refused(good, tmp_path):
    other = copy.deepcopy(good)
    other["rows"][2]["threads"] = 7
    with pytest.raises(CatdogError, match="with 7 threads, batch 1, here with 2") as caught:
        _comparable(other, good, tmp_path)
    assert "--force" in str(caught.value)


@pytest.mark.parametrize(
    "harm", ["no rows", "empty", "no ratio", "no number", "not finite", "huge", "no accuracy"]
)
def test_a_baseline_is_looked_through_when_it_is_read(harm, good, tmp_path):
    other = copy.deepcopy(good)
    row = other["rows"][2]
    if harm == "no rows":
        del other["rows"]
    elif harm == "empty":
        other["rows"] = []
    elif harm == "no ratio":
        del row["ratio"]
    elif harm == "no accuracy":
        del row["answers"]["accuracy"]
    else:
        row["ratio"]["high"] = {"no number": "1.2", "not finite": float("inf"), "huge": 10**400}[
            harm
        ]
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(other))
    with pytest.raises(CatdogError, match="is damaged"):
        read_baseline(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
        ("[]", "not a bench.json"),
        ('{"kind": "something else"}', "not a bench.json"),
        ('{"kind": "catdog-edge bench", "schema": 99}', "schema 99"),
    ],
)
def test_files_that_are_no_baseline(content, words, tmp_path):
    path = tmp_path / "bench.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CatdogError, match=words) as caught:
        read_baseline(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_baseline_is_read_back(good, tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(good))
    assert read_baseline(path)["rows"][0]["name"] == "pytorch"


def test_pairs_of_row_and_ratio():
    assert parse_max_ratio(["model.static=0.4", "model:t1=2"]) == {
        "model.static": 0.4,
        "model:t1": 2,
    }
    for wrong in (
        "model",
        "=0.5",
        "model=",
        "model=fast",
        "model=0",
        "model=-1",
        "model=nan",
        "model=inf",
    ):
        with pytest.raises(ValueError, match="ROW=X"):
            parse_max_ratio([wrong])


def test_two_limits_for_one_row_are_one_too_many():
    with pytest.raises(ValueError, match="second limit for model"):
        parse_max_ratio(["model=0.1", "model=99"])


def test_a_baseline_whose_rows_have_other_suffixes_is_refused_not_missed(good, tmp_path):
    several = copy.deepcopy(good)
    for row in several["rows"]:
        row["name"] += ":t1"
    with pytest.raises(CatdogError, match=r"has the row model \(.*here it is: model:t1; give the"):
        _comparable(good, several, tmp_path)
