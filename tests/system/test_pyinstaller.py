"""The hook that PyInstaller finds by itself."""

from __future__ import annotations

import ast
import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from catdog_edge.system.child_process import child_environment
from catdog_edge.system.pyinstaller import hook_folders


def test_pyinstaller_finds_the_models_and_the_modules_of_children() -> None:
    (folder,) = map(Path, hook_folders())
    hook = runpy.run_path(str(folder / "hook-catdog_edge.py"))
    ((zoo, target),) = hook["datas"]
    assert list(Path(zoo).glob("*.onnx"))
    assert target == "catdog_edge/zoo"
    for module in hook["hiddenimports"]:
        assert importlib.util.find_spec(module) is not None
    (names,) = ast.literal_eval((folder / "rthooks.dat").read_text()).values()
    for name in names:
        assert (folder / "rthooks" / name).is_file()


@pytest.mark.slow
def test_a_program_of_pyinstaller_runs_its_children(tmp_path: Path) -> None:
    pytest.importorskip("PyInstaller")
    (tmp_path / "app.py").write_text(
        "import subprocess\n"
        "from catdog_edge.system.child_process import child_command, child_environment\n"
        "command = child_command('json.tool', '--help')\n"
        "subprocess.run(command, env=child_environment(), check=True)\n"
        "print('the end')\n"
    )
    (folder,) = hook_folders()
    command = [sys.executable, "-m", "PyInstaller", "--additional-hooks-dir", folder]
    command += ["--hidden-import", "json.tool", "app.py"]
    for heavy in ("numpy", "cv2", "onnxruntime", "torch", "matplotlib"):
        command += ["--exclude-module", heavy]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, env=child_environment())
    done = subprocess.run(
        [tmp_path / "dist/app/app"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "usage:" in done.stdout
    assert done.stdout.count("the end") == 1
