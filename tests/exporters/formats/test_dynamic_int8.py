from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = pytest.mark.train

from support.tinynets import LABELS, fragile, pictures, settle, spec_for, trained, truth

from catdog_edge.errors import DataError, ModelError
from catdog_edge.runtime.model_file import read_spec
from catdog_edge.training.models.registry import IMAGENET, architecture
from exporters.checks.compare import Verification, compare_answers
from exporters.checks.session import ask, open_session, spec_in
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.formats.fp16 import halve
from exporters.formats.ort import write_ort
from exporters.formats.torch_export import export_onnx
from exporters.graph import io
from exporters.graph.split import join, split
from exporters.static_int8 import quantize
from exporters.static_int8.calibrate import check_pictures, measure_ranges, stratified
from exporters.static_int8.runtime_graph import float_layers, integer_layers, optimized_graph
from exporters.static_int8.sensitivity import give_back, rank_layers

FRAMES, TRUTH = pictures(48), truth(48)


def answers(path: Path, frames: np.ndarray = FRAMES) -> np.ndarray:
    session = open_session(path)
    return ask(session, spec_in(session, path), frames)


def write(model: onnx.ModelProto, calibrated: quantize.Calibrated, path: Path) -> Path:
    io.stamp(model, calibrated.spec.replace(precision="int8-static"))
    io.write_model(model, path)
    return path


def compared(reference: Path, candidate: Path) -> Verification:
    return compare_answers(
        answers(reference), answers(candidate), TRUTH, "int8-static", name="candidate"
    )


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network, spec = trained()
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    export_onnx(network, spec, path)
    found = answers(path)
    assert (found.argmax(1) == TRUTH).mean() > 0.9  # the pictures are worth judging by
    return path


@pytest.fixture(scope="module")
def calibrated(fp32: Path) -> quantize.Calibrated:
    return quantize.calibrate(fp32, pictures(40, seed=9))


@pytest.fixture(scope="module")
def fragile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network, spec = fragile()
    path = tmp_path_factory.mktemp("fragile") / "model.onnx"
    export_onnx(network, spec, path)
    assert (answers(path).argmax(1) == TRUTH).mean() > 0.9
    return path


def named_export(name: str, folder: Path) -> Path:
    arch = architecture(name)
    torch.manual_seed(0)
    spec = spec_for(arch.normalization, LABELS, arch.size, name)
    network = settle(arch.build(3), spec, pictures(6, arch.size))
    return export_onnx(network, spec, folder / f"{name}.onnx").path


# ---- dynamic --------------------------------------------------------------------------


def test_dynamic_quantizes_linear_layers_and_nothing_else(tmp_path: Path) -> None:
    source = named_export("simple_cnn", tmp_path)
    report = quantize_dynamic(source, tmp_path / "dynamic.onnx")
    assert report.quantized == ("classifier.1", "classifier.3", "classifier.5")
    assert report.share == pytest.approx(0.856, abs=0.001)
    assert report.bytes <= 1_200_000 < 3_000_000 < report.bytes_before
    found = io.operators(onnx.load(report.path))
    assert found["MatMulInteger"] == 3
    assert found["Conv"] == 6
    assert "ConvInteger" not in found
    spec = read_spec(report.path)
    assert spec == read_spec(source).replace(precision="int8-dynamic")
    frames = pictures(3, 224)
    assert np.abs(answers(report.path, frames) - answers(source, frames)).max() < 0.02


def test_a_dynamic_answer_depends_on_its_company_and_a_static_one_does_not(
    fp32: Path, calibrated: quantize.Calibrated, tmp_path: Path
) -> None:
    """Why int8 is checked and timed at batch 1."""
    dynamic = quantize_dynamic(fp32, tmp_path / "dynamic.onnx").path
    still = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    changes = {}
    for path in (dynamic, still):
        session = open_session(path)
        spec = spec_in(session, path)
        alone, together = (ask(session, spec, FRAMES, batch) for batch in (1, len(FRAMES)))
        changes[path] = np.abs(alone - together).max()
    assert changes[dynamic] > 1e-6
    assert changes[still] < 1e-7


