from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.commands.parsing import refusal

from catdog_edge.cli.main import main


def test_a_stray_argument_is_refused() -> None:
    assert "unexpected extra argument" in refusal("eval", "stray")


@pytest.mark.parametrize("name", ["roc", "roc.txt", "."])
def test_a_plot_is_a_png(name: str) -> None:
    assert "give a file that ends in .png" in refusal("eval", "--plot", name)


@pytest.mark.train
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "train one"),
        (["--weights", "absent.pt"], "absent.pt"),
        (["--weights", "notes.txt"], "notes.txt"),
    ],
)
def test_wrong_weights_are_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("hello")
    done = CliRunner().invoke(main, ["eval", *arguments])
    assert (done.exit_code, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("catdog-edge: ")
    assert said in last
    assert "Traceback" not in done.stderr
