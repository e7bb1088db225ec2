"""What the parser makes of a command line, without running the command."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner

from catdog_edge.cli.main import main


def refusal(*arguments: str) -> str:
    """Return what is said about wrong usage, with exit code 2."""
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    assert not done.stdout
    return done.stderr


def parsed(command: str, *arguments: str) -> dict[str, Any]:
    """Return the values of the parameters, by name."""
    with main.commands[command].make_context(command, list(arguments)) as context:
        return context.params