def test_a_quantized_file_is_not_quantized_again(fp32: Path, tmp_path: Path) -> None:
    dynamic = quantize_dynamic(fp32, tmp_path / "dynamic.onnx").path
    for again in (
        lambda: quantize_dynamic(dynamic, tmp_path / "twice.onnx"),
        lambda: quantize.calibrate(dynamic, FRAMES),
        lambda: halve(dynamic),
    ):
        with pytest.raises(ModelError, match="int8-dynamic already"):
            again()


# ---- static ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["simple_cnn", "edge_cnn", pytest.param("efficientnet_lite0", marks=pytest.mark.slow)],
)
def test_the_frame_itself_feeds_the_first_integer_convolution(name: str, tmp_path: Path) -> None:
    source = named_export(name, tmp_path)
    calibrated = quantize.calibrate(source, pictures(4, architecture(name).size))
    path = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    runtime = optimized_graph(path)
    first, *others = runtime.graph.node
    assert first.input[0] == "frames"
    assert all("frames" not in node.input for node in others)
    if name == "simple_cnn":
        assert first.op_type == "QLinearConv"
    else:
        # Stride 2: over four pixels at once, two outputs at a time, and no pixel is moved for it.
        assert [node.op_type for node in (first, *others[:3])] == [
            "Reshape", "QLinearConv", "Reshape", "QLinearConv",
        ]  # fmt: skip
        weight = next(t for t in runtime.graph.initializer if t.name == others[0].input[3])
        assert list(weight.dims)[1:3] == [12, 3]
    kinds = io.operators(runtime)
    assert not {"QuantizeLinear", "Cast", "Conv", "FusedConv"} & set(kinds)
    # Every layer in integers, temperature and softmax in float.
    assert integer_layers(runtime, calibrated.layers) == set(calibrated.layers)
    assert runtime.graph.node[-1].op_type == "Softmax"
    if name == "simple_cnn":
        assert path.stat().st_size <= 850_000


def test_static_answers_are_close_and_sum_to_one(
    fp32: Path, calibrated: quantize.Calibrated, tmp_path: Path
) -> None:
    path = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    result = compared(fp32, path)
    assert result.passed, result.failures
    assert 1e-6 < result.difference < 0.1
    found = answers(path)
    assert np.abs(found.sum(1) - 1).max() < 1e-6
    # In steps of 1/256 there would be few different values.
    assert len(np.unique(found.round(6))) > 60
    assert read_spec(path).precision == "int8-static"


def test_a_mean_that_is_no_grey_level_stays_exact(tmp_path: Path) -> None:
    network, spec = trained(normalization=IMAGENET)
    source = export_onnx(network, spec, tmp_path / "model.onnx").path
    calibrated = quantize.calibrate(source, pictures(40, seed=9))
    assert calibrated.parts.grey is None
    path = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    assert compared(source, path).passed
    assert integer_layers(optimized_graph(path), calibrated.layers) == set(calibrated.layers)


@pytest.mark.parametrize("scheme", quantize.SCHEMES)
def test_every_scheme_loads_and_answers(
    scheme: quantize.Scheme, fp32: Path, calibrated: quantize.Calibrated, tmp_path: Path
) -> None:
    path = write(quantize.quantize(calibrated, scheme), calibrated, tmp_path / "static.onnx")
    assert compared(fp32, path).clear_agreement > 0.9


@pytest.mark.parametrize("layout", ["nhwc-uint8", "nchw-float"])
def test_other_layouts_and_fixed_batches_quantize_too(layout: str, tmp_path: Path) -> None:
    network, spec = trained()
    source = export_onnx(network, spec, tmp_path / "model.onnx", layout=layout, batch=2).path
    calibrated = quantize.calibrate(source, pictures(32, seed=9))
    path = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    assert compared(source, path).clear_agreement > 0.95
    dynamic = quantize_dynamic(source, tmp_path / "dynamic.onnx").path
    assert compared(source, dynamic).clear_agreement > 0.95
    assert open_session(path).get_inputs()[0].shape[0] == 2


