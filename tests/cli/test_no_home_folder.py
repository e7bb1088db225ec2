"""Every command for a user without a passwd entry, without $HOME, or with a read-only one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import TINY

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.slow

USER = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
HIDDEN = ("HOME", "XDG_CACHE_HOME", "CATDOG_CACHE", "USER", "LOGNAME", "LNAME", "USERNAME")


@pytest.fixture(autouse=True)
def _needs_user_namespaces() -> None:
    if shutil.which("unshare") is None or subprocess.run([*USER, "true"], check=False).returncode:
        pytest.skip("needs user namespaces")


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    environment |= {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.run(
        [*USER, sys.executable, "-m", "catdog_edge", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env=environment,
    )


@pytest.mark.train
def test_train_eval_and_export_run_without_a_home_folder(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    small = ("--limit", "40", "--epochs", "1", "--size", "32", "--name", "a")
    for arguments in (("train", *small), ("eval",), ("export",), ("predict", "runs")):
        done = run(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "MPLCONFIGDIR" not in done.stderr
    assert (tmp_path / "catdog-edge-54321").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "~").exists()


@pytest.mark.train
@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (("train", "--data", "~nobody-of-this-name/x"), {}),
        (("train",), {"CATDOG_CACHE": "~nobody-of-this-name/x"}),
        (("train",), {"HOME": "/proc/self"}),
    ],
)
def test_a_home_folder_that_cannot_be_used_is_one_line(
    arguments: tuple[str, ...], variables: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    done = run(tmp_path, *arguments, **variables)
    said = done.stderr.splitlines()
    assert done.returncode == 1
    assert said[-1].startswith("catdog-edge: ")
    assert "home folder" in said[-1] or "set CATDOG_CACHE" in said[-1]
    assert "Traceback" not in done.stderr
    assert "atplotlib" not in done.stderr


@pytest.mark.parametrize("home", [None, "/proc/self"])
def test_the_edge_commands_run_without_a_home_folder(home: str | None, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    variables = {} if home is None else {"HOME": home}
    for arguments in (("predict", "a.png", "--model", str(TINY)), ("doctor",)):
        done = run(tmp_path, *arguments, **variables)
        if arguments == ("doctor",):
            # There is no room in /proc, and it says so; [gpu] without a GPU is bad, too.
            bad = [line for line in done.stdout.splitlines() if line.startswith("BAD   disk")]
            assert bool(bad) == (home is not None), done.stdout
        else:
            assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
