"""How far a command of training is: what to say, and to advise, where it is interrupted.

Knows names of runs and how processes are started; knows nothing of training itself.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from catdog_edge.training.engine.distributed import Ranks
from catdog_edge.training.runs.run_folder import Run


@dataclass
class Whereabouts:
    """How far a command is, to say how to go on where it is interrupted."""

    again: str = ""
    folder: Path | None = None
    trained: bool = False

    def reached(self, run: Run, me: Ranks, trained: bool = False) -> None:
        """There is a `last.pt` to go on from, or even nothing left to train."""
        self.folder, self.trained, self.again = run.folder, trained, again(run, me)

    def words(self) -> str:
        """The line of an interruption."""
        if self.folder is None:
            return "interrupted before training began; there is no run to go on with, start again"
        if self.trained:
            return (
                f"interrupted; the training in {self.folder} is complete, but its figures and "
                f"pictures are not: finish with: {self.again}"
            )
        return f"interrupted; {self.folder}/last.pt is whole, go on with: {self.again}"


def again(run: Run, me: Ranks) -> str:
    """The command that goes on with a run, started as this one was."""
    resume = f"train --resume --name {shlex.quote(run.name)}"
    if me.alone:
        return f"catdog-edge {resume}"
    return f"torchrun --nproc-per-node {me.per_machine} -m catdog_edge {resume}" + (
        " (on every machine as before)" * (me.processes > me.per_machine)
    )
