"""A small run for the tests of benches, made once."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def home(tmp_path_factory, easy_set):
    """A folder with one run; the tests copy what they change."""
    from support.models.bench_run import make_run

    folder = tmp_path_factory.mktemp("home")
    make_run(folder / "runs" / "lamps-1", easy_set)
    return folder


@pytest.fixture
def run(home, tmp_path, monkeypatch):
    """A copy of the run, in the current folder; its rows are timed without pauses.

    Without `--provider` they are those of the CPU, whatever this machine has.
    """
    from benchmarks.measure import interleaved
    from catdog_edge.runtime.providers import selection
    from catdog_edge.training.runs.run_folder import Run

    monkeypatch.setattr(selection, "accelerators", list)
    monkeypatch.setitem(interleaved.measure.__kwdefaults__, "pause", 0.0)
    shutil.copytree(home / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path / "runs" / "lamps-1")
