"""Steps as CUDA graphs: the same gradients, and steps as they are where none can be captured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import TinyNet, spec_for
from torch import nn

from catdog_edge.training.config.recipes import Recipe
from catdog_edge.training.engine import step_graph
from catdog_edge.training.engine.step_graph import EAGER_STEPS, StepGraphs
from catdog_edge.training.engine.trainer import Plan, Trainer, TrainingData
from catdog_edge.training.models.imagenet_head import ClassGroups

RECIPE = Recipe(
    name="tiny", optimizer="sgd", lr=0.01, batch_size=8, epochs=2, augment="none",
    schedule="cosine", warmup=0.2, ema=0.9, keep_imagenet=0.3,
)  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="what happens without an NVIDIA GPU")
def test_steps_that_cannot_be_captured_are_run_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    network = nn.Linear(3, 1)

    def compute(inputs: torch.Tensor) -> torch.Tensor:
        loss = network(inputs).square().mean()
        loss.backward()
        return loss.detach()

    steps = StepGraphs(compute, network)
    for number in range(1, 2 * EAGER_STEPS):
        inputs = torch.full((2, 3), float(number))
        assert steps(inputs) == network(inputs).square().mean()
        assert torch.allclose(network.weight.grad, 2 * number * network(inputs)[0])
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("train: steps run without a CUDA graph: ")


def test_a_capture_that_fails_at_its_end_leaves_the_stream_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = ["default"]

    class Stream:
        def __init__(self, name: str = "of the first passes") -> None:
            self.name = name

        def wait_stream(self, other: object) -> None:
            pass

    @contextlib.contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        before, now[0] = now[0], chosen.name
        try:
            yield
        finally:
            now[0] = before

    class Capture:
        # As PyTorch's: it resets the stream after the call that raises.
        def __init__(self, *_: object, **more: object) -> None:
            pass

        def __enter__(self) -> None:
            now[0] = "of the capture"

        def __exit__(self, *_: object) -> None:
            raise RuntimeError("operation failed due to a previous error during capture")

    stand_ins: dict[str, Any] = {
        "Stream": Stream, "stream": stream, "graph": Capture, "CUDAGraph": object,
        "current_device": lambda: 0, "current_stream": lambda: Stream(now[0]),
    }  # fmt: skip
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.random, "fork_rng", lambda _: contextlib.nullcontext())
    with pytest.raises(RuntimeError, match="previous error during capture"):
        step_graph.StepGraph(torch.sum, nn.Linear(3, 1), [torch.ones(3)])
    assert now == ["default"]


def test_graphs_share_memory_and_are_dropped_where_a_step_needs_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    pools: list[Any] = []
    free = 2  # rows of inputs that there is memory for beside graphs

    class Graph:
        def __init__(self, compute: Any, network: Any, inputs: Any, pool: Any) -> None:
            pools.append(pool)
            self.pool = pool or "of the first"
            self._compute = compute

        def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
            return compute(*inputs)

    def compute(inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > (free if steps._graphs else 2 * free):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return inputs.sum()

    monkeypatch.setattr(step_graph, "StepGraph", Graph)
    steps = StepGraphs(compute, nn.Linear(3, 1))
    for size in (1, 2, 1):
        for _ in range(EAGER_STEPS + 1):
            assert steps(torch.ones(size, 3)) == 3 * size
    assert pools == [None, "of the first"]
    for _ in range(EAGER_STEPS + 1):
        assert steps(torch.ones(4, 3)) == 12
    assert not steps._graphs
    assert len(pools) == 2
    (said,) = [record.message for record in caplog.records]
    assert said.startswith("train: steps run without a CUDA graph: CUDA out of memory.")
    with pytest.raises(torch.OutOfMemoryError):
        steps(torch.ones(5, 3))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_graph_gives_the_weights_of_steps_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, grouped: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    labels = np.arange(64) % 3
    found, captured = [], []
    for eager in (10**9, 3):
        monkeypatch.setattr(step_graph, "EAGER_STEPS", eager)
        torch.manual_seed(3)
        parts = [TinyNet(12), nn.Dropout(0.2), ClassGroups((3, 4, 5))]
        network = nn.Sequential(*parts) if grouped else TinyNet(3)
        recipe = replace(RECIPE, keep_imagenet=0.3 if grouped else 0.0)
        plan = Plan(recipe, 4, 8, recipe.lr, 1, 0, precision, "cuda")
        data = TrainingData((pixels, labels), (pixels[:8], labels[:8]))
        trainer = Trainer(network, spec_for(), plan, data, tmp_path)
        assert trainer.run(lambda: False, lambda _: None, lambda *_: None)
        assert trainer.averaged is not None
        found.append(torch.cat([one.flatten() for one in trainer.averaged.state_dict().values()]))
        found.append(torch.tensor([one.train_loss for one in trainer.history]))
        captured.append(len(trainer._graphs._graphs))
    assert captured == [0, 1]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
