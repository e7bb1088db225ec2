"""Errors of any command: one line on stderr and the exit code; the traceback with `--debug`."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from catdog_edge.cli import doctor
from catdog_edge.cli.main import main
from catdog_edge.errors import CatdogError, GateError


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, *options: str) -> Result:
    """`doctor` with an error inside."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(doctor, "run_checks", fail)
    return CliRunner().invoke(main, [*options, "doctor"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CatdogError("no model x; name one"), 1, "no model x; name one"),
        (CatdogError("red\x1b[31m"), 1, "red\\x1b[31m"),
        (GateError("accuracy 1.2 points lower"), 3, "accuracy 1.2 points lower"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "cannot write the output: No space left on device; free some disk space, or send it "
            "elsewhere",
        ),
        (
            OSError(errno.EDQUOT, "Quota exceeded", "runs/x"),
            1,
            "cannot write runs/x: Quota exceeded; free some disk space, or send it elsewhere",
        ),
    ],
)
def test_a_known_error_is_one_line_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, line: str
) -> None:
    done = failing(monkeypatch, error)
    assert done.exit_code == code
    assert done.stderr == f"catdog-edge: {line}\n"
    assert done.stdout == ""


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    error = CatdogError("no model x")
    assert failing(monkeypatch, error, "--debug").exception is error


@pytest.mark.parametrize("error", [ValueError("ours"), PermissionError(errno.EACCES, "denied")])
def test_an_unknown_error_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    assert failing(monkeypatch, error).exception is error


def test_what_modules_log_reaches_stderr_while_a_command_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def log() -> list[doctor.Check]:
        logging.getLogger("exporters.export_steps").info("model.onnx: 1.50 MB")
        logging.getLogger("catdog_edge.runtime").warning("no CUDA")
        return []

    monkeypatch.setattr(doctor, "run_checks", log)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0
    assert done.stderr == "model.onnx: 1.50 MB\ncatdog-edge: warning: no CUDA\n"


needs_full = pytest.mark.skipif(
    not Path("/dev/full").is_char_device(), reason="needs a shell and /dev/full"
)


@needs_full
@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_version_that_cannot_be_printed_is_one_line(option: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - it is no file
        done = subprocess.run(
            [sys.executable, "-m", "catdog_edge", option],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("catdog-edge: cannot write the output: ")
