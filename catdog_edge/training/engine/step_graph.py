"""The gradients of a step as a CUDA graph: one call starts its kernels instead of hundreds.

On a GPU the steps of small networks take as long as the host needs to start their kernels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from catdog_edge.errors import first_line
from catdog_edge.runtime.onnxruntime_errors import is_memory_error

log = logging.getLogger(__name__)

EAGER_STEPS = 8
"""Steps of an input shape that come before its graph: short runs are not worth one."""

WARM_UP = 2  # passes before the capture: libraries allocate what they keep in the first

Compute = Callable[..., torch.Tensor]


class StepGraph:  # pragma: no cover - needs an NVIDIA GPU
    """A captured computation of gradients; a call sets `grad` of each parameter.

    `compute` takes tensors on the GPU, calls `backward`, and returns a tensor. It must not wait for
    the device, nor depend on anything but its arguments and the network. `pool` is the memory of
    another graph. Graphs may share it in any order, since what one leaves there is used before the
    next one runs. Raises `RuntimeError` where it cannot be captured.
    """

    def __init__(
        self,
        compute: Compute,
        network: nn.Module,
        inputs: Sequence[torch.Tensor],
        pool: Any = None,
    ) -> None:
        self._inputs = [one.clone() for one in inputs]
        self._parameters = [one for one in network.parameters() if one.requires_grad]
        buffers = [(one, one.clone()) for one in network.buffers()]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        with torch.random.fork_rng([torch.cuda.current_device()]):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self._set_gradients([None] * len(self._parameters))
                    compute(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            for buffer, value in buffers:  # the statistics of batch norms
                buffer.copy_(value)
            self._set_gradients([None] * len(self._parameters))
            # The thread that prepares batches may allocate meanwhile.
            # An error at the end of a capture leaves its stream current; the outer block resets it.
            here = torch.cuda.current_stream()
            with (
                torch.cuda.stream(here),
                torch.cuda.graph(self._graph, pool, capture_error_mode="thread_local"),
            ):
                self._result = compute(*self._inputs)
            self._gradients = [one.grad for one in self._parameters]

    @property
    def pool(self) -> Any:
        """The memory of this graph."""
        return self._graph.pool()

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Compute with inputs of the captured shapes; the result is valid until the next call."""
        for captured, given in zip(self._inputs, inputs, strict=True):
            captured.copy_(given)
        self._graph.replay()
        self._set_gradients(self._gradients)
        return self._result

    def _set_gradients(self, gradients: Sequence[torch.Tensor | None]) -> None:
        for parameter, gradient in zip(self._parameters, gradients):
            parameter.grad = gradient


class StepGraphs:
    """Runs `compute` as it is at first, then as a graph for each shape of its inputs."""

    def __init__(self, compute: Compute, network: nn.Module) -> None:
        self._compute, self._network = compute, network
        self._steps: dict[tuple[torch.Size, ...], int] = {}
        self._graphs: dict[tuple[torch.Size, ...], StepGraph] = {}
        self._captures = True

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Compute the gradients of the network and return what `compute` returns."""
        shapes = tuple(one.shape for one in inputs)
        self._steps[shapes] = self._steps.get(shapes, 0) + 1
        if self._captures and self._steps[shapes] == EAGER_STEPS + 1:
            pool = next((graph.pool for graph in self._graphs.values()), None)
            try:
                self._graphs[shapes] = StepGraph(self._compute, self._network, inputs, pool)
            except RuntimeError as error:  # not enough memory is one, too
                self._stop_capturing(error)
        graph = self._graphs.get(shapes)
        if graph is not None:
            return graph(*inputs)
        try:
            return self._run(inputs)
        except RuntimeError as error:
            if not self._graphs or not is_memory_error(error):
                raise
            self._stop_capturing(error)
        # Not in the block above: its error keeps what the failed step allocated.
        self._graphs.clear()
        self._network.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return self._run(inputs)

    def _run(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        self._network.zero_grad(set_to_none=True)
        return self._compute(*inputs)

    def _stop_capturing(self, error: Exception) -> None:
        if self._captures:
            log.info(f"train: steps run without a CUDA graph: {first_line(error)}")
        self._captures = False
