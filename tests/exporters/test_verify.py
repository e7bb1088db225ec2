"""The command `catdog-edge verify`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="verifying needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="verifying needs onnx; install [train]")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from click.testing import CliRunner
from support.models.tiny_nets import pictures, settle, spec_for, trained

from catdog_edge.cli.main import main
from catdog_edge.runtime.model_file import ZOO
from catdog_edge.spec import ModelSpec
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from catdog_edge.training.models.registry import architecture
from exporters.formats.torch_export import export_onnx
from exporters.graph.nodes import add_constant, add_node
from exporters.graph.onnx_file import read_model, read_proto, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the default architecture, its export, and files that are not well."""
    folder = tmp_path_factory.mktemp("verify")
    arch = architecture("edge_cnn")
    torch.manual_seed(0)
    spec = spec_for(arch.normalization, ("bright", "dark"), arch.size, "edge_cnn")
    network = settle(arch.build(2), spec, pictures(8, arch.size))
    save_checkpoint(folder / "best.pt", network.state_dict(), spec)
    export_onnx(network, spec, folder / "model.onnx")
    network.classifier[2].bias.data += torch.tensor([0.02, 0.0])
    export_onnx(network, spec, folder / "off.onnx")
    network.classifier[2].bias.data += torch.tensor([-9.0, 9.0])
    export_onnx(network, spec, folder / "wrong.onnx")
    bare = read_proto(folder / "model.onnx")
    del bare.metadata_props[:]
    onnx.save(bare, folder / "bare.onnx")
    (folder / "spec.json").write_text(spec.to_json())
    newer = json.loads(spec.to_json()) | {"schema": 99}
    onnx.helper.set_model_props(bare, {"catdog_edge": json.dumps(newer)})
    onnx.save(bare, folder / "newer.onnx")
    (folder / "cut.onnx").write_bytes((folder / "model.onnx").read_bytes()[:100_000])
    tiny, other = trained()
    export_onnx(tiny, other, folder / "other.onnx")
    return folder


def verify(folder: Path, data: Path, *arguments: str):
    command = ["verify", *(str(folder / a) if "." in a else a for a in arguments)]
    return CliRunner().invoke(main, [*command, "--data", str(data)])


def test_a_good_file_is_met_and_its_flips_are_beside_it(folder: Path, easy_set: Path) -> None:
    done = verify(folder, easy_set, "best.pt", "model.onnx")
    assert done.exit_code == 0, done.output
    assert "100.00%" in done.stdout
    assert "limits              of fp32: met" in done.stdout
    assert "validation images of lamps" in done.stderr
    assert (folder / "verify-flips.csv").read_text().startswith("candidate,file,truth")
    assert not (folder / "verify-flips.png").exists()  # no answer differs


def test_json_is_one_document(folder: Path, easy_set: Path) -> None:
    done = verify(folder, easy_set, "best.pt", "off.onnx", "--json")
    assert done.exit_code == 3
    document = json.loads(done.stdout)
    assert document["verification"]["passed"] is False
    assert document["verification"]["difference"] > 1e-4
    assert "allowed is 1e-04" in document["failures"][0]


def test_wrong_answers_are_listed_with_exit_code_3(folder: Path, easy_set: Path) -> None:
    done = verify(folder, easy_set, "model.onnx", "wrong.onnx")
    assert done.exit_code == 3
    assert "the same answer on" in done.stderr
    rows = list(csv.DictReader((folder / "verify-flips.csv").read_text().splitlines()))
    assert rows
    assert {row["candidate_answer"] for row in rows} == {"dark"}


def test_a_file_without_a_spec_takes_one_by_hand(folder: Path, easy_set: Path) -> None:
    done = verify(folder, easy_set, "best.pt", "bare.onnx")
    assert done.exit_code == 1
    assert "--spec FILE.json" in done.stderr
    done = verify(folder, easy_set, "best.pt", "bare.onnx", "--spec", "spec.json")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("first", "second", "code", "said"),
    [
        ("best.pt", "cut.onnx", 1, "damaged, cut short, or not an ONNX file"),
        ("best.pt", "none.onnx", 1, "there is no model"),
        ("none.pt", "model.onnx", 1, "there is no checkpoint"),
        ("cut.onnx", "model.onnx", 1, "damaged, cut short"),
        ("best.pt", "newer.onnx", 1, "schema 99"),
        ("model.onnx", "best.pt", 1, "is a checkpoint; name it first"),
        ("best.pt", "other.onnx", 3, "labels differ"),
    ],
)
def test_bad_files_are_one_line(
    first: str, second: str, code: int, said: str, folder: Path, easy_set: Path
) -> None:
    done = verify(folder, easy_set, first, second)
    assert done.exit_code == code
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("catdog-edge: ")
    assert said in last
    assert not done.stdout


