"""Several processes that train one network: who this one is, and what they agree on.

Knows `torch.distributed` and the variables that `torchrun` sets; knows nothing of networks
or data. Alone, every function is the obvious one for a single process.
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

PATIENCE = timedelta(hours=2)
"""How long the others wait while the first process reads the pictures of a large set."""

T = TypeVar("T")


def among_others() -> bool:
    """Whether `torchrun` started this process beside others."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


@contextmanager
def told_once() -> Iterator[None]:
    """Let one process of each machine alone tell an error that all of them run into.

    The others end with the same exit code and without a word. Once they have joined, `ranks`
    lets only the first speak.
    """
    try:
        yield
    except CatdogError as error:
        if among_others() and os.environ.get("LOCAL_RANK", "0") != "0":
            raise SystemExit(error.exit_code) from error
        raise


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: From 0 on, over all machines.
        processes: How many there are.
        local: From 0 on, on this machine.
        per_machine: How many there are on this machine.
    """

    rank: int = 0
    processes: int = 1
    local: int = 0
    per_machine: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.processes == 1

    def own_device(self, device: str) -> str:
        """The device of this process: on CUDA each process of a machine has its own.

        Args:
            device: `cpu`, `cuda` or `cuda:N`; a number counts only where there are no others.
        """
        if self.alone or not device.startswith("cuda"):
            return device
        return f"cuda:{self.local}"

    def agreed(self, value: T) -> T:
        """What the first process has, in all of them.

        Args:
            value: Anything that pickles; counts in the first process alone.
        """
        if self.alone:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, value: T) -> list[T]:
        """What each process has, in the order of their ranks, in all of them."""
        if self.alone:
            return [value]
        values: list[T | None] = [None] * self.processes
        dist.all_gather_object(values, value)
        return [one for one in values if one is not None]

    def summed(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place and in all of them."""
        if not self.alone:
            dist.all_reduce(values)
        return values

    def share_buffers(self, network: nn.Module) -> None:
        """Take over the first process's batch-norm statistics, in place.

        Weights are alike in all processes, statistics are not: each saw its own pictures.
        """
        if not self.alone:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Go on once all have come here."""
        if not self.alone:
            dist.barrier()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave a block in all processes with the error of the first that failed in it.

        A process that waits for one that has failed would wait for ever. Nothing in the
        block may wait for the others.

        Raises:
            CatdogError: The block raised it, in this process or in another.
        """
        failed: CatdogError | None = None
        try:
            yield
        except CatdogError as error:
            if self.alone:
                raise
            failed = error
        if self.alone:
            return
        told = self.gathered((str(failed), failed.exit_code) if failed else ("", 0))
        self.wait()  # a process that leaves early was seen to disturb those that still gather
        if failed is not None:
            raise failed
        for rank, (words, code) in enumerate(told):
            if words:
                theirs = CatdogError(f"process {rank} of {self.processes}: {words}")
                theirs.exit_code = code
                raise theirs

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Let the first process of each machine go through a block before the others.

        Raises:
            CatdogError: See `together`.
        """
        with self.together():
            if self.local:
                self.wait()
            try:
                yield
            finally:
                if not self.local:
                    self.wait()


@contextmanager
def ranks(device: str) -> Iterator[Ranks]:
    """Join the others that `torchrun` started, if it did, for the length of a block.

    Args:
        device: `cpu` talks through gloo, `cuda` through nccl.

    Raises:
        CatdogError: The variables of `torchrun` are incomplete, or the others do not answer,
            or have ended.
        SystemExit: Instead of every `CatdogError` of the block in all processes but the first.
    """
    named = [name for name in ("RANK", "WORLD_SIZE") if os.environ.get(name)]
    if not named:
        yield Ranks()
        return
    if len(named) == 1:
        lacking = "WORLD_SIZE" if named == ["RANK"] else "RANK"
        raise CatdogError(
            f"{named[0]} is set, {lacking} is not; start with torchrun, or unset {named[0]}"
        )
    try:
        me = Ranks(
            rank=int(os.environ["RANK"]),
            processes=int(os.environ["WORLD_SIZE"]),
            local=int(os.environ.get("LOCAL_RANK", "0")),
            per_machine=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        )
    except ValueError as error:
        raise CatdogError(
            f"RANK, WORLD_SIZE or LOCAL_RANK is no number ({error}); start with torchrun, "
            "or unset them"
        ) from error
    if not (0 <= me.rank < me.processes and 0 <= me.local < me.per_machine):
        raise CatdogError(
            f"RANK {me.rank} of WORLD_SIZE {me.processes}, LOCAL_RANK {me.local} of "
            f"LOCAL_WORLD_SIZE {me.per_machine} cannot be; start with torchrun, or unset them"
        )
    if me.alone:
        yield me
        return
    if device.startswith("cuda"):
        if me.per_machine > torch.cuda.device_count():
            raise CatdogError(
                f"{me.per_machine} processes on this machine, but {torch.cuda.device_count()} CUDA "
                "devices; start one for each device"
            )
        torch.cuda.set_device(me.local)  # what nccl and plain `cuda` mean in this process
    try:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise CatdogError(
            f"process {me.rank} of {me.processes} cannot join the others ({reason}); start all "
            "of them with torchrun, with the same --master-addr and --master-port"
        ) from error
    try:
        yield me
        # The first writes its pictures last. A process that leaves earlier than the others
        # was seen to abort in gloo's threads.
        me.wait()
    except CatdogError as error:
        if me.first:
            raise
        raise SystemExit(error.exit_code) from error
    except RuntimeError as error:
        if not _is_of_the_others(error):
            raise
        if not me.first:
            raise SystemExit(1) from error
        raise CatdogError(
            "another of the processes has ended, so this one stops; what was saved is whole, go "
            "on with --resume, started with torchrun in the same way"
        ) from error
    finally:
        dist.destroy_process_group()


def _is_of_the_others(error: RuntimeError) -> bool:
    """Whether a collective failed, as it does when another process has ended."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
