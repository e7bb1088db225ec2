"""`catdog-edge bench`, quickly, and the line of an error."""

from __future__ import annotations

from click.testing import CliRunner, Result

from catdog_edge.cli.main import main

QUICK = ["--seconds", "1", "--cold-starts", "0", "--corruptions", "0", "--threads", "1"]


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


def error_line(result: Result, code: int = 1) -> str:
    """The one line that a person sees last on stderr."""
    assert result.exit_code == code, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("catdog-edge: ")
    assert "Traceback" not in result.output
    return line
