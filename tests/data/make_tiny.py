"""Makes the toy models of the tests and of `catdog-edge doctor`; needs the `onnx` package.

    python tests/data/make_tiny.py

The files are committed, so that the tests also run where there is no `onnx`. The network
is made by hand, not trained: a red frame is a cat, a blue one is a dog, a grey one is
undecided. Running the script again gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from catdog_edge.spec import METADATA_KEY, ModelSpec, Normalization, Rejection, squash

SIZE = 32
HERE = Path(__file__).parent


def spec(**changes: object) -> ModelSpec:
    """The spec of `tiny.onnx`, with changes."""
    return ModelSpec(
        architecture="tiny",
        labels=("cat", "dog"),
        height=SIZE,
        width=SIZE,
        resize=squash(SIZE, SIZE),
        normalization=Normalization(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
        trained_on={"source": "nothing: weights by hand, tests/data/make_tiny.py"},
    ).replace(**changes)


def model(
    spec: ModelSpec, *, known: bool = False, batch: int | str = "N", bias: float = 0
) -> onnx.ModelProto:
    """Frames -> cast, NCHW, one convolution, mean, one linear layer, softmax.

    Args:
        spec: Stamped into the file; its layout decides the input.
        known: Add the output `known`: how far the frame is from grey.
        batch: A number fixes the batch.
        bias: Above 0 leans towards cats.
    """
    # Three channels: mean of the first, second and third input colour over a 3x3 window.
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    for channel in range(3):
        kernel[channel, channel] = 1 / 9
    classical = spec.layout == "nchw-float"
    kernel /= 1 if classical else 255
    # In BGR blue is channel 0 and red is channel 2; in RGB the other way round.
    red, blue = (0, 2) if classical else (2, 0)
    weight = np.zeros((2, 3), np.float32)
    weight[0, red], weight[0, blue], weight[1, red], weight[1, blue] = 8, -8, -8, 8
    constants = {"kernel": kernel, "weight": weight, "bias": np.array([bias, -bias], np.float32)}
    nodes = []
    if not classical:
        nodes += [
            helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["pictures"], perm=[0, 3, 1, 2]),
        ]
    first = "frames" if classical else "pictures"
    nodes += [
        helper.make_node("Conv", [first, "kernel"], ["maps"], strides=[2, 2]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, 2])]
    if known:
        constants["away"] = np.array([[0.5], [0.5]], np.float32)
        nodes += [
            helper.make_node("Abs", ["logits"], ["sizes"]),
            helper.make_node("MatMul", ["sizes", "away"], ["distance"]),
            helper.make_node("Tanh", ["distance"], ["column"]),
            helper.make_node("Flatten", ["column"], ["flat"], axis=0),
            helper.make_node("Squeeze", ["flat", "zero"], ["known"]),
        ]
        constants["zero"] = np.array([0], np.int64)
        outputs.append(helper.make_tensor_value_info("known", TensorProto.FLOAT, [batch]))
    kind, shape = TensorProto.UINT8, [batch, SIZE, SIZE, 3]
    if classical:
        kind, shape = TensorProto.FLOAT, [batch, 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frames", kind, shape)],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    built = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tiny"
    )
    helper.set_model_props(built, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(built, full_check=True)
    return built


def selftest() -> onnx.ModelProto:
    """The doctor's model: a convolution that doubles, a mean, a softmax; no spec.

    A frame `uint8 [N,4,4,3]` whose channels are all alike gives 1/3 three times; one that
    is (0, 0, 1) everywhere gives the softmax of (0, 0, 2).
    """
    kernel = 2 * np.eye(3, dtype=np.float32)[:, :, None, None]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["pictures"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["pictures", "kernel"], ["maps"]),
            helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
            helper.make_node("Flatten", ["means"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "selftest",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 4, 4, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(built, full_check=True)
    return built


def write(name: str, built: onnx.ModelProto, folder: Path = HERE) -> None:
    """Write one file, beside this script unless told otherwise."""
    data = built.SerializeToString(deterministic=True)
    (folder / name).write_bytes(data)
    print(f"{name}: {len(data):,} bytes")


def main() -> None:
    """Write every toy model."""
    write("tiny.onnx", model(spec()))
    threshold = Rejection("max_probability", 0.75)
    write("tiny_rejecting.onnx", model(spec(rejection=threshold)))
    write("tiny_known.onnx", model(spec(rejection=Rejection("known", 0.5)), known=True))
    write("tiny_float.onnx", model(spec(layout="nchw-float")))
    write("tiny_batch4.onnx", model(spec(), batch=4))
    write("tiny_leaning.onnx", model(spec(), bias=3))

    bare = model(spec())
    del bare.metadata_props[:]
    write("bad_no_spec.onnx", bare)
    newer = model(spec())
    newer.opset_import[0].version = 999
    write("bad_opset999.onnx", newer)
    newer = model(spec())
    newer.ir_version = 99
    write("bad_ir99.onnx", newer)

    write("selftest.onnx", selftest(), HERE.parents[1] / "catdog_edge")


if __name__ == "__main__":
    main()
