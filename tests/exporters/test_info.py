from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="files are made with torch; install [train]")
onnx = pytest.importorskip("onnx", reason="files are made with onnx; install [train]")
pytestmark = pytest.mark.train

from click.testing import CliRunner
from support.models.tiny_nets import LABELS, pictures, spec_for

from catdog_edge.cli.main import main
from catdog_edge.errors import ModelError
from catdog_edge.spec import Rejection
from catdog_edge.system.packages import install_command
from catdog_edge.training.models.checkpoint import save_checkpoint
from catdog_edge.training.models.registry import architecture
from catdog_edge.training.models.summary import summarize_layers
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.formats.fp16 import convert_fp16
from exporters.formats.ort import write_ort
from exporters.formats.torch_export import export_onnx
from exporters.graph.onnx_file import read_model, read_proto, write_model
from exporters.info import read_info
from exporters.static_int8 import quantize


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
    calibrated = quantize.calibrate(source, pictures(2, arch.size))
    model = quantize.quantize(calibrated)
    write_model(model, folder / "model.static.onnx", calibrated.spec)
    convert_fp16(source, folder / "model.half.onnx")
    write_ort(source, folder / "model.ort")
    return folder


@pytest.mark.parametrize("form", ["", ".dynamic", ".static", ".half"])
def test_every_form_has_the_networks_parameters_and_multiply_adds(form: str, folder: Path) -> None:
    info = read_info(folder / f"model{form}.onnx")
    assert info.graph["parameters"] == 786_402
    expected = sum(
        layer.multiply_adds for layer in summarize_layers(architecture("simple_cnn").build(2), 224)
    )
    assert info.graph["multiply_adds"] == expected
    assert round(expected / 1e9, 2) == 2.36
    assert info.graph["opset"] == 17


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edge_cnn", "mobilenet_v3_small"])
def test_multiply_adds_are_those_of_the_architectures_table(name: str, tmp_path: Path) -> None:
    arch = architecture(name)
    network = arch.build(2)
    spec = spec_for(arch.normalization, LABELS[:2], arch.size, name)
    info = read_info(export_onnx(network, spec, tmp_path / "model.onnx").path)
    expected = sum(layer.multiply_adds for layer in summarize_layers(network.eval(), arch.size))
    assert info.graph["multiply_adds"] == expected


