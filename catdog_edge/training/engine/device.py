"""PyTorch's device and its number of threads.

The sums of a convolution depend on the number of threads that share it: a run that is resumed
with another number does not give the same figures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from catdog_edge.errors import CatdogError
from catdog_edge.system.threads import choose_threads


@contextmanager
def torch_threads(count: int | None = None) -> Iterator[int]:
    """Set PyTorch's number of threads within a block, and yield it.

    Args:
        count: `None` takes `$OMP_NUM_THREADS`, or else what `choose_threads` finds: PyTorch
            counts the cores of the machine, not those that a container grants.
    """
    before = torch.get_num_threads()
    if count is None and "OMP_NUM_THREADS" not in os.environ:
        count = choose_threads().count
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def choose_device(name: str) -> str:
    """Resolve `--device`: `cpu`, `cuda`, `cuda:N`, or `auto`, CUDA where it works, else the CPU.

    `cuda:N` becomes the current device of this thread: streams and graphs are captured on that one.

    Raises `CatdogError` for any other, and for a CUDA device that is not there.
    """
    asked, name = name, name.strip().lower()
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name):
        raise CatdogError(f"--device {asked!r} is not known; give cpu, cuda, cuda:NUMBER or auto")
    if name.startswith("cuda") and not torch.cuda.is_available():
        build = "is built without CUDA" if torch.version.cuda is None else "finds no CUDA device"
        raise CatdogError(
            f"--device {name}: PyTorch {torch.__version__} {build}; "
            "train with --device cpu, or check the driver with nvidia-smi"
        )
    if name.startswith("cuda:"):
        if int(name[5:]) >= torch.cuda.device_count():
            raise CatdogError(
                f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, numbered "
                "from 0; give one of them"
            )
        torch.cuda.set_device(int(name[5:]))
    return name


def pinned(values: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Turn an array into a tensor that can be copied to a device without waiting for it.

    Any shape; the dtype is kept, but float64 becomes float32.
    """
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory() if device.type == "cuda" else tensor


def send(values: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to a device, without waiting for it; shape and dtype as by `pinned`."""
    return pinned(values, device).to(device, non_blocking=True)


class Upload:
    """Arrays that are copied to a device in one asynchronous copy.

    float64 becomes float32. The buffer on the host is filled at once, in whichever thread.

    Examples:
        >>> upload = Upload({"rows": np.arange(3)}, device)
        >>> rows = upload.take()["rows"]  # `int64 [3]`, on the device
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], device: torch.device) -> None:
        self._device, self._parts = device, {}
        narrow = {
            name: one.astype(np.float32) if one.dtype == np.float64 else np.ascontiguousarray(one)
            for name, one in arrays.items()
        }
        ends = np.cumsum([-(-one.nbytes // 16) * 16 for one in narrow.values()]).tolist()
        self._buffer = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
        filled = self._buffer.numpy()
        for (name, one), start in zip(narrow.items(), [0, *ends]):
            part = slice(start, start + one.nbytes)
            filled[part] = one.reshape(-1).view(np.uint8)
            self._parts[name] = part, torch.from_numpy(one).dtype, one.shape

    def take(self) -> dict[str, torch.Tensor]:
        """Return the arrays as tensors on the device."""
        sent = self._buffer.to(self._device, non_blocking=True)
        return {
            name: sent[part].view(dtype).view(shape)
            for name, (part, dtype, shape) in self._parts.items()
        }
