from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="files are made with torch; install [train]")
onnx = pytest.importorskip("onnx", reason="files are made with onnx; install [train]")
pytestmark = pytest.mark.train

from click.testing import CliRunner
from tinynets import LABELS, pictures, spec_for

from catdog_edge.cli import main
from catdog_edge.training.checkpoint import save_checkpoint
from catdog_edge.training.models import architecture
from catdog_edge.training.summary import layers
from exporters import graph, static
from exporters.half import halve
from exporters.info import read_info
from exporters.ort_format import write_ort
from exporters.quantize import quantize_dynamic
from exporters.to_onnx import export_onnx


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`simple_cnn` in every form."""
    folder = tmp_path_factory.mktemp("info")
    arch = architecture("simple_cnn")
    torch.manual_seed(0)
    spec = spec_for(arch.normalization, LABELS[:2], arch.size, "simple_cnn").replace(
        trained_on={"data": "toys", "pictures": {"train": 7}},
        metrics={"validation": {"accuracy": 0.875}},
        tool_version="0.1.0",
    )
    network = arch.build(2)
    save_checkpoint(folder / "best.pt", network.state_dict(), spec)
    source = export_onnx(network, spec, folder / "model.onnx").path
    quantize_dynamic(source, folder / "model.dynamic.onnx")
    calibrated = static.calibrate(source, pictures(2, arch.size))
    model = static.quantize(calibrated)
    graph.stamp(model, spec.replace(precision="int8-static"))
    graph.write_model(model, folder / "model.static.onnx")
    model, half = halve(source)
    graph.stamp(model, half)
    graph.write_model(model, folder / "model.half.onnx")
    write_ort(source, folder / "model.ort")
    return folder


@pytest.mark.parametrize("form", ["", ".dynamic", ".static", ".half"])
def test_every_form_has_the_networks_parameters_and_multiply_adds(form: str, folder: Path) -> None:
    info = read_info(folder / f"model{form}.onnx")
    assert info.graph["parameters"] == 786_402
    expected = sum(
        layer.multiply_adds for layer in layers(architecture("simple_cnn").build(2), 224)
    )
    assert info.graph["multiply_adds"] == expected
    assert round(expected / 1e9, 2) == 2.36
    assert info.graph["opset"] == 17


@pytest.mark.parametrize("name", ["edge_cnn", "mobilenet_v3_small"])
def test_multiply_adds_are_those_of_the_architectures_table(name: str, tmp_path: Path) -> None:
    arch = architecture(name)
    network = arch.build(2)
    spec = spec_for(arch.normalization, LABELS[:2], arch.size, name)
    info = read_info(export_onnx(network, spec, tmp_path / "model.onnx").path)
    expected = sum(layer.multiply_adds for layer in layers(network.eval(), arch.size))
    assert info.graph["multiply_adds"] == expected


def test_people_read_all_of_it(folder: Path) -> None:
    done = CliRunner().invoke(main, ["info", str(folder / "model.static.onnx")])
    assert done.exit_code == 0, done.output
    for words in (
        "simple_cnn, int8-static",
        "0 bright, 1 dark",
        "frames uint8 [N, 224, 224, 3]",
        "probabilities float [N, 2]",
        "linear to 448x448 (an axis that is smaller is left alone); then area to 224x224",
        "786,402",
        "2.36 G",
        "17, IR version 8",
        "6 Conv",
        "data toys",
        "pictures: train 7",
        "validation: accuracy 0.875",
        "classify",
        "catdog-edge 0.1.0",
    ):
        assert words in done.stdout


def test_machines_read_json(folder: Path) -> None:
    done = CliRunner().invoke(main, ["info", str(folder / "model.onnx"), "--json"])
    document = json.loads(done.stdout)
    assert document["spec"]["labels"] == ["bright", "dark"]
    assert document["metadata"]["imgsz"] == "[224, 224]"
    assert document["operators"]["Conv"] == 6
    assert document["bytes"] == (folder / "model.onnx").stat().st_size


def test_other_kinds_of_file_say_what_they_can(folder: Path) -> None:
    ort = read_info(folder / "model.ort")
    assert ort.spec == read_info(folder / "model.onnx").spec
    assert "not readable in ORT format" in str(ort)
    checkpoint = str(read_info(folder / "best.pt"))
    assert "786,402 parameters" in checkpoint
    assert "catdog-edge info --arch simple_cnn" in checkpoint


def test_an_architecture_is_printed_as_a_table() -> None:
    done = CliRunner().invoke(main, ["info", "--arch", "simple_cnn"])
    assert done.exit_code == 0
    assert "410,112" in done.stdout
    clash = CliRunner().invoke(main, ["info", "--arch", "simple_cnn", "model.onnx"])
    assert clash.exit_code == 2


def test_bad_files_are_one_line(folder: Path, tmp_path: Path) -> None:
    bare = graph.read_model(folder / "model.onnx")
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    (tmp_path / "cut.onnx").write_bytes((folder / "model.onnx").read_bytes()[:5000])
    (tmp_path / "cut.pt").write_bytes((folder / "best.pt").read_bytes()[:5000])
    (tmp_path / "spec.json").write_text("{}")
    for arguments, said in (
        (["bare.onnx"], "--spec FILE.json"),
        (["cut.onnx"], "damaged, cut short"),
        (["cut.pt"], "is damaged or not a checkpoint"),
        (["none.onnx"], "there is no model"),
        (["bare.onnx", "--spec", "none.json"], "cannot read the spec"),
        (["bare.onnx", "--spec", "spec.json"], "lacks"),
    ):
        command = [str(tmp_path / a) if "." in a else a for a in arguments]
        done = CliRunner().invoke(main, ["info", *command])
        assert done.exit_code == 1
        assert done.stderr.startswith("catdog-edge: ")
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
    (tmp_path / "spec.json").write_text(read_info(folder / "model.onnx").spec.to_json())
    by_hand = read_info(tmp_path / "bare.onnx", read_info(folder / "model.onnx").spec)
    assert by_hand.spec.labels == ("bright", "dark")


def test_without_the_onnx_package_the_spec_is_still_told(folder: Path) -> None:
    program = (
        "import sys; sys.modules['onnx'] = None; sys.modules['torch'] = None\n"
        "from exporters.info import read_info\n"
        f"print(read_info({str(folder / 'model.onnx')!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "simple_cnn, fp32" in done.stdout
    assert "need the onnx package: pip install 'catdog-edge[train]'" in done.stdout
