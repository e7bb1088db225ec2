"""Files of a run become a shipped model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="exporting needs onnx; install [train]")
pytestmark = [pytest.mark.train, pytest.mark.slow]

from click.testing import CliRunner

from catdog_edge.cli.main import main
from catdog_edge.errors import DataError, ModelError
from catdog_edge.runtime.model_file import read_spec
from exporters.add_to_zoo import add_to_zoo
from exporters.graph.add_heat_map import add_heat_map


def test_a_run_is_shipped_in_two_forms_of_the_same_weights(lamps: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    card = zoo / "lamps.md"
    with pytest.raises(DataError, match=r"lamps.md: expected the card of lamps"):
        add_to_zoo(lamps, "lamps", zoo=zoo)
    card.write_text("# Lamps\n\nSHA-256 `00`\n\nThey light.\n")
    with pytest.raises(ModelError, match=r"has no model.static.onnx; make it with: catdog-edge"):
        add_to_zoo(lamps, "lamps", zoo=zoo)
    options = "--quantize static --keep-slower --limit 32"
    assert CliRunner().invoke(main, ["export", *options.split()]).exit_code == 0
    for _ in range(2):  # the second time the card has two digests
        int8, half = add_to_zoo(lamps, "lamps", limit=32, zoo=zoo)
        told = "\n".join(
            f"SHA-256 `{hashlib.sha256(one.read_bytes()).hexdigest()}` (`{one.name}`)"
            for one in (int8, half)
        )
        assert card.read_text() == f"# Lamps\n\n{told}\n\nThey light.\n"
    add_heat_map(lamps / "model.static.onnx")
    assert int8.read_bytes() == (lamps / "model.static.onnx").read_bytes()
    assert sorted(one.name for one in zoo.iterdir()) == [
        "lamps.half.onnx",
        "lamps.md",
        "lamps.onnx",
    ]
    assert read_spec(half).precision == "fp16"
