"""Training steps as CUDA graphs: the kernels of a step, recorded once and started by one call.

A step of a small network is hundreds of kernels that take less time than starting them does.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch

from catdog_edge.errors import CatdogError, first_line

log = logging.getLogger(__name__)

VARIABLE = "CATDOG_EDGE_CUDA_GRAPHS"
"""Environment: 1 records the steps of a training on a GPU, 0 does not (the default)."""

WARM_UP = 3
"""Steps before a recording: optimizers and libraries allocate what they keep in the first ones."""


def captures(device: torch.device) -> bool:
    """Whether steps on a device are recorded; raises `CatdogError` for a wrong variable."""
    value = os.environ.get(VARIABLE, "").strip() or "0"
    if value not in ("0", "1"):
        raise CatdogError(f"{VARIABLE}={value}: give 0 or 1, or unset it")
    return value == "1" and device.type == "cuda"


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    pixels: torch.Tensor
    labels: torch.Tensor


class StepGraphs:
    """Runs a training step, recorded for each shape of its batch.

    Args:
        step: Learns from pixels and labels on a GPU without waiting for it. All that differs from
            step to step besides them must be in tensors.
    """

    def __init__(self, step: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        self._step = step
        self._taken: Counter[torch.Size] = Counter()
        self._recorded: dict[torch.Size, _Recorded | None] = {}

    def __call__(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        """Take a step: recorded, after a few of this shape that are not."""
        shape = pixels.shape
        self._taken[shape] += 1
        if shape not in self._recorded and self._taken[shape] > WARM_UP:
            self._recorded[shape] = self._record(pixels, labels)
        recorded = self._recorded.get(shape)
        if recorded is None:
            self._step(pixels, labels)
            return
        recorded.pixels.copy_(pixels)
        recorded.labels.copy_(labels)
        recorded.graph.replay()

    def _record(self, pixels: torch.Tensor, labels: torch.Tensor) -> _Recorded | None:
        """Record a step without taking it; `None` where that fails, with the reason in the log."""
        graph = torch.cuda.CUDAGraph()
        recorded = _Recorded(graph, pixels.clone(), labels.clone())
        others = [one.graph for one in self._recorded.values() if one is not None]
        pool = others[0].pool() if others else None
        try:
            # Another thread prepares batches meanwhile.
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                self._step(recorded.pixels, recorded.labels)
        except RuntimeError as error:
            log.warning(f"train: steps are not recorded as a CUDA graph: {first_line(error)}")
            return None
        if not others:
            log.info(f"train: steps are recorded as CUDA graphs; {VARIABLE}=0 disables this")
        return recorded
