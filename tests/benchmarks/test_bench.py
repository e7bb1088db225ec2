"""`catdog-edge bench` from end to end: what a person types and what they get."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import time
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnx", reason="needs onnx (the [train] extra)")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs a flavour of the package")

from support.commands.bench_command import QUICK, bench, error_line
from support.models.bench_document import document
from support.models.bench_run import make_run, scramble

from benchmarks import bench_rows
from benchmarks.measure import gpu, latency
from catdog_edge.errors import ModelError
from catdog_edge.images.preprocess import preprocess
from catdog_edge.runtime import session
from catdog_edge.runtime.providers import selection
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from exporters.graph.add_heat_map import add_heat_map

pytestmark = [pytest.mark.train, pytest.mark.slow]


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    """One bench with everything on: the result of the command and the folder of the run."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(home / "runs", folder / "runs")
    originals = tmp_path_factory.mktemp("originals") / "big"
    rng = np.random.default_rng(5)
    for label, level in (("bright", 190), ("dark", 60)):
        (originals / label).mkdir(parents=True)
        for number in range(3):
            picture = rng.normal(level, 40, (375, 500, 3)).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(originals / label / f"{number}.png"), picture)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(selection, "accelerators", list)
        result = bench(
            "--seconds", 2, "--cold-starts", 1, "--corruptions", 4, "--originals", originals,
            "--max-drop", 50, "--min-agreement", 50, "--threads", 1,
        )  # fmt: skip
    return result, folder / "runs" / "lamps-1"


def test_the_whole_bench_writes_every_file_and_fits_the_terminal(whole):
    result, folder = whole
    assert result.exit_code == 0, result.output
    for name in ("bench.json", "bench.csv", "bench.md", "bench.html", "bench-flips.csv"):
        assert (folder / name).stat().st_size > 0
    lines = result.stdout.splitlines()[:-1]  # the last one names a file, which is not cut
    assert max(len(line) for line in lines) <= 100
    for row in ("pytorch", "pytorch-channels-last", "model", "model.dynamic"):
        assert f"\n{row} " in result.stdout
    assert "lamps-1" in result.stderr
    assert "12 test images" in result.stderr or "test images" in result.stderr


def test_the_document_holds_what_was_measured(whole):
    _, folder = whole
    doc = json.loads((folder / "bench.json").read_text())
    rows = {row["name"]: row for row in doc["rows"]}
    assert list(rows) == ["pytorch", "pytorch-channels-last", "model", "model.dynamic"]
    model = rows["model"]
    assert model["file"] == "model.onnx"
    assert model["size_bytes"] == (folder / "model.onnx").stat().st_size
    assert model["ratio"]["to"] == "pytorch"
    assert rows["pytorch"]["ratio"]["value"] == 1.0
    assert len(model["latency"]["quantiles_ms"]) == 101
    assert len(model["latency"]["rounds_ms"]) == doc["settings"]["rounds"]
    assert model["stages_ms"]["session"] > model["stages_ms"]["resize"] > 0
    assert model["answers"]["agreement"] == 1.0
    assert model["answers"]["max_difference"] < 1e-4
    assert model["answers"]["accuracy"] > 0.8  # bright and dark are easy
    assert rows["model.dynamic"]["precision"] == "int8-dynamic"
    assert doc["data"]["pictures"] == sum(doc["data"]["counts"].values())
    assert doc["environment"]["providers_obtained"] == ["cpu"]
    assert doc["corruptions"]["pictures"] == 4
    assert set(doc["corruptions"]["results"]) >= {"clean", "dark", "jpeg", "rotation"}
    assert doc["originals"]["pictures"] == 6
    assert (doc["originals"]["median_height"], doc["originals"]["median_width"]) == (375, 500)
    assert [gate["met"] for gate in doc["gates"]] == [True] * 6


def test_a_fresh_process_of_an_exported_file_has_no_torch_in_it(whole):
    _, folder = whole
    doc = json.loads((folder / "bench.json").read_text())
    cold = {row["name"]: row["cold"] for row in doc["rows"]}
    assert cold["pytorch"]["torch_loaded"]
    assert not cold["model"]["torch_loaded"]
    assert not cold["model.dynamic"]["torch_loaded"]
    assert cold["model"]["peak_rss_bytes"] < cold["pytorch"]["peak_rss_bytes"] / 2
    for one in cold.values():
        assert one["first_answer_s"] > one["load_s"] > 0
        assert one["cpu_ms"] > 0
        assert one["peak_rss_bytes"] >= one["rss_bytes"] > 10_000_000


