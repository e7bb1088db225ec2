"""`catdog-edge stream` with the toy model, in a process of its own or in this one."""

from __future__ import annotations

import subprocess
import sys

from support.paths import TINY

from catdog_edge.cli import stream

MODEL = ["--model", str(TINY), "--reject", "0.9", "--provider", "cpu"]
START = ["--start", "2026-11-22T15:04:05Z"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "catdog_edge", "stream", *map(str, arguments)]


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, **options
    )


def run_here(*arguments: object) -> None:
    """The command in this process, errors as it raises them."""
    stream.command.main(list(map(str, arguments)), standalone_mode=False)
