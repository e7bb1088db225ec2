"""The first convolution over taken pixels: the same integers come out, wherever it is done."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

onnx = pytest.importorskip("onnx", reason="graphs need onnx; install [train]")
pytest.importorskip("onnxscript", reason="graphs need onnxscript; install [train]")
pytest.importorskip("onnxruntime", reason="graphs are run here; install a flavour")
pytestmark = pytest.mark.train

import onnx_ir as ir
import onnxruntime

from exporters.graph.onnx_file import clean
from exporters.static_int8.space_to_depth import space_to_depth

HEIGHT, FILTERS = 22, 5


def quantized(
    kernel: int = 3,
    stride: int = 2,
    pads: tuple[int, int, int, int] = (1, 1, 1, 1),
    width: int = 24,
    weights: type = np.int8,
    activation: str = "Relu",
    in_float: bool = False,
    bias: bool = True,
) -> ir.Model:
    """A graph as the quantizer writes it: frames, one convolution, a mean of every map."""
    rng = np.random.default_rng(kernel + 10 * width)
    limits = np.iinfo(weights)
    each = FILTERS if weights is np.int8 else ()
    make = onnx.helper.make_node
    constants: dict[str, npt.NDArray] = {
        "one": np.array(1, np.float32),
        "grey": np.array(127, np.uint8),
        "w": rng.integers(limits.min, limits.max + 1, (FILTERS, 3, kernel, kernel), weights),
        "w_scale": rng.uniform(1e-4, 1e-3, each).astype(np.float32),
        "w_zero": np.zeros(each, weights) if weights is np.int8 else np.array(131, weights),
        "b": rng.integers(-900, 900, FILTERS, np.int32),
        "b_scale": rng.uniform(1e-4, 1e-3, FILTERS).astype(np.float32),
        "b_zero": np.zeros(FILTERS, np.int32),
        "y_scale": np.array(0.02, np.float32),
        "y_zero": np.array(0 if activation else 100, np.uint8),
        "low": np.array(0, np.float32),
        "high": np.array(4, np.float32),
    }
    nodes = [
        make("Transpose", ["frames"], ["nchw"], "nchw", perm=(0, 3, 1, 2)),
        make("DequantizeLinear", ["nchw", "one", "grey"], ["x"], "x"),
        make("DequantizeLinear", ["w", "w_scale", "w_zero"], ["weight"], "weight", axis=0),
        make("DequantizeLinear", ["b", "b_scale", "b_zero"], ["bias"], "bias", axis=0),
        make(
            "Conv", ["x", "weight", *(["bias"] if bias else [])], ["y"], "first",
            kernel_shape=(kernel, kernel), strides=(stride, stride), pads=pads,
        ),
    ]  # fmt: skip
    if in_float:
        shape = (FILTERS, 3, kernel, kernel)
        constants["weight"] = rng.normal(0, 0.01, shape).astype(np.float32)
        nodes = [node for node in nodes if node.name != "weight"]
    answer = "y"
    if activation:
        ends = ["low", "high"] if activation == "Clip" else []
        nodes.append(make(activation, ["y", *ends], ["active"], "active"))
        answer = "active"
    nodes += [
        make("QuantizeLinear", [answer, "y_scale", "y_zero"], ["q"], "q"),
        make("DequantizeLinear", ["q", "y_scale", "y_zero"], ["maps"], "maps"),
        make("GlobalAveragePool", ["maps"], ["means"], "means"),
    ]
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        nodes,
        "toy",
        [value("frames", onnx.TensorProto.UINT8, ["N", HEIGHT, width, 3])],
        [
            value("maps", onnx.TensorProto.FLOAT, ["N", FILTERS, "h", "w"]),
            value("means", onnx.TensorProto.FLOAT, ["N", FILTERS, 1, 1]),
        ],
        [onnx.numpy_helper.from_array(np.array(v), name) for name, v in constants.items()],
    )
    model = onnx.helper.make_model(
        body, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    toy = ir.from_proto(model)
    clean(toy)
    return toy


def answers(model: ir.Model, count: int, optimized: bool) -> list[npt.NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    width = session.get_inputs()[0].shape[2]
    rng = np.random.default_rng(count)
    frames = rng.integers(0, 256, (count, HEIGHT, width, 3), np.uint8)
    return session.run(None, {"frames": frames})


@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"pads": (0, 0, 1, 1)},  # as TensorFlow pads
        {"pads": (1, 1, 0, 0), "activation": "Clip"},
        {"kernel": 7, "pads": (3, 3, 3, 3), "width": 40},
        {"kernel": 5, "pads": (0, 1, 0, 2), "activation": ""},
        {"kernel": 2, "pads": (0, 0, 0, 0)},
        {"kernel": 1, "pads": (0, 0, 0, 0), "bias": False},
        {"weights": np.uint8},  # one scale, and a zero point that is not 0
    ],
    ids=str,
)
def test_answers_are_the_same_to_the_last_bit(how: dict, optimized: bool) -> None:
    model = quantized(**how)
    rewritten = ir.from_proto(ir.to_proto(model))
    assert space_to_depth(rewritten)
    onnx.checker.check_model(ir.to_proto(rewritten), full_check=True)
    for count in (1, 3):
        before = answers(model, count, optimized)
        after = answers(rewritten, count, optimized)
        assert len(np.unique(before[0])) > 10, "the toy answers the same everywhere"
        for left, right in zip(before, after, strict=True):
            assert left.shape == right.shape
            assert (left == right).all()


def test_the_rewritten_convolution_sees_twelve_channels_and_makes_two_pixels() -> None:
    model = quantized()
    space_to_depth(model)
    conv = next(node for node in model.graph if node.op_type == "Conv")
    assert conv.name == "first"
    weight = conv.inputs[1].producer().inputs[0]
    assert weight.shape.numpy() == (2 * FILTERS, 12, 3, 2)
    # Nothing is left of the old filters.
    assert "w" not in model.graph.initializers


@pytest.mark.parametrize(
    "how",
    [
        {"stride": 1},
        {"width": 26},
        {"in_float": True},
        {"pads": (0, 0, 0, 0)},  # one window less than half the width
    ],
    ids=str,
)
def test_other_convolutions_are_left_as_they_are(how: dict) -> None:
    model = quantized(**how)
    before = ir.to_proto(model).SerializeToString()
    assert not space_to_depth(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_a_frame_that_two_layers_read_is_left_as_it_is() -> None:
    model = quantized()
    conv = next(node for node in model.graph if node.op_type == "Conv")
    model.graph.append(ir.node("Conv", conv.inputs, name="second"))
    assert not space_to_depth(model)
