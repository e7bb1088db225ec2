"""The command `catdog-edge export`, on a run of two classes."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="exporting needs onnx; install [train]")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from click.testing import CliRunner
from support.commands.export_command import export, last_line
from support.models.tiny_nets import fit_head, settle, spec_for
from support.small_disk import small_disk

from catdog_edge.cli.main import main
from catdog_edge.runtime.model_file import read_spec
from catdog_edge.training.data.open_dataset import open_dataset, pixels
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from catdog_edge.training.models.registry import architecture
from catdog_edge.training.runs.run_folder import Run
from exporters import export_steps
from exporters.static_int8 import mixed_precision


def test_everything_is_made_checked_and_written_down(lamps: Path) -> None:
    options = "--quantize all --half --format ort --keep-slower --heat-map --json"
    done = export(*options.split())
    assert done.exit_code == 0, done.output
    names = {
        "model.onnx": "fp32",
        "model.dynamic.onnx": "int8-dynamic",
        "model.static.onnx": "int8-static",
        "model.half.onnx": "fp16",
        "model.ort": "fp32",
        "model.static.ort": "int8-static",
    }
    document = json.loads(done.stdout)
    assert document == json.loads((lamps / "export.json").read_text())
    assert {file["file"]: file["precision"] for file in document["files"]} == names
    for file in document["files"]:
        path = lamps / file["file"]
        assert file["kept"]
        assert path.stat().st_size == file["bytes"]
        assert file["verification"]["passed"]
        figures = read_spec(path).metrics["export"]
        assert figures["agreement"] == file["verification"]["agreement"]
        assert figures["checked_on"].endswith("validation images of lamps")
        if path.name != "model.onnx":
            ratio = file["ratio_to_fp32"]
            assert ratio["low"] <= ratio["value"] <= ratio["high"]
            assert figures["ratio_to_fp32"] == ratio
        if path.name != "model.onnx" and path.suffix == ".onnx":
            assert file["heat_map_correlation"] == figures["heat_map_correlation"]
            assert f"{path.name}: heat maps correlate with the reference's by" in done.stderr
        shown = CliRunner().invoke(main, ["info", str(path)]).stdout
        assert ("heat_map float [N, K, h, w]" in shown) is (path.suffix == ".onnx")
    static = next(file for file in document["files"] if file["file"] == "model.static.onnx")
    assert static["quantization"]["first_operator_at_run_time"] == "QLinearConv"
    assert static["quantization"]["integer_layers_at_run_time"] == 14
    assert read_spec(lamps / "model.static.onnx").metrics["quantization"]["scheme"] == "u8s8"
    assert str(lamps.parent) not in (lamps / "export.json").read_text()
    flips = (lamps / "verify-flips.csv").read_text().splitlines()[1:]
    assert (lamps / "verify-flips.png").exists() is bool(flips)
    assert not list(lamps.glob(".*"))


def test_without_options_only_the_fp32_file_is_made(lamps: Path) -> None:
    (lamps / "verify-flips.png").write_bytes(b"of an earlier export")
    done = export()
    assert done.exit_code == 0, done.output
    assert "runs/lamps/best.pt (edge_cnn)" in done.stderr
    assert "121 nodes simplified to" in done.stderr
    assert {file.name for file in lamps.iterdir()} == {
        "args.yaml", "best.pt", "split.csv", "model.onnx", "export.json", "verify-flips.csv",
    }  # fmt: skip
    assert done.stdout.splitlines()[2].startswith("model.onnx")


def test_quantize_alone_makes_both_and_keeps_what_pays(lamps: Path) -> None:
    """0.3 % of the weights of edge_cnn are in a linear layer: dynamic int8 saves nothing there."""
    done = export("--quantize", "--keep-slower", "--calibration-pictures", "32")
    assert done.exit_code == 0, done.output
    assert {file.name for file in lamps.glob("*.onnx")} == {"model.onnx", "model.static.onnx"}
    assert "model.dynamic.onnx: not kept: it saves nothing: 4.42 MB, model.onnx has" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("ship runs/lamps/model.")
    again = export("--limit", "32")
    assert "of an earlier export" not in again.stderr


def test_static_quantization_that_loses_accuracy_is_refused_with_the_figures(
    lamps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first convolution's answers are shifted in every int8 model, whatever is in float."""
    honest = mixed_precision.restore_worst_to_float

    def worse(calibrated, *arguments):
        for tensor in calibrated.model.graph.initializer:
            if tensor.name == "classifier.2.bias":
                shifted = onnx.numpy_helper.to_array(tensor) + np.array([90, -90], np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(shifted, tensor.name))
        return honest(calibrated, *arguments)

    monkeypatch.setattr(mixed_precision, "restore_worst_to_float", worse)
    monkeypatch.setattr(mixed_precision, "rank_layers", lambda *arguments: ())
    monkeypatch.setattr("exporters.static_int8.mixed_precision.MOST_IN_FLOAT", 0.0)
    done = export("--quantize", "static")
    assert done.exit_code == 3
    assert "accuracy changes by -" in last_line(done)
    assert (lamps / "model.onnx").is_file()
    assert not (lamps / "model.static.onnx").exists()
    files = json.loads((lamps / "export.json").read_text())["files"]
    attempts = files[1]["quantization"]["attempts"]
    assert [attempt["scheme"] for attempt in attempts] == ["u8s8", "s8s8", "u8u8"]