def test_the_invented_document_of_the_other_tests_has_the_keys_of_a_real_one(whole):
    def keys(value, path=""):
        if isinstance(value, dict):
            inner = set()
            for key, entry in value.items():
                inner |= keys(entry, f"{path}.{key}")
            return inner or {path}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return keys(value[0], f"{path}[]")
        return {path}

    def comparable(doc):
        free = (".environment.packages", ".environment.variables", ".model.trained_on",
                ".data.counts", ".originals", ".flips.by_pictures.originals", ".gates",
                ".corruptions.results", ".classes.rows")  # fmt: skip
        return {key for key in keys(doc) if not key.startswith(free)}

    _, folder = whole
    real = json.loads((folder / "bench.json").read_text())
    invented = json.loads(json.dumps(document()))
    assert comparable(invented) == comparable(real)


def test_the_page_and_the_csv_tell_of_every_row(whole):
    _, folder = whole
    page = (folder / "bench.html").read_text()
    with (folder / "bench.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4
    assert all(row["name"] in page for row in rows)


def test_json_on_stdout_is_the_document(run, monkeypatch):
    split, seconds = latency.stages, []
    monkeypatch.setattr(latency, "stages", lambda *a: seconds.append(a[2]) or split(*a))
    result = bench(*QUICK, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((run.folder / "bench.json").read_text())
    assert seconds == [1 / 20] * 4  # of the budget, for the stages of each row


def test_batches_have_rows_of_their_own_and_their_own_reference(run, tmp_path):
    (run.folder / "model.dynamic.onnx").unlink()
    out = tmp_path / "elsewhere"
    torch.set_num_threads(2)
    result = bench(*QUICK, "--batch", "1,4", "--out", out)
    assert result.exit_code == 0, result.output
    assert torch.get_num_threads() == 2  # the rows ran with one; what comes after them does not
    doc = json.loads((out / "bench.json").read_text())
    rows = {row["name"]: row for row in doc["rows"]}
    assert list(rows)[:3] == ["pytorch", "pytorch-channels-last", "model"]
    assert list(rows)[3:] == ["pytorch:b4", "pytorch-channels-last:b4", "model:b4"]
    assert rows["model:b4"]["ratio"]["to"] == "pytorch:b4"
    assert (rows["model:b4"]["threads"], rows["model:b4"]["batch"]) == (1, 4)
    assert rows["model:b4"]["stages_ms"] is None
    one, four = rows["model"]["latency"], rows["model:b4"]["latency"]
    assert four["p50_ms"] > one["p50_ms"]  # four pictures are more work than one
    assert not (run.folder / "bench.json").exists()


def test_scrambled_weights_are_caught_by_name_and_the_reports_stay(run):
    add_heat_map(scramble(run))
    result = bench(*QUICK, "--max-drop", 5, "--min-agreement", 90)
    line = error_line(result, code=3)
    assert "model.scrambled loses" in line
    assert "model.scrambled agrees" in line
    assert "model.dynamic" not in line
    doc = json.loads((run.folder / "bench.json").read_text())
    assert {gate["row"] for gate in doc["gates"] if not gate["met"]} == {"model.scrambled"}
    with (run.folder / "bench-flips.csv").open() as stream:
        flips = [row for row in csv.DictReader(stream) if row["row"] == "model.scrambled"]
    answers = next(row for row in doc["rows"] if row["name"] == "model.scrambled")["answers"]
    assert len(flips) == answers["flips"] > 0
    assert {flip["pictures"] for flip in flips} == {"test"}
    page = (run.folder / "bench.html").read_text()
    assert page.count("data:image/jpeg") == len({flip["file"] for flip in flips})
    assert page.count("Red: where model.scrambled looked") == page.count("data:image/jpeg")
    assert "gates not met" in page


def test_disagreements_on_spoiled_and_original_pictures_are_listed_and_shown(run, tmp_path):
    scramble(run)
    originals = tmp_path / "big"
    for label, level in (("bright", 190), ("dark", 60)):
        (originals / label).mkdir(parents=True)
        for number in range(3):
            picture = np.random.default_rng(number).normal(level, 40, (90, 120, 3))
            cv2.imwrite(str(originals / label / f"{number}.png"), picture.clip(0, 255))
    result = bench(*QUICK[:4], "--corruptions", 4, "--threads", 1, "--originals", originals)
    assert result.exit_code == 0, result.output
    doc = json.loads((run.folder / "bench.json").read_text())
    spoiled = doc["corruptions"]["results"]
    wanted = {name: sum(row["flips"] for row in rows.values()) for name, rows in spoiled.items()}
    del wanted["clean"]  # a part of the test split as it is
    wanted["originals"] = sum(row["flips"] for row in doc["originals"]["rows"].values())
    wanted["test"] = doc["flips"]["count"]
    assert sum(count > 0 for count in wanted.values()) > 4, "scrambled weights should disagree"
    counts = {name: kind["disagreements"] for name, kind in doc["flips"]["by_pictures"].items()}
    assert counts == wanted
    with (run.folder / "bench-flips.csv").open() as stream:
        flips = list(csv.DictReader(stream))
    assert Counter(flip["pictures"] for flip in flips) == {k: n for k, n in wanted.items() if n}
    assert {flip["file"] for flip in flips if flip["pictures"] == "originals"} <= {
        f"{label}/{number}.png" for label in ("bright", "dark") for number in range(3)
    }
    page = (run.folder / "bench.html").read_text()
    pictures = {(flip["pictures"], flip["file"]) for flip in flips}
    assert page.count("data:image/jpeg") == len(pictures)
    # A spoiled picture is shown as it was seen, so no two of one file look alike.
    shown = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(set(shown)) == len(shown)


def test_a_busy_loop_in_the_preprocessing_is_caught(run, monkeypatch):
    (run.folder / "model.dynamic.onnx").unlink()
    good = bench(*QUICK[2:], "--seconds", 2)
    assert good.exit_code == 0, good.output
    baseline = shutil.copy(run.folder / "bench.json", run.folder / "good.json")

    def busy(frame, steps):
        end = time.perf_counter() + 0.04
        while time.perf_counter() < end:
            pass
        return preprocess(frame, steps)

    monkeypatch.setattr(session, "preprocess", busy)
    monkeypatch.setattr(bench_rows, "preprocess", busy)
    monkeypatch.setattr(latency, "preprocess", busy)
    result = bench(*QUICK[2:], "--seconds", 2, "--baseline", baseline)
    line = error_line(result, code=3)
    assert "model takes" in line
    assert "in the baseline" in line
    assert "to resize a frame" in line
    assert "(--baseline)" in line


def test_a_baseline_is_not_overwritten_by_what_is_held_against_it(run):
    baseline = run.folder / "bench.json"
    baseline.write_text(json.dumps(document()))
    before = baseline.read_bytes()
    line = error_line(bench(*QUICK, "--baseline", baseline))
    assert "--out" in line
    assert baseline.read_bytes() == before


def test_a_baseline_of_another_machine_is_refused_before_anything_is_measured(run):
    assert bench(*QUICK).exit_code == 0
    path = run.folder / "old.json"
    doc = json.loads((run.folder / "bench.json").read_text())
    doc["environment"]["processor"] = "Another 3000"
    path.write_text(json.dumps(doc))
    (run.folder / "bench.json").unlink()
    line = error_line(bench(*QUICK, "--baseline", path))
    assert "another machine: Another 3000" in line
    assert not (run.folder / "bench.json").exists()
    forced = bench(*QUICK, "--baseline", path, "--force", "--tolerance", 100_000)
    assert forced.exit_code == 0, forced.output


def test_one_more_file_gets_a_row(run, tmp_path):
    extra = shutil.copy(run.folder / "model.onnx", tmp_path / "other.onnx")
    result = bench(*QUICK, "--also", extra, "--max-ratio", "other=1000")
    assert result.exit_code == 0, result.output
    assert "\nother " in result.stdout


@pytest.mark.cuda
def test_a_bench_on_a_gpu_compares_with_pytorch_on_it(run):
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    result = bench(
        *QUICK[:2], "--corruptions", 2, "--cold-starts", 1, "--threads", 1, "--batch", "1,64",
        "--provider", "cpu", "--provider", "cuda",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    doc = json.loads((run.folder / "bench.json").read_text())
    rows = {row["name"]: row for row in doc["rows"]}
    assert rows["model@cuda"]["ratio"]["to"] == "pytorch@cuda"
    assert rows["model@cuda:b64"]["ratio"]["to"] == "pytorch@cuda:b64"
    assert "model:b64" not in rows
    assert doc["answers_to"] == "pytorch"
    for base, most in (("pytorch@cuda", 0.01), ("pytorch-half@cuda", 0.05), ("model@cuda", 0.01)):
        assert rows[base]["answers"]["max_difference"] < most
    assert doc["no_cold_start"] == []
    assert doc["environment"]["gpu"]["name"] == torch.cuda.get_device_name(0)
    if doc["environment"]["gpu"]["used_bytes"] is not None:
        shared = doc["environment"]["gpu"]["busy"] or set(gpu.read().processes) - {os.getpid()}
        assert shared or rows["model@cuda"]["cold"]["gpu_bytes"] > 10_000_000
        assert doc["quiet"]["gpu"]["readings"] >= 1
    assert rows["model"]["cold"]["gpu_bytes"] is None


@pytest.mark.cuda
def test_a_batch_that_does_not_fit_the_gpu_is_left_out_with_its_reason(run):
    row = bench_rows.BenchRow("pytorch@cuda", "pytorch", str(run.weights), 1, 4096, provider="cuda")
    runner = bench_rows.open_row(row)
    pixels = np.zeros((4096, *runner.spec.size, 3), np.uint8)
    torch.cuda.empty_cache()  # what earlier tests gave back would serve
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(ModelError, match="the GPU's memory is too small for 4096 images"):
            runner.infer(pixels)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert runner.infer(pixels[:2]).shape == (2, 2)


def test_weights_that_went_astray_are_one_line_before_anything_is_timed(run):
    network, spec = load_checkpoint(run.weights)
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    save_checkpoint(run.weights, network.state_dict(), spec)
    line = error_line(bench(*QUICK))
    assert "pytorch returns values that are not numbers" in line


def test_the_folder_of_a_run_is_as_good_a_name_as_its_weights(run):
    result = bench(*QUICK, "--weights", run.folder, "--provider", "cpu", "--provider", "cpu")
    assert result.exit_code == 0, result.output
    assert (run.folder / "bench.json").is_file()


def test_the_card_names_every_count_of_threads(run, tmp_path):
    result = bench(*QUICK[:6], "--threads", "1,2")
    assert result.exit_code == 0, result.output
    assert "threads: 1 and 2, from --threads" in result.stdout
    assert "1 and 2 threads (--threads)" in result.stderr


def test_a_model_that_knows_what_it_does_not_know_is_measured_like_any_other(
    tmp_path, easy_set, monkeypatch
):
    run = make_run(tmp_path / "runs" / "lamps-2", easy_set, others=True)
    monkeypatch.chdir(tmp_path)
    result = bench(*QUICK[:4], "--corruptions", 2, "--cold-starts", 1, "--threads", 1)
    assert result.exit_code == 0, result.output
    doc = json.loads((run.folder / "bench.json").read_text())
    rows = {row["base"]: row for row in doc["rows"]}
    assert rows["model"]["answers"]["max_difference"] < 1e-4
    assert rows["pytorch"]["answers"]["accuracy"] > 0.9
    assert rows["pytorch"]["cold"]["runs"] == 1


def test_with_300_classes_the_reports_stay_small(tmp_path, monkeypatch):
    labels = [f"breed-{number:03}" for number in range(300)]
    rng = np.random.default_rng(0)
    for split, count in (("train", 1), ("val", 1), ("test", 2)):
        for label in labels:
            (tmp_path / "many" / split / label).mkdir(parents=True)
            for number in range(count):
                picture = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                cv2.imwrite(str(tmp_path / "many" / split / label / f"{number}.png"), picture)
    run = make_run(tmp_path / "runs" / "many-1", tmp_path / "many")
    monkeypatch.chdir(tmp_path)
    result = bench(*QUICK[:4], "--corruptions", 40, "--threads", 1)
    assert result.exit_code == 0, result.output
    doc = json.loads((run.folder / "bench.json").read_text())
    assert sum(count for _, _, count in doc["classes"]["confusion"]) == 600
    assert len(doc["classes"]["rows"]["model"]["recall"]) == 300
    sizes = {file.suffix: file.stat().st_size for file in run.folder.glob("bench.*")}
    assert sizes[".json"] < 300_000
    assert sizes[".md"] < 20_000
    lines = result.stdout.splitlines()[:-1]  # the last one names a file, which is not cut
    assert max(len(line) for line in lines) <= 100
    assert "of 300 classes" in (run.folder / "bench.html").read_text()
