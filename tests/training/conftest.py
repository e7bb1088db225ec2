"""A finished run that tests of several folders read; none of them changes it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(easy_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support.commands.training_runs import WEIGHTED, quick

    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        result = quick(easy_set, "lamps")
    assert result.exit_code == 0, result.output
    assert WEIGHTED not in result.stderr
    (folder / "stderr.txt").write_text(result.stderr)
    return folder / "runs" / "lamps"
