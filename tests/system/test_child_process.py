from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from catdog_edge.errors import CatdogError
from catdog_edge.system import child_process
from catdog_edge.system.child_process import child_command, child_environment


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module on this process's path that prints its name and its command line."""
    text = "import sys\nif __name__ == '__main__':\n    print(__name__, sys.argv[1:])\n"
    (tmp_path / "said_by_a_child.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "said_by_a_child"


def run(command: list[str], **more: object) -> str:
    done = subprocess.run(
        command, env=child_environment(), capture_output=True, text=True, check=True, **more
    )
    return done.stdout.strip()


def test_a_module_runs_in_a_process_of_its_own(module: str) -> None:
    assert run(child_command(module, "a", "b c")) == "__main__ ['a', 'b c']"


def test_nothing_is_imported_from_the_current_folder(module: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / f"{module}.py").write_text("print('the wrong one')")
    assert run(child_command(module), cwd=here) == "__main__ []"


FROZEN = """
import sys
sys.frozen = True
from catdog_edge.errors import CatdogError
from catdog_edge.system import child_process
{support}
try:
    print(child_process.child_command("said_by_a_child", "x"))
except CatdogError as error:
    print(error)
print("the program's own work")
"""


def test_a_frozen_program_without_the_hook_is_refused_in_one_line() -> None:
    said, own = run([sys.executable, "-c", FROZEN.format(support="")]).splitlines()
    assert "call catdog_edge.system.child_process.freeze_support() first" in said
    assert own == "the program's own work"


def test_a_frozen_program_with_the_hook_runs_its_children(module: str) -> None:
    program = FROZEN.format(support="child_process.freeze_support()")
    said, own = run([sys.executable, "-c", program]).splitlines()
    assert said == f"{[sys.executable, child_process.FLAG, module, 'x']}"
    assert own == "the program's own work"
    as_child = run([sys.executable, "-c", program, child_process.FLAG, module, "x", "y"])
    assert as_child == "__main__ ['x', 'y']"


def test_a_program_that_embeds_python_finds_the_interpreter(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "uwsgi"
    program.write_text("")
    monkeypatch.setattr(sys, "executable", str(program))
    assert run(child_command(module)) == "__main__ []"
    monkeypatch.setattr(sys, "executable", None)
    assert run(child_command(module)) == "__main__ []"


def test_a_program_without_a_python_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "kiosk"))
    for name in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    with pytest.raises(CatdogError, match=r"kiosk is no Python interpreter; set sys.executable"):
        child_command("said_by_a_child")


def test_a_camera_in_a_frozen_program_is_refused_in_one_line() -> None:
    program = """
import sys
sys.frozen = True
from catdog_edge import Camera, CameraError
try:
    Camera("rtsp://127.0.0.1:9/yard")
except CameraError as error:
    print(error)
"""
    said = run([sys.executable, "-c", program])
    assert "a frozen program has no Python" in said
    assert "freeze_support()" in said
