"""What `catdog-edge export` does: finds weights and pictures, has the files made, and tells.

Knows nothing of click's options, nor of how a file is made. Words go to stderr.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catdog_edge import __version__
from catdog_edge.errors import GateError, ModelError
from catdog_edge.training.models.checkpoint import load_checkpoint
from catdog_edge.training.runs.provenance import git_commit
from catdog_edge.training.runs.run_folder import Run, newest_run, run_of
from exporters.checks.sample import calibration_pictures, checking_sample, find_data
from exporters.options import ExportOptions
from exporters.pipeline import Job
from exporters.publish import destination, scratch_folder
from exporters.report import Row, table

log = logging.getLogger(__name__)

__all__ = ["ExportOptions", "Exported", "export"]


@dataclass(frozen=True)
class Exported:
    """What was made.

    Attributes:
        folder: Where the files are.
        rows: Every file that was made, kept or refused; fp32 first.
        document: What stands in `export.json`.
    """

    folder: Path
    rows: tuple[Row, ...]
    document: dict[str, Any]

    def __str__(self) -> str:
        return table(self.rows)

    def require(self) -> None:
        """Insist on every file that was asked for.

        Raises:
            GateError: One was refused; the message has the figures.
        """
        refused = [f"{row.file}: {row.refused}" for row in self.rows if row.refused]
        if refused:
            raise GateError(f"not kept: {'; '.join(refused)}")


def export(options: ExportOptions) -> Exported:
    """Export, check, and quantize as asked.

    Files go into their places together at the end; a step that fails leaves the folder as it
    was.

    Raises:
        CatdogError: Weights or data are missing, damaged or do not fit; a file cannot be
            made or written.
        GateError: The fp32 file does not answer as PyTorch does; nothing was kept.
    """
    weights = _checkpoint(options.weights)
    run = run_of(weights)
    if weights.suffix in (".onnx", ".ort"):
        raise ModelError(f"{weights} is exported already; name the checkpoint it was made from")
    network, spec = load_checkpoint(weights)
    spec = spec.replace(tool_version=__version__, git_commit=git_commit())
    data = find_data(spec, weights, run, options.data)
    calibration = None
    if options.quantize in ("static", "all"):
        # Before any work: without training pictures this cannot be done.
        calibration = calibration_pictures(data, spec, options.calibration_pictures)
    sample = checking_sample(data, spec, options.limit)
    folder = options.out if options.out is not None else weights.parent
    log.info(f"export: {weights} ({spec.architecture}), checked on {sample.source}, into {folder}")
    with destination(folder), scratch_folder() as scratch:
        job = Job(options, sample, folder, scratch)
        job.fp32(network, spec, weights.name)
        if options.quantize in ("dynamic", "all"):
            job.dynamic()
        if calibration is not None:
            job.static(calibration, f"training pictures of {data.name}")
        if options.half:
            job.half()
        if options.format == "ort":
            job.ort()
        rows, document = job.finish(weights.name, data.name)
    return Exported(folder, rows, document)


def _checkpoint(named: Path | None) -> Path:
    """The weights that are meant: the newest run's, those of a run folder, or a file.

    Raises:
        ModelError: There is no run, or the folder holds no `best.pt`.
    """
    if named is None:
        return newest_run().weights
    if not named.is_dir():
        return named
    if not Run(named).weights.is_file():
        raise ModelError(f"{named} is a folder without a best.pt; name the checkpoint itself")
    return Run(named).weights
