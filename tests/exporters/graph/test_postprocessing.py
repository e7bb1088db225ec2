"""The outputs that a graph of logits gets."""

from __future__ import annotations

import pytest

ir = pytest.importorskip("onnx_ir", reason="graphs need onnx_ir; install [train]")
pytest.importorskip("torch", reason="exporters need torch; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import LABELS, spec_for

from catdog_edge.training.models.registry import CENTRED
from exporters.graph.postprocessing import add_outputs


@pytest.mark.parametrize(("batch", "axis"), [(None, "N"), (4, 4)])
def test_outputs_say_their_batch_and_classes(batch: int | None, axis: str | int) -> None:
    value = ir.val("values", ir.DataType.FLOAT, [axis, len(LABELS)])
    logits = ir.node("Identity", [value])
    graph = ir.Graph([value], logits.outputs, nodes=[logits], opset_imports={"": 17})
    model = ir.Model(graph, ir_version=8)
    add_outputs(model, spec_for(CENTRED, LABELS, 32, "edge_cnn"), logits=True, batch=batch)
    assert [one.name for one in graph.outputs] == ["probabilities", "logits"]
    for output in graph.outputs:
        first, second = output.shape
        assert (getattr(first, "value", first), second) == (axis, len(LABELS))