def test_people_read_all_of_it(folder: Path) -> None:
    done = CliRunner().invoke(main, ["info", str(folder / "model.static.onnx"), "--card"])
    assert done.exit_code == 0, done.output
    for words in (
        "simple_cnn, int8-static",
        "0 bright, 1 dark",
        "frames uint8 [N, 224, 224, 3]",
        "probabilities float [N, 2]",
        "linear to 448x448 (an axis that is smaller is left alone); then linear to 224x224",
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


def test_a_checkpoint_says_what_is_true_of_it(folder: Path) -> None:
    info = read_info(folder / "best.pt")
    text = str(info)
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "786,402" in rows["parameters"]
    assert "2.36 G" in rows["multiply-adds"]
    assert "catdog-edge info --arch simple_cnn" in rows["layers"]
    assert "operators" not in rows
    assert "inside the file" not in text
    assert "not in the file" in rows["normalisation"]
    assert "not in the file" in rows["temperature"]
    assert (
        info.to_dict()["multiply_adds"] == read_info(folder / "model.onnx").graph["multiply_adds"]
    )


def test_a_checkpoint_with_negatives_has_a_logit_for_them(tmp_path: Path) -> None:
    arch = architecture("simple_cnn")
    spec = spec_for(arch.normalization, LABELS[:2], arch.size, "simple_cnn")
    spec = spec.replace(rejection=Rejection("known", 0.5))
    save_checkpoint(tmp_path / "best.pt", arch.build(3).state_dict(), spec)
    assert read_info(tmp_path / "best.pt").outputs == ("logits float32 [N, 3]",)


def test_weights_in_a_second_file_are_read_or_named(folder: Path, tmp_path: Path) -> None:
    whole = read_info(folder / "model.onnx")
    onnx.save_model(
        read_proto(folder / "model.onnx"),
        str(tmp_path / "model.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=1024,
    )
    info = read_info(tmp_path / "model.onnx")
    assert info.graph["parameters"] == whole.graph["parameters"]
    assert info.graph["multiply_adds"] == whole.graph["multiply_adds"]
    assert info.beside == ("weights.bin",)
    assert info.bytes > 3_000_000
    assert "with its weights in weights.bin, beside it" in str(info)
    weights = (tmp_path / "weights.bin").read_bytes()
    for data, said in (
        (weights[:1000], "cut short"),
        (None, f"{tmp_path / 'weights.bin'}, which is not there; copy it beside"),
    ):
        if data is None:
            (tmp_path / "weights.bin").unlink()
            with pytest.raises(ModelError, match="copy it beside"):
                read_model(tmp_path / "model.onnx")
        else:
            (tmp_path / "weights.bin").write_bytes(data)
        for command in (["info"], ["verify", str(folder / "model.onnx")]):
            done = CliRunner().invoke(main, [*command, str(tmp_path / "model.onnx")])
            assert done.exit_code == 1, done.exception
            line = done.stderr.splitlines()[-1]
            assert line.startswith("catdog-edge: ")
            assert said in line
            assert ".cc" not in line
            assert "ONNXRuntimeError" not in line


def foreign(path: Path, height: int | str = 32, classes: int = 3) -> Path:
    """A file of another tool: one convolution, a mean, a softmax, other names."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.1, (classes, 3, 3, 3)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Conv", ["images", "w"], ["c"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        onnx.helper.make_node("Flatten", ["p"], ["f"]),
        onnx.helper.make_node("Softmax", ["f"], ["output0"], axis=1),
    ]
    frames = onnx.helper.make_tensor_value_info("images", 1, ["b", 3, height, height])
    answers = onnx.helper.make_tensor_value_info("output0", 1, ["b", classes])
    made = onnx.helper.make_graph(
        nodes, "foreign", [frames], [answers], [onnx.numpy_helper.from_array(weight, "w")]
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    return path


def test_a_spec_by_hand_describes_a_foreign_file(tmp_path: Path) -> None:
    spec = spec_for().replace(layout="nchw-float")
    info = read_info(foreign(tmp_path / "foreign.onnx"), spec)
    assert info.graph["multiply_adds"] == 3 * 32 * 32 * 3 * 9
    assert "given by hand; input 'images', probabilities 'output0' by place" in str(info)
    info = read_info(foreign(tmp_path / "dynamic.onnx", "h"), spec)
    assert info.graph["multiply_adds"] is None
    assert "unknown" in next(row for row in str(info).splitlines() if "multiply-adds" in row)
    assert json.loads(json.dumps(info.to_dict()))["multiply_adds"] is None


def ends(path: Path, inputs: list, outputs: list) -> Path:
    """A graph with any ends: a constant, or the input as it is."""
    if inputs:
        node = onnx.helper.make_node("Identity", [inputs[0].name], [outputs[0].name])
    else:
        one = onnx.numpy_helper.from_array(np.ones(1, np.float32))
        node = onnx.helper.make_node("Constant", [], [outputs[0].name], value=one)
    made = onnx.helper.make_graph([node], "ends", inputs, outputs)
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    return path


def test_a_spec_by_hand_is_held_against_the_graph(tmp_path: Path, folder: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    fits = spec_for().replace(layout="nchw-float")
    file = foreign(tmp_path / "foreign.onnx")
    scalar = ends(tmp_path / "scalar.onnx", [value("x", 1, [])], [value("y", 1, [])])
    nothing = ends(tmp_path / "nothing.onnx", [], [value("y", 1, [1])])
    for path, spec, said in (
        (file, spec_for(), "expected one input uint8 [N, 32, 32, 3] (N > 0), found images float"),
        (file, spec_for(size=64).replace(layout="nchw-float"), "float [N, 3, 64, 64]"),
        (
            file,
            fits.replace(labels=("cat", "dog")),
            "expected one output float [N, 2]",
        ),
        (scalar, fits, "found x float []"),
        (nothing, fits, "found none"),
    ):
        (tmp_path / "spec.json").write_text(spec.to_json())
        for command in (["info"], ["verify", str(folder / "model.onnx")]):
            done = CliRunner().invoke(
                main, [*command, str(path), "--spec", str(tmp_path / "spec.json")]
            )
            assert done.exit_code == 1, (path, done.exception)
            assert done.stderr.splitlines()[-1].startswith(f"catdog-edge: {path}: the spec given")
            assert said in done.stderr


def test_what_another_tool_saved_is_told_apart_from_damage(folder: Path, tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    torch.save(network, tmp_path / "module.pt")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated, its files are not
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 2)), tmp_path / "script.pt")
    (tmp_path / "text.pt").write_text("hello\n")
    write_ort(folder / "model.onnx", tmp_path / "whole.ort")
    (tmp_path / "cut.ort").write_bytes((tmp_path / "whole.ort").read_bytes()[:100_000])
    document = torch.load(folder / "best.pt", weights_only=True)
    document["spec"] = json.dumps(json.loads(document["spec"]) | {"architecture": "vgg"})
    torch.save(document, tmp_path / "vgg.pt")
    for name, said in (
        *(
            (name, "is a PyTorch file, but not a checkpoint of catdog-edge: it has weights without")
            for name in ("module.pt", "weights.pth", "old.pth")
        ),
        ("script.pt", "is a TorchScript program"),
        ("text.pt", "is damaged or not a checkpoint (not PyTorch's zip format)"),
        ("cut.ort", "cut short"),
        ("vgg.pt", "vgg.pt: there is no architecture 'vgg'"),
    ):
        done = CliRunner().invoke(main, ["info", str(tmp_path / name)])
        assert done.exit_code == 1
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
        assert "weights_only" not in done.stderr
        assert "Re-running" not in done.stderr


def test_bad_files_are_one_line(folder: Path, tmp_path: Path) -> None:
    bare = read_proto(folder / "model.onnx")
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
    assert f"need the onnx package: {install_command('train')}" in done.stdout


def test_without_card_it_is_a_screen(folder: Path) -> None:
    done = CliRunner().invoke(main, ["info", str(folder / "model.static.onnx")])
    assert len(done.stdout.splitlines()) <= 15
    assert "trained on" not in done.stdout


def test_a_run_folder_names_its_models_and_shows_one(folder: Path, tmp_path: Path) -> None:
    for name in ("best.pt", "model.onnx", "model.static.onnx", "last.pt"):
        (tmp_path / name).write_bytes((folder / "model.onnx").read_bytes())
    done = CliRunner().invoke(main, ["info", str(tmp_path)])
    lines = done.stdout.splitlines()
    assert len(lines) <= 15
    assert lines[0].split()[1] == f"{tmp_path / 'model.onnx'},"
    size = lines[0].split()[2]
    assert lines[1].split("  ")[-1].strip() == (
        f"best.pt {size} MB, model.onnx {size} MB, model.static.onnx {size} MB"
    )
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(main, ["info", str(tmp_path / "empty")])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"catdog-edge: {tmp_path / 'empty'} is a folder without a model")
    assert done.stderr.count("\n") == 1
