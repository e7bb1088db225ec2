"""What each optimiser leaves of a graph, and how fast it is; for the table in docs/export.md.

python tests/support/programs/simplifiers.py edge_cnn resnet18 ...   (needs onnxslim as well)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxscript.optimizer
import onnxslim
import torch

from catdog_edge.training.models.registry import architecture
from exporters.checks.timing import compare


def offline(model: onnx.ModelProto) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options)
        return onnx.load(options.optimized_model_filepath)


OPTIMISERS = {
    "torch, as it is": lambda model: model,
    "onnxslim": onnxslim.slim,
    "onnxscript": onnxscript.optimizer.optimize,
    "onnxscript, onnxslim": lambda m: onnxslim.slim(onnxscript.optimizer.optimize(m)),
    "onnxruntime, basic": offline,
}

onnxruntime.set_default_logger_severity(4)
for name in sys.argv[1:]:
    arch = architecture(name)
    example = torch.zeros(2, 3, arch.size, arch.size)
    traced = torch.onnx.export(
        arch.build(2).eval(), (example,), dynamo=True, optimize=False, verbose=False,
        dynamic_shapes=({0: torch.export.Dim("N")},), input_names=["pictures"], opset_version=18,
    ).model_proto  # fmt: skip
    picture = np.random.default_rng(0).normal(size=(1, *example.shape[1:])).astype(np.float32)
    calls, nodes = {}, {}
    for title, optimise in OPTIMISERS.items():
        copy = onnx.ModelProto()
        copy.CopyFrom(traced)
        made = optimise(copy)
        session = onnxruntime.InferenceSession(made.SerializeToString())
        calls[title] = lambda session=session, picture=picture: session.run(
            None, {"pictures": picture}
        )
        nodes[title] = len(made.graph.node)
    timing = compare(calls, 5.0)
    for title in OPTIMISERS:
        print(f"{name:20} {title:22} {nodes[title]:4} nodes, time {timing.ratio(title)}")
