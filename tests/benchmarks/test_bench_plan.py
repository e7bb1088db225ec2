"""What a bench refuses before anything is measured, and the rows that it plans."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnx", reason="needs onnx (the [train] extra)")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")
pytest.importorskip("onnxruntime", reason="needs a flavour of the package")

from support.commands.bench_command import QUICK, bench, error_line

from benchmarks import bench_rows
from benchmarks.bench_plan import BenchOptions, plan_bench
from catdog_edge.cli import options
from catdog_edge.errors import ProviderError
from catdog_edge.runtime import classifier
from catdog_edge.runtime.model_file import read_spec
from catdog_edge.runtime.providers import selection
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from exporters.formats.torch_export import export_onnx
from exporters.graph.onnx_file import read_model, write_model

pytestmark = [pytest.mark.train, pytest.mark.slow]


def test_a_run_without_an_export(run):
    for file in run.folder.glob("*.onnx"):
        file.unlink()
    line = error_line(bench(*QUICK))
    assert "no exported file" in line
    assert "catdog-edge export" in line


def test_no_run_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "catdog-edge train" in error_line(bench())


def test_data_with_other_labels(run, tmp_path):
    for label in ("left", "right"):
        (tmp_path / "other" / label).mkdir(parents=True)
        for number in range(60):
            picture = np.full((8, 8, 3), number * 2 + (label == "left"), np.uint8)
            cv2.imwrite(str(tmp_path / "other" / label / f"{number}.png"), picture)
    line = error_line(bench(*QUICK, "--data", tmp_path / "other"))
    assert "bright, dark" in line
    assert "left, right" in line


def test_an_exported_file_with_other_labels_names_that_file(run):
    import onnx

    model = onnx.load(run.folder / "model.onnx")
    for entry in model.metadata_props:
        if entry.key == "catdog_edge":
            entry.value = entry.value.replace('"bright", "dark"', '"dark", "bright"')
    onnx.save(model, run.folder / "model.swapped.onnx")
    line = error_line(bench(*QUICK))
    assert "model.swapped.onnx" in line
    assert "dark, bright" in line


def test_an_empty_test_split(run):
    lines = [line for line in run.split_csv.read_text().splitlines() if not line.endswith(",test")]
    run.split_csv.write_text("\n".join(lines) + "\n")
    assert "test" in error_line(bench(*QUICK))


def test_a_truncated_export(run):
    whole = (run.folder / "model.onnx").read_bytes()
    (run.folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    assert "model.onnx" in error_line(bench(*QUICK))


def test_a_row_that_does_not_exist(run):
    line = error_line(bench(*QUICK, "--max-ratio", "model.statik=0.5"))
    assert "model.statik" in line
    assert "model.dynamic" in line  # what there is instead
    assert "always 1" in error_line(bench(*QUICK, "--max-ratio", "pytorch=1"))


def test_a_provider_that_does_not_run_here(run):
    line = error_line(bench(*QUICK, "--provider", "coreml"))
    assert "coreml" in line


def test_weights_that_are_an_exported_file(run):
    assert "--also" in error_line(bench("--weights", run.folder / "model.onnx"))


def test_weights_that_are_an_int8_file_of_an_imported_one(run):
    file = run.folder / "model.onnx"
    spec = read_spec(file).replace(trained_on={"imported": "theirs.onnx"}, precision="int8-static")
    write_model(read_model(file), file, spec)
    assert f"{file} is int8-static already" in error_line(bench("--weights", file))


@pytest.mark.parametrize("name", ["pytorch", "pytorch-channels-last"])
def test_a_file_cannot_take_the_name_of_another_row(run, tmp_path, name):
    extra = shutil.copy(run.folder / "model.onnx", tmp_path / f"{name}.onnx")
    line = error_line(bench(*QUICK, "--also", extra))
    assert f"would be the row {name}:t1" in line or f"would be the row {name}," in line


def test_files_of_one_name_in_folders_of_one_name(run, tmp_path):
    for top in "pq":
        (tmp_path / top / "x").mkdir(parents=True)
        shutil.copy(run.folder / "model.onnx", tmp_path / top / "x" / "m.onnx")
    line = error_line(
        bench(*QUICK, "--also", tmp_path / "p/x/m.onnx", "--also", tmp_path / "q/x/m.onnx")
    )
    assert f"{tmp_path / 'p/x/m.onnx'} would be the row x/m" in line


def test_a_checkpoint_that_is_not_there(run):
    line = error_line(bench("--weights", run.folder / "nope.pt"))
    assert "there is no checkpoint" in line
    assert "nope.pt" in line


def test_a_fixed_batch_is_timed_at_that_batch_alone(run, tmp_path):
    """Filled up or cut into pieces its time would be that of other calls."""
    network, spec = load_checkpoint(run.weights)
    four = export_onnx(network, spec, tmp_path / "four.onnx", batch=4).path
    line = error_line(bench(*QUICK, "--also", four))
    assert f"{four} takes 4 images a call" in line
    assert "--batch 4" in line
    done = bench(*QUICK, "--also", four, "--batch", "1,4", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [row["batch"] for row in document["rows"] if row["base"] == "four"] == [4]
    left = {one["row"].partition(":")[0]: one["reason"] for one in document["left_out"]}
    assert left == {"four": "the file takes 4 images a call, not 1: --batch 4"}


def test_a_row_on_the_cpu_is_one_call_of_the_session(run):
    assert bench_rows.MOST_ON_CPU == classifier.CHUNK
    line = error_line(bench(*QUICK, "--provider", "cpu", "--batch", "1,33"))
    assert "--batch 33: on the CPU a call has at most 32 images" in line
    assert bench("--batch", str(options.MOST_BATCH + 1)).exit_code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_cuda_pytorchs_row_is_left_out_and_the_files_is_one_line(run, monkeypatch):
    left = bench_rows.BenchRow("pytorch@cuda", "pytorch", str(run.weights), 1, provider="cuda")
    with pytest.raises(ProviderError, match=r"^PyTorch .* (built without|finds no) CUDA"):
        bench_rows.open_row(left)
    assert "cuda does not run here" in error_line(bench(*QUICK, "--provider", "cuda"))
    monkeypatch.setattr(selection, "accelerators", lambda: ["cuda"])
    found = plan_bench(BenchOptions(weights=run.weights, threads=(1,)))
    assert [one.row.name for one in found.runners] == [
        "pytorch", "pytorch-channels-last", "model", "model.dynamic",
    ]  # fmt: skip
    assert {"pytorch@cuda", "pytorch-half@cuda", "model@cuda"} <= {
        one["row"] for one in found.left_out
    }


@pytest.mark.parametrize("originals", ["absent", "other labels"])
def test_wrong_originals_are_told_before_anything_is_measured(run, tmp_path, originals):
    source = tmp_path / "absent"
    if originals == "other labels":
        source = tmp_path / "letters"
        for number, label in enumerate("ab" * 30):
            (source / label).mkdir(parents=True, exist_ok=True)
            picture = np.full((8, 8, 3), 4 * number, np.uint8)
            cv2.imwrite(str(source / label / f"{number}.png"), picture)
    result = bench(*QUICK, "--originals", source)
    line = error_line(result)
    assert "--originals" in line
    assert "--data" not in line
    assert "latency" not in result.stderr


def test_data_named_again_is_split_as_for_the_training(run, easy_set):
    network, spec = load_checkpoint(run.weights)
    spec = spec.replace(trained_on={**spec.trained_on, "split": [60, 20, 20]})
    save_checkpoint(run.weights, network.state_dict(), spec)
    counts = {}
    for name, settings in (("run's", ()), ("named", ("--data", easy_set))):
        assert bench(*QUICK, *settings).exit_code == 0
        document = json.loads((run.folder / "bench.json").read_text())
        counts[name] = document["data"]["pictures"]
    whole = open_dataset(easy_set, split=(60, 20, 20))
    assert counts["named"] == len(whole.items_of("test")) > counts["run's"]


def test_all_data_of_a_run_is_measured_on(run, easy_set, tmp_path):
    for file in easy_set.rglob("*.png"):
        copy = tmp_path / "more" / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(copy), 255 - cv2.imread(str(file)))
    run.write_args(run.args() | {"more_data": [str(tmp_path / "more")]})
    planned = plan_bench(BenchOptions(weights=run.weights, threads=(1,)))
    items = [item for one in run.datasets() for item in one.items_of("test")]
    assert [item.file.split("/", 1) for item in planned.items] == [
        [name, item.file]
        for name, one in zip(("lamps", "more"), run.datasets())
        for item in one.items_of("test")
    ]
    for item, other in zip(planned.items, items, strict=True):
        picture = planned.dataset.decode(item)
        assert planned.dataset.files.digest(item.file, picture) == other.digest
    done = bench(*QUICK, "--corruptions", "4")
    assert done.exit_code == 0, done.output
    assert f"data: {easy_set}, {tmp_path / 'more'}: 240 images" in done.stderr
    document = json.loads((run.folder / "bench.json").read_text())
    assert document["data"]["name"] == "lamps, more"
    assert document["data"]["pictures"] == len(items)
