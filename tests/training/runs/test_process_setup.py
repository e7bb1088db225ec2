"""The processes of one machine share its threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.training.engine.distributed import ProcessGroup
from catdog_edge.training.runs import process_setup


@pytest.mark.parametrize(("processes", "threads"), [(2, 2), (3, 1), (8, 1)])
def test_the_processes_of_a_machine_share_its_threads(
    processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def joined(device: str) -> Iterator[ProcessGroup]:
        yield ProcessGroup(0, processes, 0, processes)

    monkeypatch.setenv("CATDOG_EDGE_THREADS", "4")
    monkeypatch.setattr(process_setup.distributed, "join_process_group", joined)
    job = process_setup.TrainingJob()
    with job.stack:
        job.join("cpu")
        assert job.threads == threads
