"""Run a session on a GPU with buffers that are allocated and bound once per batch size.

A plain `session.run` allocates on the GPU, copies from pageable memory and launches kernel by
kernel at every call. Fixed buffers are also what a CUDA graph needs: ONNX Runtime records the
kernels of one call and launches them at once from then on.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catdog_edge.runtime.onnxruntime_errors import TooManyThreadsError
from catdog_edge.system.exit_and_fork import at_fork

if TYPE_CHECKING:
    import onnxruntime

GRAPH_SIZES = 8
"""Batch sizes of a session that get a CUDA graph; those after them run without."""

GRAPH_THREADS = 8
"""Threads of a session that capture graphs. ONNX Runtime captures for each thread, and keeps
the graphs and the library handles of a thread that has ended until the session ends."""

Rows = Sequence[npt.NDArray[Any]] | npt.NDArray[Any]
"""A batch: its images one by one, or in one array."""

_graph_ids = itertools.count(1)  # one number is never captured twice in a session


class CaptureGate:
    """Allows many calls of the GPU at a time, or one capture alone.

    While a graph is captured, CUDA rejects allocations and copies of all other threads, and a
    rejected one invalidates the capture. A `with` block on the gate is one of many calls.
    """

    def __init__(self) -> None:
        self.forked()
        at_fork(self)

    def forked(self) -> None:
        """Reset in a forked child, which has none of the other threads."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._calls = self._captures = 0

    def __enter__(self) -> None:
        # By hand, not by contextlib: this is part of every call.
        with self._lock:
            while self._captures:  # calls without end let it through
                self._changed.wait()
            self._calls += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._calls -= 1
            if self._captures:
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for running calls; block all others while the block runs."""
        with self._lock:
            self._captures += 1
            try:
                while self._calls:
                    self._changed.wait()
                yield
            finally:
                self._captures -= 1
                self._changed.notify_all()


GATE = CaptureGate()
"""Of this process: it has one CUDA."""


@dataclass
class _Bound:
    """The buffers of one batch size; `options` select its graph or, without one, skip capture."""

    binding: Any
    device: Any
    outputs: list[Any]
    graph: bool
    options: Any
    host: npt.NDArray[Any] | None = None  # where images that are not in one array are put together


class BoundRunner:
    """Runs a session through an IO binding with pre-allocated buffers, one per batch size.

    `outputs` are the names of the outputs to return; the buffers are on `device`, `cuda` or `cpu`.
    `graphs`: whether the session captures CUDA graphs. Buffers of sizes with a graph are kept, of
    other sizes only the last `sizes`.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        outputs: Sequence[str],
        device: str,
        device_id: int = 0,
        sizes: int = 4,
        graphs: bool = False,
    ) -> None:
        self._session = session
        self._outputs = list(outputs)
        self._input = session.get_inputs()[0].name
        self._device, self._device_id = device, device_id
        self._sizes = sizes
        self._graphs = graphs
        self._bound: dict[int, _Bound] = {}
        self._threads = 0
        self._of_thread = threading.local()
        # Buffers are shared between calls, so only one call at a time may be under way.
        self._lock = threading.Lock()

    def __call__(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        """Run one batch; the results are copies.

        Raises:
            TooManyThreadsError: More than `GRAPH_THREADS` threads; the session is unchanged.
        """
        with self._lock:
            captures = self._graphs and self._captures(len(rows))
            bound = self._bound.get(len(rows))
            if bound is None:
                with GATE:
                    bound = self._bind(len(rows), rows[0])
            batch = self._gather(rows, bound)
            with GATE.alone() if captures and bound.graph else GATE:
                bound.device.update_inplace(batch)
                self._session.run_with_iobinding(bound.binding, bound.options)
                if captures:  # after an error the next call is the one that captures
                    self._of_thread.sizes.add(len(rows))
                if bound.outputs:  # copied: `numpy` is a view where the buffers are on the CPU
                    return [np.array(value.numpy()) for value in bound.outputs]
                return [np.array(result) for result in bound.binding.copy_outputs_to_cpu()]

    def _gather(self, rows: Rows, bound: _Bound) -> npt.NDArray[Any]:
        """Return a batch as one array; images are copied only if there are several of them."""
        if isinstance(rows, np.ndarray):
            return rows
        if len(rows) == 1:
            return rows[0][None]
        if bound.host is None:
            with GATE:
                bound.host = page_locked(
                    (len(rows), *rows[0].shape), rows[0].dtype, self._device_id
                )
        np.concatenate(rows, out=bound.host.reshape(-1, *rows[0].shape[1:]))
        return bound.host

    def _captures(self, count: int) -> bool:
        """Check whether this thread has not run this batch size yet."""
        if not hasattr(self._of_thread, "sizes"):
            if self._threads == GRAPH_THREADS:
                raise TooManyThreadsError(f"more than {GRAPH_THREADS} threads call it")
            self._threads += 1
            self._of_thread.sizes = set()
        return count not in self._of_thread.sizes

    def _bind(self, count: int, row: npt.NDArray[Any]) -> _Bound:
        import onnxruntime

        loose = [size for size, one in self._bound.items() if not one.graph]
        for size in loose[: len(loose) + 1 - self._sizes]:
            del self._bound[size]
        place = self._device, self._device_id
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        device = make([count, *row.shape], row.dtype.type, *place)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, device)
        graph = self._graphs and sum(one.graph for one in self._bound.values()) < GRAPH_SIZES
        found = {output.name: output.shape[1:] for output in self._session.get_outputs()}
        sizes = [[count, *found[name]] for name in self._outputs]
        outputs = []
        if all(isinstance(size, int) for shape in sizes for size in shape):
            outputs = [make(shape, np.float32, *place) for shape in sizes]
            for name, value in zip(self._outputs, outputs):
                binding.bind_ortvalue_output(name, value)
        else:
            for name in self._outputs:
                binding.bind_output(name, *place)
            graph = False
        options = None
        if self._graphs:
            options = onnxruntime.RunOptions()
            number = next(_graph_ids) if graph else -1
            options.add_run_config_entry("gpu_graph_id", str(number))
        bound = self._bound[count] = _Bound(binding, device, outputs, graph, options)
        return bound


def page_locked(
    shape: tuple[int, ...], dtype: npt.DTypeLike, device_id: int = 0
) -> npt.NDArray[Any]:
    """Allocate an array in page-locked memory; an ordinary one without the CUDA runtime."""
    cuda, size = _cuda_runtime(), int(np.prod(shape)) * np.dtype(dtype).itemsize
    pointer = ctypes.c_void_p()
    if cuda is None or cuda.cudaSetDevice(device_id):
        return np.empty(shape, dtype)
    if cuda.cudaHostAlloc(ctypes.byref(pointer), ctypes.c_size_t(size), 0) or not pointer.value:
        return np.empty(shape, dtype)
    buffer = (ctypes.c_ubyte * size).from_address(pointer.value)
    # Not at the end of the process: CUDA may be unloaded before.
    weakref.finalize(buffer, cuda.cudaFreeHost, pointer).atexit = False
    return np.frombuffer(memoryview(buffer), dtype).reshape(shape)


def _cuda_runtime() -> Any:
    """Return the CUDA runtime library if a session on a GPU has loaded it; Linux only."""
    if hasattr(os, "RTLD_NOLOAD"):
        for version in (13, 12):
            with contextlib.suppress(OSError):
                return ctypes.CDLL(f"libcudart.so.{version}", os.RTLD_NOLOAD | os.RTLD_NOW)
    return None
