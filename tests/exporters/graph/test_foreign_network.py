"""What `import` makes of another program's graph, by the numbers that come out."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="graphs need onnx; install [train]")
pytest.importorskip("onnxscript", reason="graphs need onnxscript; install [train]")
onnxruntime = pytest.importorskip("onnxruntime", reason="graphs are run here; install a flavour")
pytestmark = pytest.mark.train

import onnx_ir as ir

from catdog_edge.errors import ModelError
from exporters.graph.foreign_network import ForeignInput, check_operators, read_input, to_network

PLANES = np.random.default_rng(4).uniform(0, 1, (2, 3, 4, 6)).astype(np.float32)
MEANS = "m = GlobalAveragePool(x)  f = Flatten(m)"


def graph(body: str, given: str = "float[N,3,4,6] x", opset: int = 17, more: str = "") -> ir.Model:
    text = f'<ir_version: 8, opset_import: ["": {opset}, "own": 1]> t ({given}) => (float[N,M] y)'
    return ir.from_proto(onnx.parser.parse_model(f"{text} {{ {body} }} {more}"))


def network(model: ir.Model, ending: str, classes: int = 3) -> ir.Model:
    return to_network(model, "f", read_input(model, "f", None), "y", classes, ending)


def logits(model: ir.Model, images: np.ndarray = PLANES) -> np.ndarray:
    assert [list(value.shape)[1:] for value in model.graph.inputs] == [[3, 4, 6]]
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names)
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize(
    ("shape", "layout", "found"),
    [
        ("float[N,3,32,40]", None, ("nchw-float", 32, 40, None)),
        ("float[2,32,40,3]", None, ("nhwc-float", 32, 40, 2)),
        ("uint8[1,H,W,3]", None, ("nhwc-uint8", None, None, 1)),
        ("float[N,3,32,3]", None, ("nchw-float", 32, 3, None)),
        ("float[N,C,H,W]", "nchw-float", ("nchw-float", None, None, None)),
        ("float[N,C,0,W]", "nhwc-float", ("nhwc-float", None, None, None)),
        ("float[N,C,H,W]", None, "does not show where the channels are; give --layout"),
        ("float[N,3,32,W]", "nchw-uint8", "not nchw-uint8; leave out --layout"),
        ("float[N,1,28,28]", None, "has 1 channels"),
        ("float[N,28,28,4]", "nhwc-float", "has 4 channels"),
        ("float[N,3,32]", None, "four axes, found x float "),
        ("int32[N,3,32,32]", None, "float32 or uint8"),
    ],
)
def test_the_input_is_read_from_its_axes(
    shape: str, layout: str | None, found: tuple | str
) -> None:
    model = graph("y = Identity(x)", f"{shape} x")
    if isinstance(found, str):
        with pytest.raises(ModelError, match=found):
            read_input(model, "f", layout)
        return
    source = read_input(model, "f", layout)
    assert source == ForeignInput("x", *found)
    assert (source.channels_last, source.as_bytes) == ("nhwc" in found[0], "uint8" in found[0])
    height, width = found[1:3]
    axes = [height, width, 3] if source.channels_last else [3, height, width]
    assert source.shape == [found[3] or "N", *axes]


def test_operators_of_the_files_own_functions_are_no_foreign_ones() -> None:
    function = '<domain: "own", opset_import: ["": 17]> Twice (a) => (b) { b = Add(a, a) }'
    check_operators(graph("y = own.Twice(x)", more=function), "f")
    with pytest.raises(ModelError, match=r"not ONNX's own \(own.Twice\)"):
        check_operators(graph("y = own.Twice(x)"), "f")


@pytest.mark.parametrize("axis", [1, -1])
def test_a_softmax_at_the_end_is_taken_off(axis: int) -> None:
    made = network(graph(f"{MEANS} y = Softmax<axis={axis}>(f)"), "probabilities")
    assert "Log" not in [node.op_type for node in made.graph]
    assert logits(made) == pytest.approx(PLANES.mean((2, 3)), abs=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_other_probabilities_become_logarithms(axis: int) -> None:
    """Whether no Softmax ends the graph, or one over another axis."""
    body = f"{MEANS} " + ("y = Relu(f)" if axis else "y = Softmax<axis=0>(f)")
    given = np.stack([np.eye(3), PLANES.mean((2, 3))[[0, 1, 1]]])[:, :, :, None, None] + np.zeros(
        (1, 1, 1, 4, 6)
    )
    for images in given.astype(np.float32):
        means = images.mean((2, 3))
        wanted = means if axis else np.exp(means) / np.exp(means).sum(axis=0)
        found = logits(network(graph(body), "probabilities"), images)
        assert found == pytest.approx(np.log(np.maximum(wanted, 1e-30)), abs=1e-4)


@pytest.mark.parametrize(
    ("end", "ending"),
    [
        ("y = Sigmoid(one)", "one probability"),
        ("s = Sigmoid(one) y = Unsqueeze(s, axis)", "one probability"),
        ("q = Squeeze(one, axis) s = Sigmoid(q) y = Unsqueeze(s, axis)", "one probability"),
        ("s = Sigmoid(one) y = Transpose<perm=[0,1]>(s)", "one probability"),
        ("s = Sigmoid(one) y = Dropout(s)", "one probability"),
        ("d = Cast<to=11>(one) s = Sigmoid(d) y = Cast<to=1>(s)", "one probability"),
        ("y = Identity(one)", "one logit"),
    ],
)
def test_one_value_becomes_two_logits(end: str, ending: str) -> None:
    body = f"{MEANS} axis = Constant<value_ints=[1]>() one = ReduceSum(f, axis) {end}"
    body = body.replace("ReduceSum(", "ReduceSum<keepdims=1>(")
    found = logits(network(graph(body), ending, 2))
    sums = PLANES.mean((2, 3)).sum(1)
    assert found == pytest.approx(np.stack([0 * sums, sums], 1), abs=1e-5)


@pytest.mark.parametrize("end", ["y = Sigmoid(f)", "s = Sigmoid(f) y = Flatten(s)"])
def test_a_sigmoid_for_each_label_is_refused(end: str) -> None:
    with pytest.raises(ModelError, match=r"f: its output .* is that of a Sigmoid"):
        network(graph(f"{MEANS} {end}"), "logits")


def test_logits_of_four_axes_are_flattened_and_other_outputs_go() -> None:
    model = graph("z = Neg(x) y = GlobalAveragePool(x)")
    model.graph.outputs.append(model.graph.node(0).outputs[0])
    made = network(model, "logits")
    assert [list(value.shape) for value in made.graph.outputs] == [[None, 3]]
    assert logits(made) == pytest.approx(PLANES.mean((2, 3)), abs=1e-6)


@pytest.mark.parametrize(
    ("body", "transposes"),
    [
        ("p = Transpose<perm=[0,3,1,2]>(x) m = GlobalAveragePool(p)", 0),
        ("n = Neg(x) q = Neg(n) p = Transpose<perm=[0,3,1,2]>(q) m = GlobalAveragePool(p)", 2),
        (
            "p = Transpose<perm=[0,3,1,2]>(x) n = Neg(x) r = Transpose<perm=[0,3,1,2]>(n) "
            "s = Neg(r) t = Add(p, s) h = Constant<value_float=0.5>() u = Mul(t, h) "
            "m = GlobalAveragePool(u)",
            2,
        ),
    ],
)
def test_channels_last_become_planes(body: str, transposes: int) -> None:
    made = network(graph(f"{body} y = Flatten(m)", "float[N,4,6,3] x"), "logits")
    assert [node.op_type for node in made.graph].count("Transpose") == transposes
    assert logits(made) == pytest.approx(PLANES.mean((2, 3)), abs=1e-5)


def test_names_that_ours_would_meet_are_changed() -> None:
    model = graph("a = Neg(x) b = Neg(a) m = GlobalAveragePool(b) c = Flatten(m) y = Neg(c)")
    ours = {"a": "frames.a", "b": "known", "c": "logits"}
    for node in model.graph:
        node.name = "frames.same"
        value = node.outputs[0]
        value.name = ours.get(value.name, value.name)
    made = network(model, "logits")
    assert logits(made) == pytest.approx(-PLANES.mean((2, 3)), abs=1e-6)
    names = {str(value.name) for node in made.graph for value in node.outputs}
    assert {"theirs.frames.a", "theirs.known", "theirs.logits"} <= names
    assert not [node.name for node in made.graph if node.name.startswith("frames.")]


@pytest.mark.parametrize(("opset", "made"), [(13, 17), (14, 14), (18, 18)])
def test_an_opset_that_not_every_form_takes_becomes_the_default(opset: int, made: int) -> None:
    assert network(graph(f"{MEANS} y = Neg(f)", opset=opset), "logits").opset_imports[""] == made
