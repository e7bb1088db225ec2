from __future__ import annotations

import pytest
from click.testing import CliRunner
from support.commands.parsing import refusal

from catdog_edge.cli.main import main


@pytest.mark.train
def test_an_architecture_is_printed_as_a_table() -> None:
    pytest.importorskip("torch")
    done = CliRunner().invoke(main, ["info", "--arch", "simple_cnn"])
    assert done.exit_code == 0
    assert "410,112" in done.stdout


@pytest.mark.parametrize("other", ["model.onnx", "--json"])
def test_an_architecture_takes_no_file_and_no_json(other: str) -> None:
    assert "takes no FILE and no --json" in refusal("info", "--arch", "resnet18", other)
