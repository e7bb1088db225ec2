"""What PyTorch computes on: the device, and how many threads for as long as a job lasts.

Knows PyTorch's settings and `catdog_edge.runtime.threads`; knows nothing of training. The sums of
a convolution depend on how many threads share it: a run that is resumed with another
number does not give the same figures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from catdog_edge.errors import CatdogError
from catdog_edge.runtime.threads import choose_threads


@contextmanager
def torch_threads(count: int | None = None) -> Iterator[int]:
    """Compute with so many threads, and leave the setting as it was found.

    Args:
        count: `None` takes what `choose_threads` finds (PyTorch itself counts the cores of
            the machine, not those that a container grants), unless `$OMP_NUM_THREADS` says
            otherwise.

    Yields:
        The number of threads.

    Raises:
        CatdogError: `$CATDOG_EDGE_THREADS` is not a number of threads.
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
    """`auto` is CUDA where it works, else the CPU.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`, in letters of any case.

    Raises:
        CatdogError: It is none of these; or CUDA was asked for by name and is not there.
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
            "train with --device cpu, or mend the driver (nvidia-smi tells whether it works)"
        )
    if name.startswith("cuda:") and int(name[5:]) >= torch.cuda.device_count():
        raise CatdogError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, numbered from "
            "0 on; give one of them"
        )
    return name
