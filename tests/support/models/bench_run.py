"""A run folder that is made in seconds: random convolutions, a head solved in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.bench_rows import BenchRow
from catdog_edge.spec import ModelSpec, Rejection, squash
from catdog_edge.training.data.open_dataset import open_dataset, pixels
from catdog_edge.training.evaluation.inference import logits
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from catdog_edge.training.models.registry import architecture
from catdog_edge.training.runs.run_folder import Run
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.formats.torch_export import export_onnx

SIZE = 64
"""Of the network's input, pixels: a quarter of the work of `edge_cnn`'s own."""


def make_run(folder: Path, data: Path, others: bool = False) -> Run:
    """A run of `edge_cnn` on `data`, exported in float32 and with a dynamic int8 head.

    Args:
        folder: To make.
        data: The pictures.
        others: Give it a logit for none of the classes, as `train --other` does.
    """
    torch.manual_seed(0)
    dataset = open_dataset(data)
    arch = architecture("edge_cnn")
    steps = squash(SIZE, SIZE)
    spec = ModelSpec(
        architecture=arch.name,
        labels=dataset.labels,
        height=SIZE,
        width=SIZE,
        resize=steps,
        normalization=arch.normalization,
        rejection=Rejection("known", 0.5) if others else None,
    )
    network = arch.build(spec.logits).eval()
    pictures, truth, _ = pixels(dataset, "train", steps)
    head = network.classifier[-1]
    network.classifier[-1] = torch.nn.Identity()
    features = logits(network, spec.normalization, pictures)
    network.classifier[-1] = head
    scale = features.std(axis=0) + 1e-6
    design = np.hstack([features / scale, np.ones((len(features), 1))])
    wanted = np.eye(spec.logits)[truth] * 6 - 3
    ridge = design.T @ design + 1e-2 * np.eye(design.shape[1])
    solved = np.linalg.solve(ridge, design.T @ wanted)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy((solved[:-1] / scale[:, None]).T.astype(np.float32)))
        head.bias.copy_(torch.from_numpy(solved[-1].astype(np.float32)))
    run = Run(folder)
    folder.mkdir(parents=True)
    save_checkpoint(run.weights, network.state_dict(), spec)
    run.write_args({"data": dataset.source, "labels": list(dataset.labels)})
    dataset.write_split_csv(run.split_csv)
    export_onnx(network, spec, folder / "model.onnx")
    quantize_dynamic(folder / "model.onnx", folder / "model.dynamic.onnx")
    return run


def scramble(run: Run, name: str = "model.scrambled.onnx") -> Path:
    """An exported file beside the others whose weights are shuffled: the planted regression."""
    network, spec = load_checkpoint(run.weights)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in network.parameters():
            flat = weights.view(-1)
            flat.copy_(flat[torch.randperm(flat.numel(), generator=generator)])
    export_onnx(network, spec, run.folder / name)
    return run.folder / name


def onnx_row(run: Run, name: str = "model", threads: int = 1, batch: int = 1) -> BenchRow:
    return BenchRow(name, "onnxruntime", str(run.folder / f"{name}.onnx"), threads, batch)
