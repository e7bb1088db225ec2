"""Set up the process of a training command: group, threads, message of an interruption."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator

import torch

from catdog_edge.system.signals import interruption_as_error
from catdog_edge.system.threads import choose_threads
from catdog_edge.training.engine import distributed
from catdog_edge.training.engine.device import torch_threads
from catdog_edge.training.runs.run_folder import Run


class TrainingJob:
    """One training command."""

    def __init__(self) -> None:
        self.group = distributed.ProcessGroup()
        self.device: str  # set, like the threads, by `join`
        self.threads: int
        self.run: Run | None = None  # set once there is a `last.pt` to resume from
        self.trained = False  # only the figures of the run are missing
        self.stack = contextlib.ExitStack()  # contexts that last until the command ends

    def join(self, device: str, threads: int | None = None) -> None:
        """Join the process group, and set PyTorch's number of threads; see `torch_threads`."""
        self.group = self.stack.enter_context(distributed.join_process_group(device))
        self.device = self.group.own_device(device)
        # Otherwise cuDNN picks kernels whose sums differ from run to run.
        torch.backends.cudnn.deterministic = True
        if self.group.local_world_size > 1:
            threads = max(1, choose_threads().count // self.group.local_world_size)
        elif not self.group.is_single:
            threads = None
        self.threads = self.stack.enter_context(torch_threads(threads))

    @property
    def resume_command(self) -> str:
        """The command that resumes the run, started as this one was."""
        assert self.run is not None
        command = f"train --resume --name {shlex.quote(self.run.name)}"
        if self.group.is_single:
            return f"catdog-edge {command}"
        per_node = self.group.local_world_size
        everywhere = " (on every machine as before)" * (self.group.world_size > per_node)
        return f"torchrun --nproc-per-node {per_node} -m catdog_edge {command}{everywhere}"

    def interruption(self) -> str:
        """Return the message of an interruption."""
        if self.run is None:
            return "interrupted before training began; there is no run to resume, start again"
        folder = self.run.folder
        if self.trained:
            return (
                f"interrupted; the training in {folder} is complete, but its figures are not: "
                f"finish with: {self.resume_command}"
            )
        return f"interrupted; {folder}/last.pt is saved, resume with: {self.resume_command}"


@contextlib.contextmanager
def training_job() -> Iterator[TrainingJob]:
    """Run a training command in a block: an interruption becomes a `CatdogError`.

    Among several processes of a node, only the first reports an error.
    """
    job = TrainingJob()
    as_error = interruption_as_error(job.interruption, last=distributed.is_distributed())
    with distributed.once_per_node(), as_error, job.stack:
        yield job
