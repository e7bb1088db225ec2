"""`catdog-edge predict` with the toy model, and pictures for it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from click.testing import CliRunner, Result
from support.paths import TINY

from catdog_edge.cli.main import main

RED, BLUE = (0, 0, 200), (200, 0, 0)


def paint(file: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 60)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    coded, data = cv2.imencode(file.suffix, np.full((*size, 3), colour, np.uint8))
    assert coded
    file.write_bytes(data.tobytes())
    return file


def predict(*arguments: str, **more: object) -> Result:
    return CliRunner().invoke(main, ["predict", "--model", str(TINY), *arguments], **more)  # type: ignore[arg-type]


def answers(result: Result) -> dict[str, str]:
    """File and label, of `--json`."""
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    return {document["file"]: document.get("label", "error") for document in documents}
