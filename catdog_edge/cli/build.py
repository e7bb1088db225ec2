"""`catdog-edge build`: build a TensorRT engine ahead of the first call."""

from __future__ import annotations

import json
import threading
import time

import click

from catdog_edge.cli import options as common
from catdog_edge.system.console import note

EVERY = 10.0  # seconds between two lines of progress


@common.command("build", "catdog-edge build", "catdog-edge build runs/pets/model.half.onnx")
@click.argument("model", default="fast")
@common.group("Machine")(
    "--provider",
    type=click.Choice(["tensorrt"]),
    default="tensorrt",
    help="Provider to build for; the others need no build.",
)
@common.json_option
def command(model: str, provider: str, as_json: bool) -> None:
    """Build and cache the TensorRT engine for this GPU.

    MODEL is a file or the name of a shipped model.
    """
    from catdog_edge.runtime.classifier import Classifier

    began, done = time.monotonic(), threading.Event()

    def progress() -> None:
        while not done.wait(EVERY):
            note(f"building, {time.monotonic() - began:.0f} s")

    reporting = threading.Thread(target=progress)
    reporting.start()
    try:
        with Classifier(model, provider) as built:
            built.warmup()
            result = {"model": str(built.path), "provider": provider, "reason": built.reason}
    finally:
        done.set()
        reporting.join()
    result["seconds"] = f"{time.monotonic() - began:.1f}"
    click.echo(json.dumps(result) if as_json else "{model}: {reason}".format_map(result))
