"""The command line of the studies: help, wrong usage, exit codes."""

from __future__ import annotations

import argparse
import importlib
import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytest.importorskip("onnx", reason="needs onnx (the [train] extra)")
pytest.importorskip("cv2", reason="OpenCV is not installed; install a flavour")

from support.paths import ROOT

from benchmarks.studies.command_line import StudyParser, keep
from catdog_edge.errors import CatdogError, GateError

pytestmark = pytest.mark.train

FOLDER = ROOT / "benchmarks" / "studies"
STUDIES = sorted(file.stem for file in FOLDER.glob("*.py") if "\nmain = " in file.read_text())


def test_every_study_of_the_docs_is_there() -> None:
    table = (ROOT / "docs" / "bench.md").read_text().split("\n## Studies\n")[1].split("\n## ")[0]
    named = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert named - {"python -m benchmarks.studies."} == set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_help_names_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    study = importlib.import_module(f"benchmarks.studies.{name}")
    with pytest.raises(SystemExit) as caught:
        study.main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: python -m benchmarks.studies.{name} ")
    assert (study.__doc__ or "").splitlines()[0] in printed
    assert "%%" not in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seconds", "0"], "argument --seconds: give a number of seconds above 0"),
        (["--seconds", "inf"], "argument --seconds: give a number of seconds above 0"),
        (["--threads", "0"], "argument --threads: give a whole number in 1..256"),
        (["--threads", "257"], "argument --threads: give a whole number in 1..256"),
    ],
)
def test_wrong_usage_is_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = StudyParser("study", "Does nothing.", lambda _: pytest.fail("ran all the same"))
    parser.seconds(1.0, "of nothing")
    parser.threads("of nothing")
    with pytest.raises(SystemExit) as caught:
        parser(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (CatdogError("no such file"), 1, "study: no such file"),
        (GateError("too slow"), 3, "study: too slow"),
        (KeyboardInterrupt(), 1, "study: interrupted; nothing is kept"),
    ],
)
def test_an_error_is_one_line(
    error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(options: argparse.Namespace) -> None:
        raise error

    assert StudyParser("study", "Fails.", body)([]) == code
    assert capsys.readouterr().err.strip() == says


def test_figures_are_kept_where_a_file_is_named(tmp_path: Path) -> None:
    seen: list[Path | None] = []

    def body(options: argparse.Namespace) -> None:
        seen.append(options.json)
        keep({"figure": 1.5}, options.json)

    parser = StudyParser("study", "Keeps what it is given.", body)
    parser.json()
    assert parser([]) == 0
    assert parser(["--json", str(tmp_path / "kept.json")]) == 0
    assert seen == [None, tmp_path / "kept.json"]
    assert json.loads((tmp_path / "kept.json").read_text()) == {"figure": 1.5}
    with pytest.raises(ValueError, match="JSON"):  # which other readers would refuse
        keep({"figure": math.nan}, tmp_path / "kept.json")
