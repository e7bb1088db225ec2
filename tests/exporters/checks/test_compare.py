from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="verifying needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="verifying needs onnx; install [train]")
pytestmark = pytest.mark.train

from click.testing import CliRunner
from support.tinynets import LABELS, pictures, settle, spec_for, trained

from catdog_edge.cli.main import main
from catdog_edge.errors import GateError
from catdog_edge.runtime.model_file import ZOO
from catdog_edge.spec import ModelSpec
from catdog_edge.training.evaluation.inference import logits
from catdog_edge.training.evaluation.metrics import softmax
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from catdog_edge.training.models.registry import architecture
from exporters.checks.compare import check_answers, compare_answers
from exporters.checks.flips import save_flip_sheet, write_flips
from exporters.checks.interface import check_graph, check_interface
from exporters.checks.outputs import with_logits
from exporters.checks.session import ask, open_session
from exporters.formats.torch_export import export_onnx
from exporters.graph import io
from exporters.static_int8 import quantize


def two(*first: float) -> np.ndarray:
    """Answers of two classes from the first one's probability."""
    return np.array([[p, 1 - p] for p in first], np.float32)


TRUTH = np.zeros(200, np.int64)


def shifted(by: float, flips: int = 0, unclear: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Reference and candidate on 200 pictures, of which some flip clearly or unclearly."""
    reference = np.full(200, 0.9)
    candidate = reference - by
    candidate[:flips] = 0.4
    reference[flips : flips + unclear] = 0.51
    candidate[flips : flips + unclear] = 0.49
    return two(*reference), two(*candidate)


@pytest.mark.parametrize(
    ("precision", "by", "flips", "unclear", "fails"),
    [
        ("fp32", 0.9e-4, 0, 0, ""),
        ("fp32", 1.2e-4, 0, 0, "differ by up to 1.20e-04, allowed is 1e-04"),
        ("fp32", 0.0, 0, 1, "same answer on 99.50%"),
        ("fp16", 0.9e-2, 0, 0, ""),
        ("fp16", 1.2e-2, 0, 0, "differ by up to 1.20e-02"),
        ("fp16", 0.0, 0, 2, "same answer on 99.00%"),
        ("int8-static", 0.2, 0, 0, ""),
        ("int8-static", 0.0, 0, 1, ""),  # where the two best are near each other, flips pass
        ("int8-static", 0.0, 3, 0, "same answer on 98.50% of pictures where"),
        ("int8-dynamic", 0.0, 3, 0, "accuracy changes by -1.50 points"),
    ],
)
def test_every_precision_has_its_limits(
    precision: str, by: float, flips: int, unclear: int, fails: str
) -> None:
    result = compare_answers(*shifted(by, flips, unclear), TRUTH, precision, name="model.onnx")
    assert len(result.flips) == flips + unclear
    if fails:
        assert fails in "; ".join(result.failures)
        with pytest.raises(GateError, match=r"^model\.onnx: "):
            result.require("model.onnx")
        assert GateError("").exit_code == 3
    else:
        assert result.failures == ()
        result.require("model.onnx")


def test_the_allowed_drop_is_the_callers() -> None:
    reference, candidate = shifted(0.0, 0, 2)  # a point of accuracy, on unclear pictures
    for allowed, passes in ((0.99, False), (1.0, True)):
        result = compare_answers(
            reference, candidate, TRUTH, "int8-static", name="x", max_drop=allowed
        )
        assert result.passed is passes
    assert result.accuracy is not None
    assert result.accuracy.change == pytest.approx(-0.01)
    assert result.accuracy.low < -0.01 < result.accuracy.high
    gain = compare_answers(candidate, reference, TRUTH, "int8-static", name="x", max_drop=0.0)
    assert gain.passed


def test_without_true_classes_accuracy_is_not_judged() -> None:
    result = compare_answers(*shifted(0.0, 0, 2), None, "int8-static", name="x")
    assert result.passed
    assert result.accuracy is None
    assert "accuracy" not in str(result)


def test_flips_are_listed_the_surest_first(tmp_path: Path) -> None:
    result = compare_answers(*shifted(0.0, 2, 3), TRUTH, "int8-static", name="x")
    margins = [flip.margin for flip in result.flips]
    assert margins == sorted(margins, reverse=True)
    assert {flip.index for flip in result.flips} == {0, 1, 2, 3, 4}
    flips = [("model.static.onnx", flip) for flip in result.flips]
    files = [f"folder/{number}.jpg" for number in range(200)]
    write_flips(tmp_path / "flips.csv", flips, ("cat", "dog"), files)
    rows = list(csv.DictReader((tmp_path / "flips.csv").open()))
    assert rows[0] == {
        "candidate": "model.static.onnx",
        "file": "folder/0.jpg",
        "truth": "cat",
        "reference_answer": "cat",
        "reference_probability": "0.900000",
        "candidate_answer": "dog",
        "candidate_probability": "0.600000",
        "reference_margin": "0.800000",
    }
    save_flip_sheet(tmp_path / "flips.png", flips, ("cat", "dog"), files, pictures(200))
    assert (tmp_path / "flips.png").read_bytes().startswith(b"\x89PNG")
    write_flips(tmp_path / "flips.csv", [], ("cat", "dog"), files)
    assert len((tmp_path / "flips.csv").read_text().splitlines()) == 1


def test_classes_in_a_script_that_the_font_lacks_are_no_warning(tmp_path: Path) -> None:
    result = compare_answers(*shifted(0.0, 2), TRUTH, "int8-static", name="x")
    flips = [("model.static.onnx", flip) for flip in result.flips]
    files = [f"猫/{number}.jpg" for number in range(200)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_flip_sheet(tmp_path / "flips.png", flips, ("猫", "犬"), files, pictures(200))
    assert (tmp_path / "flips.png").is_file()


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (np.full((3, 2), 0.5, np.float64), r"wanted float32 \[3, 2\], got float64 \[3, 2\]"),
        (np.full((2, 2), 0.5, np.float32), r"got float32 \[2, 2\]"),
        (np.array([[np.nan, 1], [0, 1], [0, 1]], np.float32), "1 answers are not finite"),
        (np.full((3, 2), 0.498, np.float32), r"do not sum to one \(off by 4\.0e-03"),
        (np.array([[-0.1, 1.1]] * 3, np.float32), "least -1.0e-01"),
    ],
)
def test_answers_that_are_no_probabilities_are_refused(answers: np.ndarray, message: str) -> None:
    with pytest.raises(GateError, match=message):
        check_answers(answers, 3, 2, "model.onnx")


def test_names_types_and_shapes_come_before_values() -> None:
    spec = spec_for()

    def value(name: str, kind: str, *shape: object) -> SimpleNamespace:
        return SimpleNamespace(name=name, type=f"tensor({kind})", shape=list(shape))

    frames = value("frames", "uint8", "N", 32, 32, 3)
    answer = value("probabilities", "float", "N", 3)
    check_graph([frames], [answer], spec, "x")
    check_graph([frames], [answer, value("logits", "float", 1, 3)], spec, "x", logits=True)
    for inputs, outputs, message in (
        ([value("input", "uint8", "N", 32, 32, 3)], [answer], r"input names.*'input'"),
        ([value("frames", "float", "N", 32, 32, 3)], [answer], r"input types.*float"),
        ([value("frames", "uint8", "N", 64, 64, 3)], [answer], r"input shapes.*64"),
        ([frames], [value("output", "float", "N", 3)], "output names"),
        ([frames], [value("probabilities", "double", "N", 3)], "output types"),
        ([frames], [value("probabilities", "float", "N", 2)], "output shapes"),
        ([frames, frames], [answer], "input names"),
        ([frames], [answer, value("logits", "float", "N", 3)], "output names"),
    ):
        with pytest.raises(GateError, match=message):
            check_graph(inputs, outputs, spec, "x")


def test_models_of_other_questions_are_not_compared() -> None:
    spec = spec_for()
    check_interface(spec, spec.replace(precision="fp16", layout="nchw-float"), "x")
    for other, message in (
        (spec.replace(labels=("dark", "bright", "striped")), "labels differ"),
        (spec_for(size=64), "input size differ"),
        (spec.replace(resize=spec.resize[1:]), "resize rule differ"),
    ):
        with pytest.raises(GateError, match=message):
            check_interface(spec, other, "x")


# ---- the same file in other runtimes ----------------------------------------------------


@pytest.fixture(scope="module")
def real_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray]]:
    """`simple_cnn` and the default architecture, with pictures of their size."""
    folder = tmp_path_factory.mktemp("files")
    made = {}
    for name in ("simple_cnn", "edge_cnn"):
        arch = architecture(name)
        torch.manual_seed(0)
        frames = pictures(4, arch.size)
        spec = spec_for(arch.normalization, LABELS, arch.size, name)
        network = settle(arch.build(3), spec, frames)
        head = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
        # A fresh network answers alike to all pictures, and equality would say nothing.
        head.weight.data *= 2 / float(logits(network, arch.normalization, frames).std(0).mean())
        head.bias.data -= torch.from_numpy(logits(network, arch.normalization, frames).mean(0))
        made[name] = export_onnx(network, spec, folder / f"{name}.onnx").path, frames
    return made


@pytest.mark.parametrize("name", ["simple_cnn", "edge_cnn"])
def test_the_file_answers_the_same_in_openvino(name: str, real_files: dict) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is a test dependency")
    path, frames = real_files[name]
    expected = ask(open_session(path), spec_of(path), frames)
    assert expected.std(0).max() > 0.1
    core = openvino.Core()
    # Without the hint it computes in bfloat16 where the processor can.
    compiled = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.abs(compiled([frames])["probabilities"] - expected).max() < 1e-4
    assert np.abs(compiled([frames[:1]])["probabilities"] - expected[:1]).max() < 1e-4


@pytest.mark.parametrize("name", ["simple_cnn", "edge_cnn"])
def test_the_file_answers_the_same_in_opencv(name: str, real_files: dict) -> None:
    import cv2

    path, frames = real_files[name]
    expected = ask(open_session(path), spec_of(path), frames)
    net = cv2.dnn.readNetFromONNX(str(path))
    for frame, wanted in zip(frames, expected, strict=True):
        net.setInput(frame[None])
        assert np.abs(net.forward("probabilities")[0] - wanted).max() < 1e-4


@pytest.fixture(scope="module")
def static_files(real_files: dict) -> dict[str, tuple[Path, np.ndarray]]:
    """The same in static int8."""
    made = {}
    for name, (source, frames) in real_files.items():
        path = source.with_name(f"{name}.static.onnx")
        model = quantize.quantize(quantize.calibrate(source, frames))
        io.stamp(model, spec_of(source).replace(precision="int8-static"))
        io.write_model(model, path)
        made[name] = path, frames
    return made


@pytest.mark.parametrize("name", ["simple_cnn", "edge_cnn"])
def test_static_int8_answers_nearly_the_same_in_openvino(name: str, static_files: dict) -> None:
    """It keeps its own roundings: docs/export.md says how far apart that was seen to be."""
    openvino = pytest.importorskip("openvino", reason="OpenVINO is a test dependency")
    path, frames = static_files[name]
    expected = ask(open_session(path), spec_of(path), frames)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    assert np.abs(compiled([frames])["probabilities"] - expected).max() < 0.05


def test_static_int8_in_opencv_is_for_the_default_architecture_alone(static_files: dict) -> None:
    """docs/export.md says so of OpenCV 5; OpenCV 4 is told there to give other answers."""
    import cv2

    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4's engine gives other answers for int8, as the docs say")
    path, frames = static_files["edge_cnn"]
    expected = ask(open_session(path), spec_of(path), frames)
    net = cv2.dnn.readNetFromONNX(str(path))
    for frame, wanted in zip(frames, expected, strict=True):
        net.setInput(frame[None])
        assert np.abs(net.forward("probabilities")[0] - wanted).max() < 0.05
    with pytest.raises(cv2.error, match="Assertion failed"):
        cv2.dnn.readNetFromONNX(str(static_files["simple_cnn"][0]))


def spec_of(path: Path) -> ModelSpec:
    return io.spec_of(io.read_model(path), path)


# ---- the command -------------------------------------------------------------------------


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
    bare = io.read_model(folder / "model.onnx")
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
    assert "validation pictures of lamps" in done.stderr
    assert (folder / "verify-flips.csv").read_text().startswith("candidate,file,truth")
    assert (folder / "verify-flips.png").is_file()


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
    rows = list(csv.DictReader((folder / "verify-flips.csv").open()))
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
    model = io.read_model(path)
    del model.metadata_props[:]
    for old, new in (("frames", "images"), ("probabilities", "output0")):
        io.rename(model.graph.node, old, new)
    model.graph.input[0].name = "images"
    model.graph.output[0].name = "output0"
    onnx.save(model, path)
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


# ---- the second output -------------------------------------------------------------------


def test_logits_have_a_limit_in_every_precision() -> None:
    spec = spec_for(labels=("cat", "dog"), temperature=2.0)
    values = np.random.default_rng(0).normal(0, 3, (200, 2)).astype(np.float32)
    answers = softmax(values, 2.0)
    for precision, allowed in (("fp32", 1e-4), ("fp16", 1e-2), ("int8-static", 0.25)):
        met = compare_answers(answers, answers, None, precision, name="x")
        for factor, passes in ((0.9, True), (1.1, False)):
            # Both logits move alike: the probabilities stay what they are.
            moved = values + np.float32(factor * allowed * np.abs(values).max())
            judged = with_logits(met, answers, moved, values, spec)
            assert judged.logits_difference == pytest.approx(factor * allowed, rel=0.02)
            assert judged.passed is passes
            assert passes or "logits differ by up to" in judged.failures[0]
    assert with_logits(met, answers, values, None, spec).passed
    own = with_logits(met, answers, values / 2, None, spec)
    assert "not the softmax of its logits" in own.failures[0]
    assert (
        "not finite numbers of shape [200, 2]"
        in (with_logits(met, answers, values[:, :1], None, spec).failures[0])
    )


def test_wrong_values_of_the_second_output_are_exit_code_3(folder: Path, easy_set: Path) -> None:
    network, spec = load_checkpoint(folder / "best.pt")
    export_onnx(network, spec, folder / "logits.onnx", logits=True)
    done = verify(folder, easy_set, "best.pt", "logits.onnx")
    assert done.exit_code == 0, done.stderr
    assert "; logits: " in done.stdout
    model = io.read_model(folder / "logits.onnx")
    for node in model.graph.node:
        node.output[:] = ["inner" if name == "logits" else name for name in node.output]
        node.input[:] = ["inner" if name == "logits" else name for name in node.input]
    shift = io.put(model, "shift", np.array(0.5, np.float32))
    model.graph.node.append(onnx.helper.make_node("Add", ["inner", shift], ["logits"]))
    io.write_model(model, folder / "shifted.onnx")
    # Against the checkpoint, and against another file with logits.
    for reference in ("best.pt", "logits.onnx"):
        done = verify(folder, easy_set, reference, "shifted.onnx")
        assert done.exit_code == 3
        assert "logits differ by up to" in done.stderr
        assert "probabilities differ" not in done.stderr
    # A reference without logits: they are held against the file's own probabilities.
    assert verify(folder, easy_set, "model.onnx", "shifted.onnx").exit_code == 0
    next(n for n in model.graph.node if n.output[0] == "logits").op_type = "Mul"
    io.write_model(model, folder / "halved.onnx")
    done = verify(folder, easy_set, "model.onnx", "halved.onnx")
    assert done.exit_code == 3
    assert "not the softmax of its logits" in done.stderr
