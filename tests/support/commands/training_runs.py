"""Short runs of `catdog-edge train`, and the files that they leave."""

from __future__ import annotations

import csv
from pathlib import Path

from click.testing import CliRunner, Result

from catdog_edge.cli.main import main

RUN_FILES = {
    ".lock", "args.yaml", "best.pt", "confusion.png", "curves.png", "data.png", "last.pt",
    "results.csv", "review.csv", "skipped.csv", "split.csv", "summary.json",
}  # fmt: skip
WEIGHTED = "times the images of the smallest: the loss is weighted by class"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def quick(data: Path, name: str, *more: object) -> Result:
    return call(
        "train", "--data", data, "--name", name, "--size", 32, "--epochs", 2, "--batch-size", 16,
        "--precision", "float32", *(() if "--arch" in more else ("--arch", "edge_cnn")), *more,
    )  # fmt: skip


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))
