"""Options: grouped help with examples that are accepted, choices as in the registries, paths."""

from __future__ import annotations

import importlib
import os
import re
import shlex
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner

from catdog_edge.camera.parse_source import parse_source
from catdog_edge.cli import options
from catdog_edge.cli.main import main
from catdog_edge.cli.options import path
from catdog_edge.errors import CatdogError


def help_of(*arguments: str, width: int = 80) -> str:
    done = CliRunner().invoke(main, [*arguments, "--help"], terminal_width=width)
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("width", [60, 80])
def test_the_list_of_commands_is_whole_and_its_examples_stand_line_by_line(width: int) -> None:
    output = help_of(width=width)
    assert "..." not in output.replace("[ARGS]...", "")
    assert "\\b" not in output
    listed = re.findall(r"^  ([a-z]+) {2,}\S", output.partition("Commands:")[2], re.MULTILINE)
    assert listed == list(main.commands)
    examples = output.partition("Examples:\n")[2].splitlines()
    assert len(examples) == 3
    assert all(line.startswith("  catdog-edge ") for line in examples)


@pytest.mark.parametrize("name", list(main.commands))
def test_every_help_has_headings_and_two_or_three_examples(name: str) -> None:
    output = help_of(name)
    headings = re.findall(r"^([A-Z]\w+):$", output, re.MULTILINE)
    assert headings[-2:] == ["Other", "Examples"]
    assert len(headings) > 2
    assert "Options" not in headings
    examples = output.partition("Examples:\n")[2].splitlines()
    assert 2 <= len(examples) <= 3
    for option in main.commands[name].params:
        if isinstance(option, click.Option):
            assert output.count(f"  {option.opts[0]}") >= 1


@pytest.mark.parametrize("name", list(main.commands))
def test_examples_are_accepted_by_the_parser(name: str) -> None:
    command = main.commands[name]
    for example in command.examples:
        *_, mine = example.rpartition("| ")
        words = shlex.split(mine.partition(" >")[0])
        assert words[:2] == ["catdog-edge", name]
        with command.make_context(name, words[2:]):
            pass


def test_choices_are_those_of_the_edge_registries() -> None:
    pytest.importorskip("onnxruntime")
    from catdog_edge.runtime.providers import start
    from catdog_edge.system import threads

    assert set(options.PROVIDERS) == {"auto", *start.NAMES}
    assert options.MOST_THREADS == threads.MOST


def test_choices_are_those_of_the_other_rooms() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from benchmarks.measure.loadgen import Scenario
    from catdog_edge.spec import Layout
    from catdog_edge.training.config.recipes import RECIPES
    from catdog_edge.training.models.registry import ARCHITECTURES
    from exporters.static_int8.calibrate import Calibration

    def offered(command: str, option: str) -> tuple[str, ...]:
        (found,) = (one for one in main.commands[command].params if one.name == option)
        assert isinstance(found.type, click.Choice)
        return tuple(found.type.choices)

    assert tuple(RECIPES) == options.RECIPES
    assert tuple(ARCHITECTURES) == offered("train", "arch") == offered("info", "arch")
    assert offered("export", "calibration") == get_args(Calibration)
    assert offered("export", "layout") == get_args(Layout)
    assert offered("bench", "scenario") == get_args(Scenario)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stream", "--keep", "many"], "like: 500MB"),
        (["stream", "--rotate", "-1"], "like: 500MB"),
        (["stream", "--seconds", "inf"], "finite"),
        (["nothing"], "No such command"),
    ],
)
def test_wrong_usage_is_explained_with_exit_code_2(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["stream", "--keep", "1GB"], "keep", 10**9),
        (["predict", "--reject", "0"], "reject", 0.0),
    ],
)
def test_values_are_parsed(arguments: list[str], name: str, value: object) -> None:
    command, *rest = arguments
    with main.commands[command].make_context(command, rest) as context:
        assert context.params[name] == value


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("500MB", 500_000_000), ("1.5k", 1500), ("2 G", 2 * 10**9)]
)
def test_sizes(text: str, size: int) -> None:
    assert options.size(text) == size


OPTIONS = [
    ("train", "--teacher"),
    ("train", "--recipe"),
    ("eval", "--weights"),
    ("eval", "--plot"),
    ("export", "--weights"),
    ("export", "--out"),
    ("bench", "--weights"),
    ("bench", "--baseline"),
    ("bench", "--out"),
    ("verify", "--spec"),
    ("predict", "--model"),
    ("predict", "--save"),
    ("stream", "--model"),
    ("stream", "--events"),
    ("stream", "--snapshots"),
    ("stream", "--record"),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_a_leading_tilde_is_the_home_folder(name: str, option: str, home: Path) -> None:
    command = importlib.import_module(f"catdog_edge.cli.{name}").command
    needed = {"verify": ["a.pt", "b.onnx"], "predict": ["a.jpg"]}.get(name, [])
    file = {"--plot": "x.png"}.get(option, "x.yaml")
    context = command.make_context(name, [f"{option}=~/{file}", *needed])
    (parameter,) = (one for one in command.params if option in one.opts)
    assert os.fspath(context.params[parameter.name]) == str(home / file)


def test_a_file_that_is_called_so_is_meant(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "~old.pt").touch()
    assert path("~old.pt") == Path("~old.pt")
    with pytest.raises(CatdogError, match="no such home folder"):
        path("~nobody-of-this-name/x.pt")


def test_a_source_with_a_name_and_a_tilde(home: Path) -> None:
    (home / "visit.mp4").touch()
    assert parse_source("~/visit.mp4").target == str(home / "visit.mp4")
