"""Fixtures of several files of this folder."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def run(tmp_path_factory, easy_set):
    """A run with its exported file; tests write nothing into it."""
    from support.models.bench_run import make_run

    return make_run(tmp_path_factory.mktemp("latency") / "lamps", easy_set)


@pytest.fixture(scope="session")
def frames():
    import numpy as np

    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (200, 200, 3), dtype=np.uint8) for _ in range(8)]


@pytest.fixture
def picture(frames, tmp_path):
    from benchmarks.measure.latency import as_jpeg

    path = tmp_path / "picture.jpg"
    path.write_bytes(as_jpeg(frames[0]))
    return path
