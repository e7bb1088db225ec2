"""Runs of `catdog-edge predict --out`, and their rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from support.paths import TINY

from catdog_edge.cli.main import main

BROKEN = "broken.png"


def predict(*arguments: str, **more: Any) -> Result:
    return CliRunner().invoke(main, ["predict", "--model", str(TINY), *arguments], **more)


def rows_of(out: str) -> list[dict[str, Any]]:
    files = sorted(Path(out).glob("part-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def answers(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The rows without the folder of their files."""
    return [(row.pop("file")[-6:], *row.items()) for row in rows]
