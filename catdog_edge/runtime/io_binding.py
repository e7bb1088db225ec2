"""Calls of a session on a GPU through buffers that are made and bound once per batch size.

A plain `session.run` allocates on the GPU and copies from pageable memory at every call.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnxruntime


class BoundRunner:
    """Runs a session through an IO binding with pre-allocated buffers, one per batch size.

    `outputs` are the names of those wanted; the buffers are on `device`, `cuda` or `cpu`; those
    of the last `sizes` batch sizes are kept.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        outputs: Sequence[str],
        device: str,
        device_id: int = 0,
        sizes: int = 4,
    ) -> None:
        self._session = session
        self._outputs = list(outputs)
        self._input = session.get_inputs()[0].name
        self._device = device
        self._device_id = device_id
        self._sizes = sizes
        self._bound: dict[tuple[int, ...], tuple[Any, Any]] = {}
        # Buffers are shared between calls, so only one call at a time may be under way.
        self._lock = threading.Lock()

    def __call__(self, batch: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        """Run one batch; the results are copies of their own."""
        with self._lock:
            binding, buffer = self._binding(batch)
            buffer.update_inplace(batch)
            self._session.run_with_iobinding(binding)
            return [np.array(result) for result in binding.copy_outputs_to_cpu()]

    def _binding(self, batch: npt.NDArray[Any]) -> tuple[Any, Any]:
        import onnxruntime

        found = self._bound.get(batch.shape)
        if found is not None:
            return found
        while len(self._bound) >= self._sizes:
            del self._bound[next(iter(self._bound))]
        binding = self._session.io_binding()
        buffer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            list(batch.shape), batch.dtype.type, self._device, self._device_id
        )
        binding.bind_ortvalue_input(self._input, buffer)
        for output in self._session.get_outputs():
            if output.name not in self._outputs:
                continue
            shape = [len(batch), *output.shape[1:]]
            if all(isinstance(size, int) for size in shape):
                made = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                    shape, np.float32, self._device, self._device_id
                )
                binding.bind_ortvalue_output(output.name, made)
            else:
                binding.bind_output(output.name, self._device, self._device_id)
        self._bound[batch.shape] = (binding, buffer)
        return binding, buffer