def test_without_its_data_fp32_is_checked_on_drawings_and_static_is_not_made(lamps: Path) -> None:
    Run(lamps).write_args({"data": "/nowhere/lamps", "labels": ["bright", "dark"]})
    done = export("--limit", "32")
    assert done.exit_code == 0, done.output
    assert "drawings" in done.stderr
    assert "/nowhere/lamps" in done.stderr
    assert (
        json.loads((lamps / "export.json").read_text())["files"][0]["verification"]["accuracy"]
        is None
    )
    (lamps / "model.onnx").unlink()
    done = export("--quantize", "static")
    assert done.exit_code == 1
    assert "--data" in last_line(done)
    assert not (lamps / "model.onnx").exists()


def test_bad_weights_are_one_line(lamps: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes((lamps / "best.pt").read_bytes()[:9000])
    torch.save({"model": 1}, tmp_path / "foreign.pt")
    network, spec = load_checkpoint(lamps / "best.pt")
    document = {
        "spec": json.dumps(json.loads(spec.to_json()) | {"schema": 99}),
        "state_dict": network.state_dict(),
    }
    torch.save(document, tmp_path / "newer.pt")
    (tmp_path / "model.onnx").write_bytes(b"x")
    for name, said in (
        ("none.pt", "there is no checkpoint"),
        ("cut.pt", "is damaged or not a checkpoint"),
        ("foreign.pt", "not a checkpoint of catdog-edge"),
        ("newer.pt", "schema 99"),
        ("model.onnx", "damaged, cut short, or not an ONNX file"),
    ):
        done = export("--weights", str(tmp_path / name))
        assert done.exit_code == 1
        assert said in last_line(done)
    done = export("--opset", "9")
    assert done.exit_code == 1
    assert "cannot be made with opset 9" in last_line(done)
    assert not (lamps / "model.onnx").exists()


def test_data_must_have_the_models_classes_and_enough_of_them(lamps: Path, easy_set: Path) -> None:
    done = export("--data", "sample")
    assert done.exit_code == 1
    assert "bright, dark" in last_line(done)
    assert not Path("elsewhere").exists()
    # Fewer training images than a calibration needs: twelve of each class in all.
    few = Path("few")
    for label in ("bright", "dark"):
        (few / label).mkdir(parents=True)
        for number in range(19):
            shutil.copy(easy_set / label / f"{number}.png", few / label)
    with (lamps / "split.csv").open() as stream:
        assert {row["split"] for row in csv.DictReader(stream)} == {"train", "val", "test"}
    done = export("--data", str(few), "--quantize", "static")
    assert done.exit_code == 1
    assert "required at least 32" in last_line(done) or "has no" in last_line(done)


# ---- what goes wrong half-way ------------------------------------------------------------


def test_a_folder_that_was_made_for_nothing_is_removed(lamps: Path) -> None:
    done = export("--half", "--opset", "28", "--limit", "32", "--out", "new/deep")
    assert done.exit_code == 1
    assert not Path("new").exists()
    assert (lamps / "best.pt").is_file()


def test_what_cannot_be_put_into_place_leaves_the_folder_as_it_was(lamps: Path) -> None:
    (lamps / "model.onnx").write_bytes(b"of an earlier export")
    (lamps / "export.json").mkdir()
    done = export("--limit", "32")
    assert done.exit_code == 1
    assert "export.json" in last_line(done)
    assert (lamps / "model.onnx").read_bytes() == b"of an earlier export"
    assert not list(lamps.glob(".*"))
    assert not (lamps / "verify-flips.csv").exists()


def test_for_cuda_it_is_fp16_and_checked_there_or_it_says_where(lamps: Path) -> None:
    done = export("--for", "cuda", "--limit", "32")
    assert done.exit_code == 0, done.output
    assert not list(lamps.glob("model.*ic.onnx"))
    (_, half) = json.loads((lamps / "export.json").read_text())["files"]
    assert (half["file"], half["kept"], half["precision"]) == ("model.half.onnx", True, "fp16")
    if half["provider"] == "cuda":
        assert half["p50_ms"] > 0
    else:
        assert (half["provider"], half["p50_ms"], half["ratio_to_fp32"]) == ("cpu", None, None)
        assert "model.half.onnx is checked on the CPU, and not timed: cuda does not" in done.stderr
        assert "model.half.onnx: 2.0 times smaller than model.onnx, the same answer" in done.stdout


def test_a_run_folder_is_taken_for_its_best_weights(lamps: Path, tmp_path: Path) -> None:
    done = export("--weights", str(tmp_path))
    assert done.exit_code == 1
    assert "is a folder without a best.pt" in last_line(done)
    done = export("--weights", str(lamps), "--limit", "32")
    assert done.exit_code == 0, done.output
    assert (lamps / "model.onnx").is_file()


def test_named_data_needs_no_test_split(lamps: Path, easy_set: Path) -> None:
    """And where a class has no image to check on, no word of a --split that export lacks."""
    named = Path("named")
    items = open_dataset(easy_set).items
    for label in (0, 1):
        of_class = [item for item in items if item.label == label]
        wanted = [item for item in of_class if item.split == "val"][:2]
        wanted += [item for item in of_class if item.split == "train"][:20]
        for item in wanted:
            target = named / item.file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(easy_set / item.file, target)
    done = export("--data", str(named))
    assert done.exit_code == 0, done.output
    for file in sorted((named / "dark").iterdir())[1:]:
        file.unlink()
    done = export("--data", str(named))
    assert done.exit_code == 1
    assert "the val split has no 'dark'" in last_line(done)
    assert "--split" not in last_line(done)


def test_a_full_temporary_folder_is_named(lamps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(Path("tmp"), "1m") as small:
        monkeypatch.setenv("TMPDIR", str(small))
        monkeypatch.setattr("tempfile.tempdir", None)
        done = export("--limit", "32")
    assert done.exit_code == 1
    assert f"cannot write temporary files to {small}" in last_line(done)
    assert "TMPDIR" in last_line(done)
    assert not (lamps / "model.onnx").exists()


def test_sigterm_leaves_no_temporary_files(lamps: Path) -> None:
    scratch = lamps.parent / "scratch"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "catdog_edge", "export", "--weights", str(lamps / "best.pt")],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + 90
        while not list(scratch.glob("catdog-export-*")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert b"Traceback" not in said
    assert not list(scratch.glob("catdog-export-*"))
    assert not (lamps / "model.onnx").exists()


# ---- many classes ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_hundred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of 300 classes, each a flat colour, and a network that knows some of them."""
    import cv2

    work = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for number, colour in enumerate(rng.integers(0, 256, (300, 3))):
        for split, copies in (("train", 5), ("val", 1), ("test", 1)):
            folder = work / "colours" / split / f"colour {number:03}"
            folder.mkdir(parents=True)
            for copy in range(copies):
                frame = rng.normal(colour, 6, (40, 40, 3)).clip(0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / f"{copy}.png"), frame)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("CATDOG_CACHE", str(work / "cache"))
    dataset = open_dataset(work / "colours")
    arch = architecture("edge_cnn")
    torch.manual_seed(0)
    spec = spec_for(arch.normalization, dataset.labels, 64, "edge_cnn")
    frames, labels, _ = pixels(dataset, "train", spec.resize)
    network = settle(arch.build(300), spec, np.array(frames[::40]))
    fit_head(network, network.classifier[2], spec, frames, labels)
    run = work / "runs" / "colours"
    run.mkdir(parents=True)
    save_checkpoint(run / "best.pt", network.state_dict(), spec)
    dataset.write_split_csv(run / "split.csv")
    Run(run).write_args({"data": str(work / "colours"), "labels": list(dataset.labels)})
    monkeypatch.undo()
    return work


def test_three_hundred_classes_are_exported_verified_and_shown_in_bounds(
    three_hundred: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(three_hundred)
    monkeypatch.setenv("CATDOG_CACHE", str(three_hundred / "cache"))
    monkeypatch.setattr(export_steps, "TIMING_SECONDS", 0.1)
    folder = three_hundred / "runs" / "colours"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = export("--quantize", "static", "--keep-slower", "--max-drop", "100")
    assert done.exit_code in (0, 3), done.output
    assert (folder / "model.onnx").is_file()
    said = [done.stdout, done.stderr]
    for command in (
        ["verify", str(folder / "best.pt"), str(folder / "model.onnx")],
        ["info", str(folder / "model.onnx")],
    ):
        shown = CliRunner().invoke(main, command)
        assert shown.exit_code == 0, shown.output
        said += [shown.stdout, shown.stderr]
    lines = "".join(said).splitlines()
    assert len(lines) < 120
    assert max(map(len, lines)) < 600
    assert "300 labels: 0 colour 000, 1 colour 001" in "".join(said)
    assert (folder / "export.json").stat().st_size < 30_000
    sheet = folder / "verify-flips.png"
    assert not sheet.exists() or sheet.stat().st_size < 1_000_000
    # In KiB, of the whole process: torch's exporter, ONNX Runtime and the images.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000


def test_labels_that_a_file_cannot_carry_are_refused_before_the_work(lamps: Path) -> None:
    document = torch.load(lamps / "best.pt", weights_only=True)
    spec = json.loads(document["spec"]) | {"labels": ["bright", "d\udcffrk"]}
    document["spec"] = json.dumps(spec)
    torch.save(document, lamps / "best.pt")
    done = export("--weights", str(lamps / "best.pt"))
    assert done.exit_code == 1
    line = last_line(done)
    assert "'d\\udcffrk'" in line
    assert "UTF-8" in line
    assert len(done.stderr.splitlines()) == 1
