"""`catdog-edge export` and the line of an error."""

from __future__ import annotations

from click.testing import CliRunner, Result

from catdog_edge.cli.main import main


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments])


def last_line(result: Result) -> str:
    assert result.exception is None or isinstance(result.exception, SystemExit)
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("catdog-edge: ")
    return line