def test_excluded_layers_run_in_float_in_the_file_as_shipped(
    calibrated: quantize.Calibrated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert calibrated.layers == ("first", "second", "third", "head")
    for in_float in ((), ("first",), ("second", "head"), ("first", "third")):
        path = write(
            quantize.quantize(calibrated, "u8s8", in_float), calibrated, tmp_path / "a.onnx"
        )
        runtime = optimized_graph(path)
        assert integer_layers(runtime, calibrated.layers) == set(calibrated.layers) - set(in_float)
        assert float_layers(runtime) == len(in_float)
    # Left as ONNX Runtime's quantizer leaves it, the layer is quantized at load after all.
    monkeypatch.setattr(quantize, "_hold_in_float", lambda model, name: None)
    path = write(
        quantize.quantize(calibrated, "u8s8", ("second",)), calibrated, tmp_path / "b.onnx"
    )
    assert "second" in integer_layers(optimized_graph(path), calibrated.layers)


def test_layers_in_float_are_the_very_layers_of_fp32(
    fp32: Path, calibrated: quantize.Calibrated, tmp_path: Path
) -> None:
    everything = quantize.quantize(calibrated, "u8s8", calibrated.layers)
    path = write(everything, calibrated, tmp_path / "static.onnx")
    session = open_session(path)
    assert float_layers(optimized_graph(path)) == len(calibrated.layers)
    found = ask(session, spec_in(session, path), FRAMES)
    # Only what lies between the layers (a sum, a pool) may still be in steps.
    assert np.abs(found - answers(fp32)).max() < 0.02


def test_the_worst_layers_go_back_to_float_until_the_answers_hold(
    fragile_file: Path, tmp_path: Path
) -> None:
    calibrated = quantize.calibrate(fragile_file, pictures(40, seed=9))
    ranked = []

    def judge(model: onnx.ModelProto) -> Verification:
        return compared(fragile_file, write(model, calibrated, tmp_path / "static.onnx"))

    def rank():
        ranked.append(rank_layers(calibrated, fragile_file, pictures(24, seed=9)))
        return ranked[-1]

    found = give_back(calibrated, judge, rank)
    assert not found.steps[0].verification.passed
    assert found.steps[0].in_float == ()
    assert found.passed
    assert set(found.in_float) == {"layers.loud", "layers.deaf"}
    assert found.in_float == tuple(entry.layer for entry in found.ranking[: len(found.in_float)])
    assert len(ranked) == 1
    errors = [entry.error for entry in found.ranking]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 5 * errors[-1]
    path = write(found.model, calibrated, tmp_path / "kept.onnx")
    assert not integer_layers(optimized_graph(path), found.in_float)


def test_giving_back_stops_and_says_that_it_did_not_help(
    fragile_file: Path, tmp_path: Path
) -> None:
    calibrated = quantize.calibrate(fragile_file, pictures(40, seed=9))

    def judge(model: onnx.ModelProto) -> Verification:
        return compared(fragile_file, write(model, calibrated, tmp_path / "static.onnx"))

    found = give_back(calibrated, judge, lambda: (), most=0)
    assert not found.passed
    assert len(found.steps) == 1
    assert "the same answer on" in found.steps[0].verification.failures[0]


# ---- calibration ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_every_calibration_gives_a_file_that_answers(
    method: str, fp32: Path, tmp_path: Path
) -> None:
    calibrated = quantize.calibrate(fp32, pictures(40, seed=9), method)
    path = write(quantize.quantize(calibrated), calibrated, tmp_path / "static.onnx")
    assert compared(fp32, path).clear_agreement > 0.9
    assert calibrated.pictures == 40


def test_ranges_hold_what_they_should() -> None:
    """A network of one ReLU on a known ramp with one far outlier."""
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    value = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 3]) for n in ("x", "y")
    ]
    made = onnx.helper.make_graph([node], "relu", value[:1], value[1:])
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    values = np.concatenate([np.linspace(-1, 3, 29_999), [100.0]]).astype(np.float32)

    def inputs():
        return iter(values.reshape(-1, 10, 3))

    assert measure_ranges(model, inputs, ("Relu",), "minmax") == {"x": (-1, 100), "y": (0, 100)}
    # One value in 30,000 is fewer than percentile gives up on each side.
    (low, high), of_relu = measure_ranges(model, inputs, ("Relu",), "percentile").values()
    assert -1.0 <= low < -0.9
    assert 2.9 < high < 3.1
    assert of_relu == pytest.approx((0.0, high), abs=0.05)  # a bin is that wide

    values[:] = np.random.default_rng(0).normal(0, 1, 30_000)
    values[0] = 100.0
    (low, high), of_relu = measure_ranges(model, inputs, ("Relu",), "entropy").values()
    assert -5 < low < -2
    assert 3 < high < 90
    assert 3 < of_relu[1] < 90  # the zeros, half of all values, do not outvote the rest
    constant = measure_ranges(model, lambda: iter([np.zeros((1, 3), np.float32)]), ("Relu",))
    assert constant == {"x": (0, 0), "y": (0, 0)}


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_calibration_needs_no_more_memory_for_more_pictures(method: str, fp32: Path) -> None:
    def peak(count: int) -> int:
        frames = np.broadcast_to(pictures(1), (count, 32, 32, 3))
        tracemalloc.start()
        quantize.calibrate(fp32, frames, method)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(4)
    few, many = peak(4), peak(200)
    activations_of_one = 4 * (8 * 16 * 16 * 4 + 16 * 16 * 16 * 2)
    assert many - few < 10 * activations_of_one


