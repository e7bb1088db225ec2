"""Put a run's files into the package as the forms of a shipped model.

    catdog-edge export --weights RUN --quantize
    python -m exporters.add_to_zoo RUN NAME

`NAME.onnx` is the static int8 file, for CPUs. `NAME.half.onnx` is fp16, for GPUs, its weights
stored as int8 so that the package stays small. Before anything is replaced, fp16 is compared with
fp32 before its weights are so stored, and the int8 file, which `export` compared with fp32, with
the shipped fp16 file. The card keeps its text; its digests are updated.
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import click

from catdog_edge.errors import DataError, ModelError
from catdog_edge.runtime.model_file import ZOO, ModelFile
from catdog_edge.system.files import write_text
from catdog_edge.system.log_to_stderr import log_to_stderr
from exporters.export_steps import FP32, HALF, STATIC
from exporters.formats.fp16 import convert_fp16, pack_weights
from exporters.graph.add_heat_map import add_heat_map
from exporters.info import megabytes
from exporters.output_folder import publish, scratch_folder
from exporters.verify import verify

log = logging.getLogger("exporters.add_to_zoo")  # also where this file is the program

DIGESTS = re.compile(r"^SHA-256 .*\n(?:.*SHA-256 .*\n)?", re.MULTILINE)


def add_to_zoo(
    run: Path, name: str, data: str | None = None, limit: int | None = None, zoo: Path = ZOO
) -> tuple[Path, Path]:
    """Make and check the int8 and the fp16 file, and put them and the card into `zoo`.

    `data` is as `--data` of `catdog-edge verify` takes it, at most `limit` images are checked.
    """
    card = zoo / f"{name}.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if not DIGESTS.search(text):
        raise DataError(f"{card}: expected the card of {name} with a line SHA-256; write it first")
    if not (run / STATIC).is_file():
        made = f"catdog-edge export --weights {run} --quantize static"
        raise ModelError(f"{run} has no {STATIC}; make it with: {made}")
    with scratch_folder() as scratch:
        int8, half = scratch / f"{name}.onnx", scratch / f"{name}.half.onnx"
        shutil.copyfile(run / STATIC, int8)
        convert_fp16(run / FP32, scratch / HALF)
        pack_weights(scratch / HALF, half)
        for one in (int8, half):
            add_heat_map(one)
        for reference, candidate in ((run / FP32, scratch / HALF), (half, run / STATIC)):
            found = verify(reference, candidate, data=data, limit=limit, out=scratch)
            log.info(f"{reference.name} and {candidate.name}:\n{found}")
            found.verification.require(candidate.name)
        digests = "".join(
            f"SHA-256 `{ModelFile(one).digest()}` (`{one.name}`)\n" for one in (int8, half)
        )
        write_text(scratch / card.name, DIGESTS.sub(digests, text, count=1))
        publish([int8, half, scratch / card.name], zoo)
    log.info(f"{zoo}: {', '.join(megabytes(path.stat().st_size) for path in zoo.glob('*.onnx'))}")
    return zoo / int8.name, zoo / half.name


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("name")
@click.option("--data", help="Images to check on; default: those of the run.")
@click.option("--limit", type=int, help="At most this many images.")
def main(run: Path, name: str, data: str | None, limit: int | None) -> None:
    """Put the int8 and the fp16 form of RUN into the package as the shipped model NAME."""
    with log_to_stderr():
        for path in add_to_zoo(run, name, data, limit):
            click.echo(path)


if __name__ == "__main__":
    main()
