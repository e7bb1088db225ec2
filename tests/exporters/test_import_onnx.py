"""The command `catdog-edge import`, on small networks of several forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="importing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="importing needs onnx; install [train]")
pytestmark = pytest.mark.train

import onnxruntime
from click.testing import CliRunner
from onnx import helper, numpy_helper
from support.models.foreign_classifiers import FRAMES, LABELS, MEAN, SIZE, STD, network, theirs

from catdog_edge.cli.main import main
from catdog_edge.errors import GateError, ModelError
from catdog_edge.runtime.classifier import Classifier
from catdog_edge.runtime.model_file import read_spec
from exporters import import_onnx as module
from exporters.export import export
from exporters.export_steps import ExportOptions
from exporters.formats.ort import write_ort
from exporters.graph.onnx_file import read_model, write_model
from exporters.import_onnx import Imported, ImportOptions, import_onnx, read_labels


def adopt(path: Path, **options: object) -> Imported:
    given = {"labels": LABELS, "limit": 8, "mean": MEAN, "std": STD} | options
    return import_onnx(ImportOptions(path, **given))


@pytest.mark.parametrize(
    ("form", "colour"),
    [
        ({}, "rgb"),
        ({}, "bgr"),
        ({"end": "Softmax"}, "rgb"),
        ({"batch": 2, "layout": "nhwc-float"}, "rgb"),
        ({"layout": "nhwc-float", "opset": 11}, "bgr"),
        ({"layout": "nhwc-uint8", "end": "Softmax"}, "rgb"),
        ({"layout": "nhwc-uint8", "batch": 1}, "bgr"),
        ({"layout": "nchw-uint8"}, "rgb"),
    ],
)
def test_the_new_file_answers_frames_as_theirs(tmp_path: Path, form: dict, colour: str) -> None:
    layout = form.get("layout", "nchw-float")
    file = network(tmp_path / "theirs.onnx", **form)
    inside = {"mean": None, "std": None} if layout.endswith("uint8") else {}
    made = adopt(file, colour=colour, **inside)
    assert made.path == tmp_path / "theirs-imported.onnx"
    with Classifier(made.path, "cpu") as ours:
        found = ours.probabilities(list(FRAMES))
    expected = theirs(file, layout, colour == "bgr")
    assert np.ptp(expected, axis=0).max() > 0.2  # worth comparing
    assert np.abs(found - expected).max() < 1e-5
    assert (found.argmax(1) == expected.argmax(1)).all()
    session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    batch = form.get("batch", "N")
    assert session.get_inputs()[0].shape == [batch, SIZE, SIZE, 3]
    assert [value.shape for value in session.get_outputs()] == [[batch, 3]]


def test_one_output_of_a_sigmoid_becomes_two_classes(tmp_path: Path) -> None:
    file = network(tmp_path / "binary.onnx", end="Sigmoid", outputs=1)
    made = adopt(file, labels="cat,dog")
    with Classifier(made.path, "cpu") as ours:
        found = ours.probabilities(list(FRAMES))
    assert np.abs(found[:, 1:] - theirs(file, "nchw-float")).max() < 1e-5
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("sigmoid", [True, False])
def test_of_one_value_the_graph_tells_what_it_is(tmp_path: Path, sigmoid: bool) -> None:
    """A sigmoid counts before a change of shape as well; without one 0..1 may be either."""
    file = network(tmp_path / "binary.onnx", end="Sigmoid", outputs=1)
    model = onnx.load(file)
    model.graph.node[-1].output[0] = "flat answers"
    if not sigmoid:  # the mean of ReLUs and a small bias
        model.graph.node[-1].op_type = "Identity"
        for one in model.graph.initializer:
            if one.name in ("weight", "bias"):
                small = np.abs(numpy_helper.to_array(one)) / 100
                one.CopyFrom(numpy_helper.from_array(small, one.name))
    model.graph.node.append(helper.make_node("Flatten", ["flat answers"], ["answers"], axis=1))
    onnx.save(model, file)
    if not sigmoid:
        with pytest.raises(ModelError, match=r"output answers is in 0\.\.1 but no Sigmoid's"):
            adopt(file, labels="cat,dog")
        return
    with Classifier(adopt(file, labels="cat,dog").path, "cpu") as ours:
        found = ours.probabilities(list(FRAMES))
    assert np.abs(found[:, 1:] - theirs(file, "nchw-float")).max() < 1e-5


@pytest.mark.parametrize("axes", [[], [1]])
def test_the_first_output_may_have_no_row_for_each_image(tmp_path: Path, axes: list[int]) -> None:
    file = network(tmp_path / "theirs.onnx")
    model = onnx.load(file)
    model.graph.node.append(helper.make_node("ReduceMax", ["flat"], ["top"], keepdims=0))
    model.graph.node.append(helper.make_node("Reshape", ["top", "axes"], ["most"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), "axes"))
    most = helper.make_tensor_value_info("most", onnx.TensorProto.FLOAT, axes)
    model.graph.output.insert(0, most)
    onnx.save(model, file)
    assert adopt(file).verification.passed


def test_size_and_place_of_channels_are_given_where_the_file_shows_none(tmp_path: Path) -> None:
    file = network(tmp_path / "any.onnx", size="side")
    with pytest.raises(ModelError, match="input frames takes images of any size; give --size"):
        adopt(file)
    spec = read_spec(adopt(file, size=SIZE, resize="crop").path)
    assert (spec.size, spec.resize[0].crop, spec.architecture) == ((32, 32), 1.0, "imported:any")
    assert spec.normalization.mean == pytest.approx([255 * value for value in MEAN])


@pytest.mark.parametrize(
    ("form", "options", "said"),
    [
        ({"more": ("age",)}, {}, "expected one input, the images, found frames.*; age float"),
        ({"channels": 1}, {}, "has 1 channels, a frame has three"),
        ({"domain": "com.microsoft"}, {}, r"not ONNX's own \(com.microsoft.Relu\)"),
        ({}, {"size": 64}, "input frames takes 32x32; leave out --size"),
        ({}, {"layout": "nhwc-uint8"}, "frames float.*, not nhwc-uint8"),
        ({}, {"labels": "cat,dog"}, r"each of the 2 labels, found logits float32 \[8, 3\]"),
        ({}, {"labels": None}, "does not say what its outputs mean; give --labels"),
        ({}, {"labels": "cat,cat,dog"}, "different names"),
        ({}, {"output": "other"}, "has no output other, but logits"),
        ({"layout": "nhwc-uint8"}, {}, "takes bytes.*leave out --mean"),
        ({"size": "side"}, {"size": 8193}, "--size is at most 8,192, got 8,193"),
        ({"end": "Sigmoid"}, {}, r"theirs\.onnx: its output .*answers is that of a Sigmoid"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, form: dict, options: dict, said: str) -> None:
    file = network(tmp_path / "theirs.onnx", **form)
    with pytest.raises(ModelError, match=said):
        adopt(file, **options)
    assert not list(tmp_path.glob("*-imported.onnx"))


def test_quantized_half_and_our_own_files_are_refused(tmp_path: Path) -> None:
    model = onnx.load(network(tmp_path / "theirs.onnx"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float16), "half"))
    onnx.save(model, tmp_path / "half.onnx")
    with pytest.raises(ModelError, match=r"weights are float16 \(half\); import the float32"):
        adopt(tmp_path / "half.onnx")
    ours = adopt(tmp_path / "theirs.onnx").path
    with pytest.raises(ModelError, match="a file of catdog-edge already"):
        adopt(ours)
    model.graph.node[1].op_type = "DequantizeLinear"
    onnx.save(model, tmp_path / "int8.onnx")
    with pytest.raises(ModelError, match=r"quantized already \(DequantizeLinear\)"):
        adopt(tmp_path / "int8.onnx")
    with pytest.raises(ModelError, match=r"there is no file .*none\.onnx"):
        adopt(tmp_path / "none.onnx")


def test_labels_come_from_a_file_or_from_imagenet(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("Katze\n Hund\n\n", encoding="utf-8-sig")  # as Windows' editors write it
    assert read_labels(str(names), Path()) == ("Katze", "Hund")
    breeds = [f"breed {number}" for number in range(120)]
    assert read_labels(",".join(breeds), Path()) == tuple(breeds)
    with pytest.raises(ModelError, match=r"cannot read the labels none\.txt: No such file"):
        read_labels("none.txt", Path())
    config = tmp_path / "config.json"
    config.write_text('{"id2label": {"1": "b", "0": "a"}}')
    assert read_labels(str(config), Path()) == ("a", "b")
    config.write_text("{}")
    with pytest.raises(ModelError, match=r"cannot read the labels .*id2label"):
        read_labels(str(config), Path())
    pytest.importorskip("torchvision")
    labels = read_labels("imagenet", Path())
    assert (len(set(labels)), labels[281]) == (1000, "tabby")


def test_what_ultralytics_writes_into_a_file_is_taken(tmp_path: Path) -> None:
    file = network(tmp_path / "yolo.onnx", end="Softmax", batch=1)
    model = onnx.load(file)
    said = {"task": "classify", "names": "{0: 'cat, tabby', 1: 'dog', 2: 'fox'}"}
    helper.set_model_props(model, said)
    onnx.save(model, file)
    spec = read_spec(adopt(file, labels=None).path)
    assert (spec.labels[0], spec.resize[0].crop) == ("cat, tabby", 1.0)
    for change, wrong in (
        ({"names": "{0: cat"}, "names is damaged"),
        ({"task": "detect"}, "detect"),
    ):
        helper.set_model_props(model, said | change)
        onnx.save(model, file)
        with pytest.raises(ModelError, match=wrong):
            adopt(file, labels=None)


def test_a_file_that_answers_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = network(tmp_path / "theirs.onnx")
    right = module.add_input
    monkeypatch.setattr(  # as if the colours were mixed up
        module, "add_input", lambda *a, bgr, **more: right(*a, bgr=not bgr, **more)
    )
    done = CliRunner().invoke(main, ["import", str(file), "--labels", LABELS, "--limit", "8"])
    assert done.exit_code == 3
    assert "theirs-imported.onnx: " in done.stderr
    assert not (tmp_path / "theirs-imported.onnx").exists()


def test_the_command_prints_json_and_predict_takes_its_file(tmp_path: Path) -> None:
    file, out = network(tmp_path / "theirs.onnx"), tmp_path / "ours.onnx"
    command = ["import", str(file), "--labels", LABELS, "--mean", "0.5", "--std", "0.2,0.2,0.2"]
    done = CliRunner().invoke(main, [*command, "--limit", "8", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["file"] == str(out)
    assert document["verification"]["passed"] is True
    (tmp_path / "below").mkdir()
    for same in (file, tmp_path / "below" / ".." / file.name):
        done = CliRunner().invoke(main, [*command, "--out", str(same)])
        assert (done.exit_code, "give --out another name" in done.stderr) == (1, True)


def export_options(weights: Path, data: Path, **options: object) -> ExportOptions:
    given = {"calibration_pictures": 32, "keep_slower": True} | options
    return ExportOptions(weights=weights, data=str(data), out=weights.parent / "out", **given)


def test_the_int8_file_of_an_imported_one_is_not_exported_again(
    tmp_path: Path, easy_set: Path
) -> None:
    """It would take the place of the fp32 file."""
    ours = adopt(network(tmp_path / "theirs.onnx")).path
    write_model(read_model(ours), ours, read_spec(ours).replace(precision="int8-static"))
    with pytest.raises(ModelError, match="is int8-static already; give the fp32 file"):
        export(export_options(ours, easy_set))
    assert not (tmp_path / "out").exists()


def test_an_imported_file_in_ort_format_is_refused_by_name(tmp_path: Path, easy_set: Path) -> None:
    ours = tmp_path / "ours.ort"
    write_ort(adopt(network(tmp_path / "theirs.onnx")).path, ours)
    with pytest.raises(ModelError, match=r"own format; give the \.onnx file"):
        export(export_options(ours, easy_set))


@pytest.mark.parametrize(
    "option", [{"layout": "nchw-float"}, {"batch": 4}, {"opset": 14}, {"logits": True}]
)
def test_an_imported_file_keeps_its_graph(tmp_path: Path, easy_set: Path, option: dict) -> None:
    ours = adopt(network(tmp_path / "theirs.onnx", opset=16)).path
    with pytest.raises(ModelError, match=f"graph stays as it is; leave out --{next(iter(option))}"):
        export(export_options(ours, easy_set, **option))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("quantize", ["auto", "all"])
def test_without_a_linear_layer_the_dynamic_file_alone_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, easy_set: Path, quantize: str
) -> None:
    monkeypatch.setattr("exporters.export_steps.TIMING_SECONDS", 0.1)
    model = onnx.load(network(tmp_path / "theirs.onnx"))
    flat, head = model.graph.node[-2:]
    next(one for one in model.graph.initializer if one.name == "weight").dims.extend([1, 1])
    head.CopyFrom(helper.make_node("Flatten", ["scores"], ["logits"]))
    flat.CopyFrom(helper.make_node("Conv", ["means", "weight", "bias"], ["scores"]))
    onnx.save(model, tmp_path / "theirs.onnx")
    ours = adopt(tmp_path / "theirs.onnx").path
    done = export(export_options(ours, easy_set, quantize=quantize))
    refused = {file.name: file.refused for file in done.files if file.refused}
    assert refused["model.dynamic.onnx"].startswith("model.onnx has no linear layer to quantize")
    assert (tmp_path / "out" / "model.onnx").is_file()
    assert not (tmp_path / "out" / "model.dynamic.onnx").exists()
    with pytest.raises(GateError, match=r"model\.dynamic\.onnx: model\.onnx has no linear"):
        done.require()


@pytest.mark.slow
def test_static_int8_of_an_imported_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, easy_set: Path
) -> None:
    monkeypatch.setattr("exporters.export_steps.TIMING_SECONDS", 0.1)
    ours = adopt(network(tmp_path / "theirs.onnx", layout="nhwc-float", opset=16)).path
    done = export(export_options(ours, easy_set, quantize="static"))
    assert done.document["options"]["opset"] == 16
    assert [file.name for file in done.files if not file.refused] == [
        "model.onnx",
        "model.static.onnx",
    ]
    assert done.files[1].verification.accuracy is None  # its classes are not those of the images
    assert (tmp_path / "out" / "model.static.onnx").stat().st_size > 0
