"""Options that name files: shells leave the `~` of `--weights=~/best.pt` as it is."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from catdog_edge.camera.parse_source import parse_source
from catdog_edge.cli.options import path
from catdog_edge.errors import CatdogError

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
    context = command.make_context(name, [f"{option}=~/x.yaml", *needed])
    (parameter,) = (one for one in command.params if option in one.opts)
    assert os.fspath(context.params[parameter.name]) == str(home / "x.yaml")


def test_a_file_that_is_called_so_is_meant(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "~old.pt").touch()
    assert path("~old.pt") == Path("~old.pt")
    with pytest.raises(CatdogError, match="no such home folder"):
        path("~nobody-of-this-name/x.pt")


def test_a_source_with_a_name_and_a_tilde(home: Path) -> None:
    (home / "visit.mp4").touch()
    assert parse_source("~/visit.mp4").target == str(home / "visit.mp4")
