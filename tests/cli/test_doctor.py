"""`catdog-edge doctor`: finds problems, says what to do, exits 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("onnxruntime")

from catdog_edge.cli.doctor import Check, _cameras, _threads, run_checks
from catdog_edge.cli.main import main


def by_name(checks: list[Check]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for check in checks:
        found.setdefault(check.name, []).append(check.state)
    return found


def test_it_looks_at_everything_and_runs_the_cpu() -> None:
    checks = list(run_checks())
    names = set(by_name(checks))
    assert {"system", "processor", "threads", "numpy", "cv2", "onnxruntime"} <= names
    assert {"provider", "models", "cameras", "disk"} <= names
    (cpu,) = (check for check in checks if check.facts.get("provider") == "cpu")
    assert (cpu.state, cpu.text) == ("ok", "cpu runs the built-in model")
    assert cpu.facts["runs"] is True


def test_the_exit_code_says_what_the_lines_say() -> None:
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == (1 if "BAD" in done.stdout else 0), done.output
    for line in done.stdout.splitlines():
        assert line.startswith(("ok    ", "note  ", "BAD   ", "      "))


def test_the_processor_is_named_with_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    from catdog_edge.cli import doctor
    from catdog_edge.system.cpu import Cpu

    for flags, state in (("", "note"), ("avx2", "note"), ("avx2 avx_vnni", "ok")):
        cpu = Cpu("Some CPU", "", frozenset(flags.split()))
        monkeypatch.setattr(doctor, "read_cpu", lambda cpu=cpu: cpu)
        check = doctor._processor()
        assert (check.state, len(check.facts["features"])) == (state, len(flags.split()))
        assert check.text.startswith("Some CPU")


def test_json_is_one_document_with_all_facts() -> None:
    done = CliRunner().invoke(main, ["doctor", "--json"])
    document = json.loads(done.stdout)
    assert document["healthy"] == (done.exit_code == 0)
    threads = next(check for check in document["checks"] if check["name"] == "threads")
    assert threads["facts"]["threads"] >= 1
    runtime = next(check for check in document["checks"] if check["name"] == "onnxruntime")
    assert runtime["facts"]["version"] in str(runtime["facts"]["packages"])


@pytest.mark.parametrize("value", ["none", "4096"])
def test_threads_that_will_bite_are_found(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CATDOG_EDGE_THREADS", value)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 1
    line = next(line for line in done.stdout.splitlines() if "threads" in line)
    assert line.startswith("BAD")
    assert "CATDOG_EDGE_THREADS" in done.stdout


@pytest.mark.parametrize(("quota", "state"), [(1.5, "bad"), (2.0, "ok"), (None, "ok")])
def test_threads_beyond_the_quota_are_found(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, state: str
) -> None:
    monkeypatch.setenv("CATDOG_EDGE_THREADS", "2")
    monkeypatch.setattr("catdog_edge.cli.doctor.usable_processors", lambda: {0, 1, 2})
    monkeypatch.setattr("catdog_edge.cli.doctor.cgroup_quota", lambda: quota)
    check = _threads()
    assert check.state == state
    assert ("the cgroup quota grants 1.5 processors" in check.text) == (state == "bad")


def doctor_with(path: Path) -> subprocess.CompletedProcess[str]:
    """`doctor` in a fresh interpreter that finds packages in `path` first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), *sys.path])}
    return subprocess.run(
        [sys.executable, "-m", "catdog_edge", "doctor"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )


def record(folder: Path, name: str) -> None:
    """The record that pip leaves of an installed package."""
    place = folder / f"{name.replace('-', '_')}-9.9.9.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9.9\n")


@pytest.mark.parametrize(
    ("rival", "module"),
    [("onnxruntime-directml", "onnxruntime"), ("opencv-contrib-python", "cv2")],
)
def test_two_builds_side_by_side_are_named_with_the_command(
    tmp_path: Path, rival: str, module: str
) -> None:
    record(tmp_path, rival)
    done = doctor_with(tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith("BAD") and module in line)
    assert f"{rival} 9.9.9" in lines[index]
    assert "pip uninstall -y " in lines[index + 1]
    assert rival in lines[index + 1]


def test_a_module_that_is_only_partly_there_is_found(tmp_path: Path) -> None:
    """What pip leaves when one of two builds is uninstalled: a folder without the module."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").touch()
    done = doctor_with(tmp_path)
    assert done.returncode == 1
    assert "the module onnxruntime is incomplete" in done.stdout
    assert "pip install" in done.stdout


@pytest.mark.parametrize("named", [b"Cam\xff\xfe \x1b[31m\n", b"", None])
def test_a_camera_of_any_name_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bytes | None
) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "video0").touch()
    title = tmp_path / "sys/class/video4linux/video0/name"
    title.parent.mkdir(parents=True)
    if named is not None:
        title.write_bytes(named)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(
        "catdog_edge.cli.doctor.Path",
        lambda *parts: (
            tmp_path / str(Path(*parts)).lstrip("/")
            if str(parts[0]).startswith(("/dev", "/sys"))
            else Path(*parts)
        ),
    )
    check = _cameras()
    assert check.state == "ok"
    assert "video0" in check.text
    assert ("Cam\ufffd\ufffd \\x1b[31m" in str(check)) == bool(named)
    assert "\x1b" not in str(check)


def test_without_numpy_it_says_so_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('numpy', name='numpy')\n")
    done = doctor_with(tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "this needs the package numpy, which is not installed" in done.stdout
    assert done.stdout.count("not tried: it needs numpy") == 2
    assert "disk" in done.stdout


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file')\n"
    )
    done = doctor_with(tmp_path)
    assert done.returncode == 1
    assert "libGL.so.1" in done.stdout
    assert "[headless]'" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted there")
@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_current_folder_that_was_deleted_is_found(tmp_path: Path, arguments: list[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    # The command begins in the folder and finds it deleted when it looks.
    program = (
        "import os, sys; os.rmdir(os.getcwd()); from catdog_edge.cli.main import main; "
        f"main(['doctor', *{arguments!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=gone,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "the current folder is not there any more" in done.stdout
    assert "(temporary)" in done.stdout
    if arguments:
        assert json.loads(done.stdout)["healthy"] is False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system without a home folder")
def test_a_user_without_a_home_folder_has_a_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "CATDOG_CACHE"):
        monkeypatch.delenv(name, raising=False)
    import pwd

    def nobody(number: int) -> object:
        raise KeyError(f"uid {number}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    line = next(line for line in done.stdout.splitlines() if "(cache" in line)
    assert f"{tmp_path}/catdog-edge-" in line


def test_little_room_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catdog_edge.cli.doctor.LEAST_DISK", 10**18)
    assert set(by_name(list(run_checks()))["disk"]) == {"bad"}
