"""Files of tiny networks, made once."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def _operators_read_once() -> Iterator[None]:
    """Keep PyTorch's table of ONNX operators, which it parses anew at every export."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    with pytest.MonkeyPatch.context() as patch:
        table = registration.ONNXRegistry
        cached = staticmethod(functools.cache(table.from_torchlib))
        patch.setattr(table, "from_torchlib", cached)
        yield


@pytest.fixture(scope="session")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that tells three kinds of `tiny_nets.pictures` apart."""
    from support.models.tiny_nets import FRAMES, TRUTH, answers, trained

    from exporters.formats.torch_export import export_onnx

    path = export_onnx(*trained(), tmp_path_factory.mktemp("tiny") / "model.onnx").path
    assert (answers(path, FRAMES).argmax(1) == TRUTH).mean() > 0.9  # worth judging by
    return path


@pytest.fixture(scope="session")
def fragile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that int8 ruins."""
    from support.models.tiny_nets import FRAMES, TRUTH, answers, fragile

    from exporters.formats.torch_export import export_onnx

    path = export_onnx(*fragile(), tmp_path_factory.mktemp("fragile") / "model.onnx").path
    assert (answers(path, FRAMES).argmax(1) == TRUTH).mean() > 0.9
    return path


@pytest.fixture(scope="session")
def trained_lamps(tmp_path_factory: pytest.TempPathFactory, easy_set: Path) -> Path:
    """A run folder as `train` leaves it: the default architecture, sure of bright and dark."""
    import torch
    from support.models.tiny_nets import fit_head, settle, spec_for

    from catdog_edge.training.data.open_dataset import open_dataset, pixels
    from catdog_edge.training.models.checkpoint import save_checkpoint
    from catdog_edge.training.models.registry import architecture
    from catdog_edge.training.runs.run_folder import Run

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path_factory.mktemp("cache")))
    folder = tmp_path_factory.mktemp("work") / "runs" / "lamps"
    folder.mkdir(parents=True)
    arch = architecture("edge_cnn")
    torch.manual_seed(0)
    spec = spec_for(arch.normalization, ("bright", "dark"), 64, "edge_cnn")
    dataset = open_dataset(easy_set)
    frames, labels, _ = pixels(dataset, "train", spec.resize)
    network = settle(arch.build(2), spec, np.array(frames[:32]))
    fit_head(network, network.classifier[2], spec, frames, labels)
    spec = spec.replace(metrics={"validation": {"accuracy": 1.0}})
    save_checkpoint(folder / "best.pt", network.state_dict(), spec)
    dataset.write_split_csv(folder / "split.csv")
    Run(folder).write_args({"data": str(easy_set), "labels": ["bright", "dark"]})
    monkeypatch.undo()
    return folder


@pytest.fixture
def lamps(trained_lamps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run below the current folder, and quick races."""
    folder = tmp_path / "runs" / "lamps"
    shutil.copytree(trained_lamps, folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("exporters.export_steps.TIMING_SECONDS", 0.2)
    return folder
