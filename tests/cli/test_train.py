from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.commands.parsing import parsed, refusal

from catdog_edge.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arch", "vgg"], "'vgg' is not one of"),
        (["--epochs", "0"], "not in the range"),
        (["--lr", "nan"], "finite"),
        (["--lr", "0"], "not in the range"),
        (["--seed", "99999999999999999999"], "not in the range"),
        (["--labels", "cat,cat"], "two or more different names"),
        (["--labels", "cat"], "two or more different names"),
        (["--split", "80/20"], "three whole numbers"),
        (["--split", "50/50"], "three whole numbers"),
        (["--split", "80/20/0"], "sum to 100"),
        (["--split", "70/20/20"], "sum to 100"),
        (["--split", "90/5/10"], "sum to 100"),
        (["--recipe", "secret"], "is not one of default"),
        (["--name", "a/b"], "plain folder name"),
        (["--name", "../elsewhere"], "plain folder name"),
        (["--name", ".."], "plain folder name"),
        (["--resume", "--epochs", "3"], "leave out --epochs"),
        (["--resume", "--teacher", "x.pt"], "leave out --teacher"),
        (["--resume", "--show-recipe"], "leave out --show-recipe"),
        (["--resume", "--size", "64"], "leave out --size"),
        (["stray"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_explained_and_leaves_nothing(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refusal("train", *arguments)
    assert not list(tmp_path.iterdir())


def test_the_help_says_that_the_limit_is_of_each_set() -> None:
    answer = CliRunner().invoke(main, ["train", "--help"])
    said = "Use at most this many images of each --data, as many of each class."
    assert said in " ".join(answer.output.split())


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--labels", "cat, dog"], "labels", ("cat", "dog")),
        (["--split", "70:20:10"], "split", (70, 20, 10)),
        (["--recipe", "own.YAML"], "recipe", "own.YAML"),
        (["--lr", "0.01"], "lr", 0.01),
        (["--name", "pets"], "name", "pets"),
    ],
)
def test_values_are_parsed(arguments: list[str], name: str, value: object) -> None:
    assert parsed("train", *arguments)[name] == value