def test_data_of_other_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    import cv2

    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number, frame in enumerate(pictures(40, seed=len(label) + ord(label[0]))):
            cv2.imwrite(str(tmp_path / label / f"{number}.png"), frame)
    done = verify(folder, tmp_path, "best.pt", "model.onnx")
    assert done.exit_code == 1
    assert "bright, dark" in done.stderr
    assert "cat, dog" in done.stderr


def renamed(folder: Path, layout: str) -> Path:
    """The checkpoint as a file of another tool: no metadata, other names."""
    network, spec = load_checkpoint(folder / "best.pt")
    path = folder / f"foreign-{layout}.onnx"
    export_onnx(network, spec, path, layout=layout)
    model = read_model(path)
    model.metadata_props.clear()
    model.graph.inputs[0].name = "images"
    model.graph.outputs[0].name = "output0"
    write_model(model, path)
    (folder / "foreign.json").write_text(spec.replace(layout=layout).to_json())
    return path


@pytest.mark.parametrize("layout", ["nhwc-uint8", "nchw-float"])
def test_a_foreign_file_with_a_spec_by_hand_goes_by_place(
    layout: str, folder: Path, easy_set: Path
) -> None:
    path = renamed(folder, layout)
    done = verify(folder, easy_set, "best.pt", path.name, "--spec", "foreign.json")
    assert done.exit_code == 0, done.stderr
    assert f"{path.name}: input 'images', probabilities 'output0'" in done.stdout
    done = verify(folder, easy_set, path.name, "off.onnx", "--spec", "foreign.json", "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["spec_by_hand"] == [
        f"{path.name}: input 'images', probabilities 'output0'"
    ]
    other = "nchw-float" if layout == "nhwc-uint8" else "nhwc-uint8"
    spec = ModelSpec.from_json((folder / "foreign.json").read_text())
    (folder / "foreign.json").write_text(spec.replace(layout=other).to_json())
    done = verify(folder, easy_set, "best.pt", path.name, "--spec", "foreign.json")
    assert done.exit_code == 1
    assert "the spec given by hand does not fit it" in done.stderr


def test_the_name_of_a_shipped_model_is_taken(
    folder: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(ZOO.iterdir())
    done = verify(folder, easy_set, "model.onnx", "fast")
    assert done.exit_code == 3
    assert "labels differ" in done.stderr
    assert sorted(ZOO.iterdir()) == before
    done = verify(folder, easy_set, "best.pt", "faster")
    assert done.exit_code == 1
    assert "neither a file nor a shipped model" in done.stderr


def test_wrong_values_of_the_second_output_are_exit_code_3(folder: Path, easy_set: Path) -> None:
    network, spec = load_checkpoint(folder / "best.pt")
    export_onnx(network, spec, folder / "logits.onnx", logits=True)
    done = verify(folder, easy_set, "best.pt", "logits.onnx")
    assert done.exit_code == 0, done.stderr
    assert "; logits: " in done.stdout
    model = read_model(folder / "logits.onnx")
    inner = model.graph.outputs[1]
    inner.name = "inner"
    shift = add_constant(model.graph, "shift", np.array(0.5, np.float32))
    moved = add_node(model.graph, "Add", [inner, shift], "logits", "move")
    moved.type, moved.shape = inner.type, inner.shape
    model.graph.outputs[1] = moved
    write_model(model, folder / "shifted.onnx")
    # Against the checkpoint, and against another file with logits.
    for reference in ("best.pt", "logits.onnx"):
        done = verify(folder, easy_set, reference, "shifted.onnx")
        assert done.exit_code == 3
        assert "logits differ by up to" in done.stderr
        assert "probabilities differ" not in done.stderr
    # A reference without logits: they are held against the file's own probabilities.
    assert verify(folder, easy_set, "model.onnx", "shifted.onnx").exit_code == 0
    moved.producer().op_type = "Mul"
    write_model(model, folder / "halved.onnx")
    done = verify(folder, easy_set, "model.onnx", "halved.onnx")
    assert done.exit_code == 3
    assert "not the softmax of its logits" in done.stderr
