"""Processes, threads, and what an interrupted command says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.training.engine.distributed import ProcessGroup
from catdog_edge.training.runs import process_setup
from catdog_edge.training.runs.run_folder import Run


@pytest.mark.parametrize(
    ("processes", "of_them_here", "threads"),  # a number of threads is for a single process
    [(1, 1, 3), (2, 1, 4), (2, 2, 2), (3, 3, 1), (8, 8, 1)],
)
def test_the_processes_of_a_machine_share_its_threads(
    processes: int, of_them_here: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def joined(device: str) -> Iterator[ProcessGroup]:
        yield ProcessGroup(0, processes, 0, of_them_here)

    monkeypatch.setenv("CATDOG_EDGE_THREADS", "4")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(process_setup.distributed, "join_process_group", joined)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    job = process_setup.TrainingJob()
    with job.stack:
        job.join("cpu", 3)
        assert (job.threads, job.device) == (threads, "cpu")
        assert torch.backends.cudnn.deterministic


@pytest.mark.parametrize(
    ("group", "command"),
    [
        (ProcessGroup(), "catdog-edge train --resume --name 'my run'"),
        (
            ProcessGroup(0, 2, 0, 2),
            "torchrun --nproc-per-node 2 -m catdog_edge train --resume --name 'my run'",
        ),
        (
            ProcessGroup(0, 4, 0, 2),
            "torchrun --nproc-per-node 2 -m catdog_edge train --resume --name 'my run' "
            "(on every machine as before)",
        ),
    ],
)
def test_an_interrupted_command_says_how_to_go_on(group: ProcessGroup, command: str) -> None:
    job = process_setup.TrainingJob()
    assert "there is no run to resume" in job.interruption()
    job.run, job.group = Run(Path("runs/my run")), group
    saved = "interrupted; runs/my run/last.pt is saved, resume with: "
    assert job.interruption() == saved + command
    job.trained = True
    complete = "the training in runs/my run is complete, but its figures are not: finish with: "
    assert job.interruption() == f"interrupted; {complete}{command}"
