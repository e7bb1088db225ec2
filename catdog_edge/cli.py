"""The command line: the only file that names every room; heavy imports are inside callbacks."""

from __future__ import annotations

import sys
from typing import Any

import click

from catdog_edge import __version__
from catdog_edge.errors import CatdogError


class _Commands(click.Group):
    """Prints an error that a person can act on as one line, a traceback only with `--debug`."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CatdogError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"catdog-edge: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="catdog-edge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """A small image classifier from photographs to a device."""
    del debug, sys
