"""How many threads PyTorch computes with, for as long as a job lasts.

Knows PyTorch's setting and `catdog_edge.threads`; knows nothing of training. The sums of
a convolution depend on how many threads share it: a run that is resumed with another
number does not give the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from catdog_edge.threads import choose_threads


@contextmanager
def torch_threads(count: int | None = None) -> Iterator[int]:
    """Compute with so many threads, and leave the setting as it was found.

    Args:
        count: `None` takes what `choose_threads` finds: PyTorch itself counts the cores of
            the machine, not those that a container grants.

    Yields:
        The number of threads.

    Raises:
        CatdogError: `$CATDOG_EDGE_THREADS` is not a number of threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or choose_threads().count)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
