"""`catdog-edge info`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from catdog_edge.cli import options as common


@common.command(
    "info",
    "catdog-edge info accurate --card",
    "catdog-edge info runs/pets",
    "catdog-edge info --arch resnet18",
)
@click.argument("file", required=False)
@common.spec_option
@common.arch_option("Print the layers of an architecture instead")
@common.output(
    "--card",
    is_flag=True,
    help="Print everything in the file, and the card of a shipped model: figures and limits.",
)
@common.json_option
def command(
    file: str | None, arch: str | None, spec_file: Path | None, card: bool, as_json: bool
) -> None:
    """Print the spec, inputs, outputs and operators of a model file.

    FILE is a .onnx, .ort or .pt file, a run folder or the name of a shipped model.  [default: the
    shipped model]
    """
    if arch is not None:
        if file is not None or as_json:
            raise click.UsageError("--arch takes no FILE and no --json")
        from catdog_edge.training.models.summary import architecture_table

        click.echo(architecture_table(arch))
        return
    from exporters.info import read_info, read_spec_file

    result = read_info(file, None if spec_file is None else read_spec_file(spec_file))
    click.echo(json.dumps(result.to_dict(), indent=2) if as_json else result.text(card))
