"""Opening model files: what is wrong, which file, what to do."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.paths import DATA, ROOT

onnxruntime = pytest.importorskip("onnxruntime")

from catdog_edge import Classifier
from catdog_edge.cli.main import main
from catdog_edge.errors import ModelError
from catdog_edge.runtime.model_file import ZOO, find_model, read_spec, shipped_models

TINY = DATA / "tiny.onnx"


@pytest.mark.parametrize("name", ["tiny", "tiny_known", "tiny_float"])
def test_the_spec_is_read_without_the_onnx_package(name: str) -> None:
    spec = read_spec(DATA / f"{name}.onnx")
    assert spec.labels == ("cat", "dog")
    assert spec.size == (32, 32)
    assert read_spec((DATA / f"{name}.onnx").read_bytes()) == spec


@pytest.mark.parametrize(
    ("file", "said", "remedy"),
    [
        ("bad_no_spec.onnx", "no spec of catdog-edge", "catdog-edge import"),
        ("bad_opset999.onnx", "opset 999", "upgrade onnxruntime"),
        ("bad_ir99.onnx", "IR version 99", "upgrade onnxruntime"),
        ("make_tiny.py", "not an ONNX file", "export it again"),
    ],
)
def test_a_bad_file_is_one_line_with_file_and_remedy(file: str, said: str, remedy: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_spec(DATA / file)
    message = str(caught.value)
    assert str(DATA / file) in message
    assert said in message
    assert remedy in message
    assert "\n" not in message
    assert "onnxruntime_src" not in message


def test_a_file_that_is_not_there_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx.*shipped model"):
        find_model(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="folder"):
        find_model(tmp_path)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelError, match=r"empty\.onnx is empty"):
        find_model(tmp_path / "empty.onnx")
    with pytest.raises(ModelError, match="bytes is empty"):
        find_model(b"")
    (tmp_path / "best.pt").write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"checkpoint.*catdog-edge export --weights"):
        find_model(tmp_path / "best.pt")


def test_a_path_is_a_path_and_a_name_is_a_string(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"no model fast: .* a shipped model \(accurate, fast\)"):
        find_model(Path("fast"))
    (tmp_path / "fast").write_bytes(TINY.read_bytes())
    assert find_model(Path("fast")).path == tmp_path / "fast"
    assert find_model("fast").path == ZOO / "fast.onnx"
    assert find_model("fast").shipped == "fast"
    assert find_model(None).shipped == "fast"
    assert find_model(ZOO / "fast.onnx").shipped is None


@pytest.mark.parametrize("model", [123, 1.5, ["fast"], {"a": "\n" * 500}, object(), True])
def test_what_is_no_model_is_a_type_error_that_says_what_came(model: object) -> None:
    with pytest.raises(TypeError) as caught:
        find_model(model)  # type: ignore[arg-type]
    message = str(caught.value)
    assert f"got {type(model).__name__} " in message
    assert "path" in message
    assert "bytes" in message
    assert "shipped model" in message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "notes.txt/model.onnx"])
def test_a_name_that_cannot_be_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").touch()
    for model in (name, Path(name)):
        with pytest.raises(ModelError, match=r"there is no|cannot be read"):
            find_model(model)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes in the file system")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="is a pipe or a device"):
        find_model(tmp_path / "model.onnx")


def test_without_a_spec_the_commands_that_take_one_are_named(tmp_path: Path) -> None:
    file = tmp_path / "of a friend.onnx"
    file.write_bytes((DATA / "bad_no_spec.onnx").read_bytes())
    with pytest.raises(ModelError) as caught:
        read_spec(file)
    commands = re.findall(r"`catdog-edge ([^`]* --spec [^`]*)`", str(caught.value))
    assert [command.split()[0] for command in commands] == ["info"]
    # As it stands there, with a spec, it works.
    spec = tmp_path / "spec.json"
    spec.write_text(read_spec(TINY).to_json())
    typed = [part.replace("FILE.json", str(spec)) for part in shlex.split(commands[0])]
    assert typed[1] == str(file)
    done = CliRunner().invoke(main, typed)
    assert done.exit_code == 0, done.output
    assert "0 cat, 1 dog" in done.stdout
    with pytest.raises(ModelError, match=r"info FILE\.onnx --spec"):
        read_spec(file.read_bytes())


@pytest.mark.train
def test_the_docs_make_a_file_of_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    docs = (ROOT / "docs" / "runtime.md").read_text("utf-8")
    (network,) = re.findall(r"```python\n(.*?)```", docs, re.DOTALL)
    # A small network in place of torchvision's: it is quicker.
    from support.models.tiny_nets import TinyNet

    made = "torchvision.models.resnet18(num_classes=3)"
    assert made in network
    exec(network.replace(made, "TinyNet(3).eval()").replace("224", "32"), {"TinyNet": TinyNet})
    frame = np.zeros((40, 60, 3), np.uint8)
    assert Classifier("ours.onnx")(frame).labels == ("cat", "dog", "fox")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    file = tmp_path / "secret.onnx"
    file.write_bytes(TINY.read_bytes())
    file.chmod(0)
    with pytest.raises(ModelError, match="permissions"):
        find_model(file)


def test_a_file_cut_anywhere_is_one_line_or_answers_right(tmp_path: Path) -> None:
    """A cut may hit the end of a field; then the spec is missing, never a default."""
    data = TINY.read_bytes()
    for length in range(1, len(data) - 1, 17):
        file = tmp_path / "cut.onnx"
        file.write_bytes(data[:length])
        said = ""
        try:
            spec = read_spec(file)
        except ModelError as error:
            said = str(error)
        if said:
            assert said.startswith(f"{file}: ")
            assert "\n" not in said
        else:
            # Only what comes after the spec (the list of opsets) was cut.
            assert spec == read_spec(TINY)


def _with_spec(text: bytes) -> bytes:
    """`tiny.onnx` with other metadata of the same length."""
    data = TINY.read_bytes()
    start = data.index(b'{"architecture"')
    end = data.index(b"}", data.rindex(b'"schema"')) + 1
    assert len(text) <= end - start
    return data[:start] + text.ljust(end - start) + data[end:]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{half of", "damaged"),
        (b"[]", "damaged"),
        (b'{"schema": 99}', "schema 99.*install a newer catdog-edge"),
        (b'{"schema": 1, "labels": ["cat"]}', "lacks 'architecture'"),
    ],
)
def test_a_damaged_or_newer_spec_is_an_error_that_names_the_file(
    tmp_path: Path, text: bytes, said: str
) -> None:
    file = tmp_path / "odd.onnx"
    file.write_bytes(_with_spec(text))
    with pytest.raises(ModelError, match=f"odd.onnx: .*{said}"):
        read_spec(file)


def test_a_graph_that_differs_from_its_spec_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "other.onnx"
    data = TINY.read_bytes()
    file.write_bytes(data.replace(b'"labels": ["cat", "dog"]', b'"labels": ["a","b","c"] '))
    with pytest.raises(ModelError, match=r"other.onnx: its graph is not what its spec says"):
        read_spec(file)


def test_every_shipped_model_has_a_spec_and_a_card() -> None:
    for name in shipped_models():
        spec = read_spec(name)
        assert spec.layout == "nhwc-uint8"
        assert (ZOO / f"{name}.md").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
def test_a_path_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    for file in (tmp_path / os.fsdecode(b"\xff.onnx"), tmp_path / os.fsdecode(b"\xff") / "a.onnx"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(TINY.read_bytes())
        for model in (file, os.fsencode(file).decode("utf-8", "surrogateescape")):
            with pytest.raises(ModelError, match="not UTF-8; rename") as caught:
                find_model(model)
            str(caught.value).encode()


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted there")
def test_a_current_folder_that_was_deleted_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(
        ModelError, match=r"^x\.onnx: the current folder is not there any more.*cd$"
    ):
        find_model("x.onnx")
    assert find_model(TINY).path == TINY


def test_weights_in_a_second_file_go_with_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.external_data_helper import set_external_data

    model = onnx.load(TINY)
    weight = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    (tmp_path / "w.data").write_bytes(weight.raw_data)
    set_external_data(weight, "w.data")
    weight.ClearField("raw_data")
    file = tmp_path / "two.onnx"
    file.write_bytes(model.SerializeToString())
    assert Classifier(file, "cpu").spec.labels == ("cat", "dog")
    for folder in (tmp_path, tmp_path.parent):
        monkeypatch.chdir(folder)
        for use in (read_spec, lambda data: Classifier(data, "cpu")):
            with pytest.raises(ModelError, match="second file; give its path instead of its bytes"):
                use(file.read_bytes())
    (tmp_path / "w.data").write_bytes(b"abc")
    with pytest.raises(ModelError, match="cut short"):
        Classifier(file, "cpu")
    assert capfd.readouterr().err == ""


def test_shapes_that_cannot_be_answered_are_refused() -> None:
    onnx = pytest.importorskip("onnx")
    none = onnx.load(TINY)
    none.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    with pytest.raises(ModelError, match=r"\(N > 0\), found frames uint8 \[0, "):
        read_spec(none.SerializeToString())
    for columns in (1, 2):
        model = onnx.load(DATA / "tiny_known.onnx")
        (known,) = (one for one in model.graph.output if one.name == "known")
        for node in model.graph.node:
            node.output[:] = ["inner" if name == "known" else name for name in node.output]
        shape = onnx.numpy_helper.from_array(np.array([-1, 1]), "shape")
        repeats = onnx.numpy_helper.from_array(np.array([1, columns]), "repeats")
        model.graph.initializer.extend([shape, repeats])
        make = onnx.helper.make_node
        model.graph.node.append(make("Reshape", ["inner", "shape"], ["upright"]))
        model.graph.node.append(make("Tile", ["upright", "repeats"], ["known"]))
        known.type.tensor_type.shape.dim.add().dim_value = columns
        if columns == 1:
            assert read_spec(model.SerializeToString()).labels == ("cat", "dog")
            continue
        with pytest.raises(ModelError, match=r"expected the output known float \[N\] or \[N, 1\]"):
            read_spec(model.SerializeToString())


ELEMENTS = {1: "float", 7: "int64", 10: "float16", 11: "double"}
"""Numbers of element types in ONNX, and their names."""


@pytest.mark.parametrize("element", ELEMENTS)
def test_answers_of_another_type_are_not_what_the_spec_says(element: int) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(TINY)
    (output,) = (one for one in model.graph.output if one.name == "probabilities")
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output.name else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Cast", ["inner"], [output.name], to=element))
    output.type.tensor_type.elem_type = element
    data = model.SerializeToString()
    if element == 1:
        assert read_spec(data).labels == ("cat", "dog")
        return
    with pytest.raises(
        ModelError, match=rf"probabilities float \[N, 2\].* found .*{ELEMENTS[element]}"
    ):
        read_spec(data)