def test_a_calibration_sample_is_stratified() -> None:
    labels = np.array([0] * 500 + [1] * 40 + [2] * 300)
    picked = stratified(labels, 150)
    assert len(picked) == len(set(picked)) == 150
    assert np.bincount(labels[picked]).tolist() == [55, 40, 55]
    assert picked.max() > 800  # from all over, not the first ones
    assert stratified(labels, 5000).tolist() == list(range(840))


def test_too_few_pictures_or_classes_are_refused() -> None:
    with pytest.raises(DataError, match=r"31 training pictures to calibrate on.*--data"):
        check_pictures(np.arange(31) % 2, ("cat", "dog"), "folder")
    with pytest.raises(DataError, match=r"no 'dog'.*--data"):
        check_pictures(np.zeros(64, np.int64), ("cat", "dog"), "folder")
    check_pictures(np.arange(32) % 2, ("cat", "dog"), "folder")


# ---- half, ORT format, taking apart ----------------------------------------------------


@pytest.mark.parametrize("layout", ["nhwc-uint8", "nchw-float"])
def test_half_is_half_the_size_and_close(layout: str, tmp_path: Path) -> None:
    arch = architecture("edge_cnn")
    torch.manual_seed(0)
    spec = spec_for(arch.normalization, LABELS, arch.size, "edge_cnn")
    frames = pictures(6, arch.size)
    network = settle(arch.build(3), spec, frames)
    source = export_onnx(network, spec, tmp_path / "model.onnx", layout=layout).path
    model, spec = halve(source)
    io.stamp(model, spec)
    path = tmp_path / "half.onnx"
    io.write_model(model, path)
    assert path.stat().st_size < 0.52 * source.stat().st_size
    found, expected = answers(path, frames), answers(source, frames)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 1e-2
    session = open_session(path)
    assert session.get_inputs()[0].type == open_session(source).get_inputs()[0].type
    assert read_spec(path).precision == "fp16"


def test_ort_format_answers_the_same_and_keeps_the_spec(fp32: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.ort"
    write_ort(fp32, path)
    assert path.read_bytes()[4:8] == b"ORTM"
    assert read_spec(path) == read_spec(fp32)
    assert np.abs(answers(path) - answers(fp32)).max() < 1e-5


def test_a_file_taken_apart_and_joined_answers_the_same(fp32: Path, tmp_path: Path) -> None:
    parts = split(io.read_model(fp32))
    assert parts.grey == 127
    assert {node.op_type for node in parts.front.graph.node} == {"Transpose", "DequantizeLinear"}
    assert {node.op_type for node in parts.tail.graph.node} == {"Div", "Softmax"}
    whole = join(parts, parts.core)
    io.stamp(whole, read_spec(fp32))
    io.write_model(whole, tmp_path / "joined.onnx")
    assert np.abs(answers(tmp_path / "joined.onnx") - answers(fp32)).max() < 1e-6


def test_a_foreign_graph_is_not_taken_apart(tmp_path: Path) -> None:
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "foreign",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    model = onnx.helper.make_model(made)
    with pytest.raises(ModelError, match="export it again"):
        split(model)
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="--spec"):
        quantize_dynamic(tmp_path / "foreign.onnx", tmp_path / "never.onnx")
    assert not (tmp_path / "never.onnx").exists()
