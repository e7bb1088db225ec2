"""The group `catdog-edge`: its commands, logging, and errors as one line on stderr.

Each command has a file of its own, which imports heavy packages inside its callback only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from catdog_edge.cli import (
    bench,
    build,
    doctor,
    export,
    import_onnx,
    info,
    predict,
    stream,
    train,
    verify,
)
from catdog_edge.cli import eval as evaluate
from catdog_edge.cli.options import write_examples
from catdog_edge.errors import CatdogError, escaped
from catdog_edge.system import console
from catdog_edge.system.log_to_stderr import log_to_stderr
from catdog_edge.system.packages import import_error
from catdog_edge.system.version import __version__


class _Group(click.Group):
    """Lists commands in the order of the work; prints known errors as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):  # click itself would cut long lines off
            formatter.write_dl(
                [(name, one.get_short_help_str(limit=999)) for name, one in self.commands.items()]
            )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        examples = (
            "catdog-edge train --data images/    # class folders -> runs/NAME/best.pt",
            "catdog-edge export --quantize       # -> model.onnx and a checked int8 file",
            "catdog-edge predict shots/          # one line for each image",
        )
        write_examples(formatter, examples)

    def main(self, args: Sequence[str] | None = None, *more: Any, **named: Any) -> Any:
        """Run; a known error becomes one line on stderr and its exit code."""
        try:
            with log_to_stderr():
                return super().main(args, *more, **named)
        except Exception as error:  # a broken package raises what it likes
            known = error if isinstance(error, CatdogError) else console.output_error(error)
            known = known or import_error(error)
            debug = "--debug" in (sys.argv[1:] if args is None else args)
            if known is None or debug or not named.get("standalone_mode", True):
                raise
            name = console.style("catdog-edge:", sys.stderr, fg="red", bold=True)
            console.note(f"{name} {escaped(str(known))}")
            sys.exit(known.exit_code)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.version_option(__version__, prog_name="catdog-edge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Train a small image classifier, export it to ONNX, and run it on a device.

    Every command except import and verify runs without arguments and prints what it uses.
    """
    del debug
    console.tolerant_output()


for module in (
    train, evaluate, export, import_onnx, verify, info, bench, build, predict, stream, doctor,
):  # fmt: skip
    main.add_command(module.command)

if __name__ == "__main__":
    main()
