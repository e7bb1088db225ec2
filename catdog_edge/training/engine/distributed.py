"""The process group of `torchrun`: ranks, collectives, and errors that all processes share.

In a single process no function uses `torch.distributed`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from catdog_edge.errors import CatdogError, first_line

TIMEOUT = timedelta(hours=2)  # of a collective: the first process may be decoding a large data set

T = TypeVar("T")


def is_distributed() -> bool:
    """Check whether `torchrun` started this process with others."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


@contextmanager
def once_per_node() -> Iterator[None]:
    """Let only the first process of a node raise a `CatdogError`; the others exit silently."""
    try:
        yield
    except CatdogError as error:
        if is_distributed() and os.environ.get("LOCAL_RANK", "0") != "0":
            raise SystemExit(error.exit_code) from error
        raise


@dataclass(frozen=True)
class ProcessGroup:
    """Rank of this process and size of its group; the defaults are a single process."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on this node
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and the log."""
        return self.rank == 0

    @property
    def is_single(self) -> bool:
        """Whether there are no other processes."""
        return self.world_size == 1

    def own_device(self, device: str) -> str:
        """Return this process's device: in a group, the CUDA device of its local rank."""
        if self.is_single or not device.startswith("cuda"):
            return device
        return f"cuda:{self.local_rank}"

    def broadcast(self, value: T) -> T:
        """Return the main process's value, which must pickle."""
        if self.is_single:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        if self.is_single:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return [one for one in values if one is not None]

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all processes, in place."""
        if not self.is_single:
            dist.all_reduce(values)
        return values

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Take over the main process's batch-norm statistics; each saw its own images."""
        if not self.is_single:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def barrier(self) -> None:
        """Wait until all processes reach this point."""
        if not self.is_single:
            dist.barrier()

    @contextmanager
    def shared_errors(self) -> Iterator[None]:
        """Raise a `CatdogError` of any process's block in all processes.

        Otherwise the others would wait for the failed process for ever. The block must not hold
        a collective.
        """
        if self.is_single:
            yield
            return
        own: CatdogError | None = None
        try:
            yield
        except CatdogError as error:
            own = error
        reports = self.all_gather((str(own), own.exit_code) if own else ("", 0))
        self.barrier()  # a process that leaves early was seen to disturb those that still gather
        if own is not None:
            raise own
        for rank, (message, exit_code) in enumerate(reports):
            if message:
                other = CatdogError(f"process {rank} of {self.world_size}: {message}")
                other.exit_code = exit_code
                raise other

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Run a block in the first process of each node, then in the others; see `shared_errors`.

        The others find what the first has written to the cache.
        """
        with self.shared_errors():
            if self.local_rank:
                self.barrier()
            try:
                yield
            finally:
                if not self.local_rank:
                    self.barrier()


@contextmanager
def join_process_group(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started, if it did, for the duration of a block.

    A CPU communicates through gloo, CUDA through nccl.

    Raises:
        CatdogError: The variables of `torchrun` are incomplete, or a process does not answer.
        SystemExit: Instead of every `CatdogError` of the block, in all processes but the main one.
    """
    group = _group_of_torchrun()
    if group.is_single:
        yield group
        return
    _init(group, device)
    try:
        yield group
        # A process that left before the main one was seen to abort in gloo's threads.
        group.barrier()
    except CatdogError as error:
        if group.is_main:
            raise
        raise SystemExit(error.exit_code) from error
    except RuntimeError as error:
        # A collective fails so when another process has ended.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        if not group.is_main:
            raise SystemExit(1) from error
        raise CatdogError(
            "another of the processes has ended, so this one stops; what was saved is complete, "
            "resume with --resume, started with torchrun in the same way"
        ) from error
    finally:
        dist.destroy_process_group()


def _group_of_torchrun() -> ProcessGroup:
    """Read the group from the environment variables of `torchrun`."""
    given = [name for name in ("RANK", "WORLD_SIZE") if os.environ.get(name)]
    if not given:
        return ProcessGroup()
    if len(given) == 1:
        missing = "WORLD_SIZE" if given == ["RANK"] else "RANK"
        raise CatdogError(
            f"{given[0]} is set, {missing} is not; start with torchrun, or unset {given[0]}"
        )
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = [os.environ.get(name, default) for name, default in zip(names, "0101")]
    group = ProcessGroup(*(int(value) if value.isdecimal() else -1 for value in values))
    if not (0 <= group.rank < group.world_size and 0 <= group.local_rank < group.local_world_size):
        found = ", ".join(f"{name}={value}" for name, value in zip(names, values))
        raise CatdogError(f"{found} is not a process group; start with torchrun, or unset them")
    return group


def _init(group: ProcessGroup, device: str) -> None:
    on_cuda = device.startswith("cuda")
    if on_cuda:
        if group.local_world_size > torch.cuda.device_count():
            raise CatdogError(
                f"{group.local_world_size} processes on this machine, but "
                f"{torch.cuda.device_count()} CUDA devices; start one for each device"
            )
        torch.cuda.set_device(group.local_rank)  # what nccl and plain `cuda` mean from here on
    try:
        dist.init_process_group("nccl" if on_cuda else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise CatdogError(
            f"process {group.rank} of {group.world_size} cannot join the others "
            f"({first_line(error)}); start all of them with torchrun, with the same --master-addr "
            "and --master-port"
        ) from error
