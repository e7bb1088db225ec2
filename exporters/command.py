"""What `catdog-edge export` does, from options to checked files and a table.

Joins the rooms of the exporters; knows nothing of click's options. Words go to stderr. Every
file is made in a temporary folder, loaded, checked and timed, and only then put in its place.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from catdog_edge import __version__
from catdog_edge.errors import GateError, ModelError
from catdog_edge.files import cannot_write, write_text, written_whole
from catdog_edge.spec import Layout, ModelSpec
from catdog_edge.training.checkpoint import load_checkpoint
from catdog_edge.training.command import git_commit, say
from catdog_edge.training.inference import probabilities
from catdog_edge.training.runs import newest_run, run_of
from exporters import graph
from exporters.calibrate import Calibration
from exporters.flips import save_flip_sheet, write_flips
from exporters.gates import Checked, check, race, too_slow
from exporters.half import halve
from exporters.optimized import integer_layers, optimized_graph
from exporters.ort_format import write_ort
from exporters.quantize import quantize_dynamic
from exporters.report import Row, machine, table, with_metrics
from exporters.sample import Data, Sample, calibration_pictures, checking_sample, find_data
from exporters.sensitivity import PICTURES, Found, give_back, rank_layers
from exporters.session import Answers
from exporters.static import SCHEMES, Calibrated, Scheme, calibrate
from exporters.text import megabytes
from exporters.to_onnx import export_onnx
from exporters.verify import Verification

FP32 = "model.onnx"
DYNAMIC = "model.dynamic.onnx"
STATIC = "model.static.onnx"
HALF = "model.half.onnx"
ORT = "model.ort"

RACE_SECONDS = 5.0
"""How long a candidate and fp32 take turns."""


@dataclass(frozen=True)
class ExportOptions:
    """The options of `catdog-edge export`."""

    weights: Path | None
    data: str | None
    out: Path | None
    quantize: Literal["dynamic", "static", "all"] | None
    half: bool
    format: Literal["onnx", "ort"]
    layout: Layout
    batch: int | None
    opset: int
    logits: bool
    calibration: Calibration
    calibration_pictures: int
    max_drop: float
    keep_slower: bool
    limit: int | None


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

    Raises:
        CatdogError: Weights or data are missing, damaged or do not fit; a file cannot be
            made or written.
        GateError: The fp32 file does not answer as PyTorch does; nothing was kept.
    """
    run = newest_run() if options.weights is None else run_of(options.weights)
    weights = options.weights if options.weights is not None else newest_run().weights
    if weights.suffix in (".onnx", ".ort"):
        raise ModelError(f"{weights} is exported already; name the checkpoint it was made from")
    network, spec = load_checkpoint(weights)
    spec = spec.replace(tool_version=__version__, git_commit=git_commit())
    data = find_data(spec, weights, run, options.data, say)
    calibration = None
    if options.quantize in ("static", "all"):
        # Before any work: without training pictures this cannot be done.
        calibration = calibration_pictures(data, spec, options.calibration_pictures)
    sample = checking_sample(data, spec, options.limit)
    folder = options.out if options.out is not None else weights.parent
    say(f"export: {weights} ({spec.architecture}), checked on {sample.source}, into {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error

    with tempfile.TemporaryDirectory(prefix="catdog-export-") as scratch:
        job = _Job(options, sample, folder, Path(scratch))
        job.fp32(network, spec, weights.name)
        if options.quantize in ("dynamic", "all"):
            job.dynamic()
        if calibration is not None:
            job.static(calibration, data)
        if options.half:
            job.half()
        if options.format == "ort":
            job.ort()
        return job.finish(weights.name, data)


class _Job:
    """One export: what its steps share."""

    def __init__(self, options: ExportOptions, sample: Sample, folder: Path, scratch: Path) -> None:
        self._options = options
        self._sample = sample
        self._folder = folder
        self._scratch = scratch
        self._rows: list[Row] = []
        self._reference: Answers | None = None
        self._spec: ModelSpec | None = None

    # ---- the files -------------------------------------------------------------------

    def fp32(self, network: Any, spec: ModelSpec, weights: str) -> None:
        options, path = self._options, self._scratch / FP32
        report = export_onnx(
            network,
            spec,
            path,
            layout=options.layout,
            batch=options.batch,
            opset=options.opset,
            logits=options.logits,
        )
        say(
            f"{FP32}: opset {report.opset}, IR {report.ir_version}, {megabytes(report.bytes)}, "
            f"{report.nodes_before} nodes simplified to {report.nodes_after}; {report.folded}"
        )
        say("asking PyTorch")
        reference = probabilities(network, spec, self._sample.pictures)
        checked = check(path, FP32, reference, spec, self._sample, logits=options.logits)
        checked.verification.require(FP32)
        timing = race({FP32: path}, self._sample, RACE_SECONDS / 2)
        details = {
            "opset": report.opset,
            "ir_version": report.ir_version,
            "layout": report.layout,
            "nodes_before": report.nodes_before,
            "nodes": report.nodes_after,
            "operators": report.operators,
            "folded": report.folded,
        }
        self._reference, self._spec = checked.answers, checked.spec
        self._keep(path, checked, weights, timing.rows[FP32].p50, None, details)

    def dynamic(self) -> None:
        path = self._scratch / DYNAMIC
        report = quantize_dynamic(self._scratch / FP32, path)
        say(
            f"{DYNAMIC}: {len(report.quantized)} linear layers, {report.share:.1%} of the "
            f"parameters, {megabytes(report.bytes_before)} to {megabytes(report.bytes)}"
        )
        how = {"kind": "dynamic", "layers": list(report.quantized), "share": report.share}
        self._consider(path, self._check(path), how)

    def static(self, pictures: Any, data: Data) -> None:
        options = self._options
        say(
            f"{STATIC}: measuring activations on {len(pictures)} training pictures of {data.name} "
            f"({options.calibration})"
        )
        calibrated = calibrate(self._scratch / FP32, pictures, options.calibration)
        attempts: list[dict[str, Any]] = []
        for scheme in SCHEMES:
            found = self._search(calibrated, pictures, scheme, attempts)
            if found is not None and found.passed:
                break
            if scheme != SCHEMES[-1]:
                say(f"  {scheme} is not good enough; trying the next")
        if found is None:
            raise ModelError(f"{STATIC}: no kind of int8 loads in this onnxruntime; see above")
        path = self._scratch / STATIC
        checked = self._check(path)
        runtime = optimized_graph(path)
        integer = integer_layers(runtime, calibrated.layers)
        how = {
            "kind": "static",
            "scheme": scheme,
            "calibration": calibrated.method,
            "calibration_pictures": calibrated.pictures,
            "float_layers": list(found.in_float),
            "layers": len(calibrated.layers),
            "integer_layers_at_run_time": len(integer),
        }
        report = {
            "attempts": attempts,
            "sensitivity": [asdict(entry) for entry in found.ranking],
            "first_operator_at_run_time": runtime.graph.node[0].op_type,
        }
        broken = sorted(integer.intersection(found.in_float))
        fault = f"onnxruntime runs {', '.join(broken)} in integers all the same" if broken else ""
        self._consider(path, checked, how, report, fault)

    def half(self) -> None:
        path = self._scratch / HALF
        model, spec = halve(self._scratch / FP32)
        graph.stamp(model, spec)
        graph.write_model(model, path)
        say(f"{HALF}: {megabytes(path.stat().st_size)}")
        self._consider(path, self._check(path), None)

    def ort(self) -> None:
        path = self._scratch / ORT
        write_ort(self._scratch / FP32, path)
        say(f"{ORT}: {megabytes(path.stat().st_size)}")
        self._consider(path, self._check(path), None)

    # ---- what the steps share --------------------------------------------------------

    def _search(
        self,
        calibrated: Calibrated,
        pictures: Any,
        scheme: Scheme,
        attempts: list[dict[str, Any]],
    ) -> Found | None:
        """Find which layers to leave in float; a fallback scheme is tried without any."""
        path = self._scratch / STATIC
        first = scheme == SCHEMES[0]

        def judge(model: onnx.ModelProto) -> Verification:
            graph.stamp(model, calibrated.spec.replace(precision="int8-static"))
            graph.write_model(model, path)
            return self._check(path).verification

        def rank() -> Any:
            say(f"  ranking {len(calibrated.layers)} layers by what int8 does to the logits")
            few = pictures[:: max(1, len(pictures) // PICTURES)]
            return rank_layers(calibrated, self._scratch / FP32, few, scheme, say)

        try:
            found = give_back(calibrated, judge, rank, scheme, most=None if first else 0, say=say)
        except ModelError as error:
            say(f"  {scheme}: {error}")
            attempts.append({"scheme": scheme, "error": str(error)})
            return None
        attempts.extend(
            {
                "scheme": scheme,
                "float_layers": list(step.in_float),
                **step.verification.to_dict(),
            }
            for step in found.steps
        )
        return found

    def _check(self, path: Path) -> Checked:
        assert self._reference is not None
        assert self._spec is not None
        return check(
            path,
            path.name,
            self._reference,
            self._spec,
            self._sample,
            logits=self._options.logits,
            max_drop=self._options.max_drop,
        )

    def _consider(
        self,
        path: Path,
        checked: Checked,
        quantization: dict[str, Any] | None,
        report: dict[str, Any] | None = None,
        fault: str = "",
    ) -> None:
        """Time a candidate against fp32; keep it if nothing speaks against it."""
        timing = race({FP32: self._scratch / FP32, path.name: path}, self._sample, RACE_SECONDS)
        ratio = timing.ratio(path.name)
        reasons = [*([fault] if fault else []), *checked.verification.failures]
        slow = too_slow(ratio)
        if slow and quantization is not None and not self._options.keep_slower:
            reasons.append(slow)
        details: dict[str, Any] = {}
        if quantization is not None:
            details["quantization"] = quantization | (report or {})
        p50 = timing.rows[path.name].p50
        if reasons:
            self._refuse(path, checked, p50, ratio, details, "; ".join(reasons))
        else:
            self._keep(path, checked, FP32, p50, ratio, details, quantization)

    def _keep(
        self,
        path: Path,
        checked: Checked,
        reference: str,
        p50: float,
        ratio: Any,
        details: dict[str, Any],
        quantization: dict[str, Any] | None = None,
    ) -> None:
        """Write the figures into the file, and the file into its place."""
        spec = with_metrics(
            checked.spec,
            checked.verification,
            self._sample.source,
            reference,
            p50 * 1e3,
            ratio,
            quantization,
        )
        source = self._scratch / FP32 if path.suffix == ".ort" else path
        model = graph.read_model(source)
        graph.stamp(model, spec)
        if path.suffix == ".ort":
            stamped = self._scratch / "stamped.onnx"
            graph.write_model(model, stamped)
            write_ort(stamped, path)
        else:
            graph.write_model(model, path)
        with written_whole(self._folder / path.name) as temporary:
            shutil.copyfile(path, temporary)
        self._note(path, checked, reference, p50, ratio, details, "")

    def _refuse(
        self,
        path: Path,
        checked: Checked,
        p50: float,
        ratio: Any,
        details: dict[str, Any],
        reason: str,
    ) -> None:
        say(f"{path.name}: not kept: {reason}")
        if (self._folder / path.name).exists():
            say(f"note: the {path.name} in {self._folder} is of an earlier export")
        self._note(path, checked, FP32, p50, ratio, details, reason)

    def _note(
        self,
        path: Path,
        checked: Checked,
        reference: str,
        p50: float,
        ratio: Any,
        details: dict[str, Any],
        refused: str,
    ) -> None:
        self._rows.append(
            Row(
                file=path.name,
                precision=checked.spec.precision,
                bytes=path.stat().st_size,
                verification=checked.verification,
                reference=reference,
                p50_ms=p50 * 1e3,
                ratio=ratio,
                details=details,
                refused=refused,
            )
        )

    def finish(self, weights: str, data: Data) -> Exported:
        """Write `export.json` and the pictures on which files differ."""
        sample, labels = self._sample, self._spec.labels if self._spec else ()
        document = {
            "tool_version": __version__,
            "weights": weights,
            "data": data.name,
            "checked_on": sample.source,
            "machine": machine(),
            "files": [row.to_dict() for row in self._rows],
        }
        write_text(self._folder / "export.json", json.dumps(document, indent=2) + "\n")
        flips = [(row.file, flip) for row in self._rows for flip in row.verification.flips]
        write_flips(self._folder / "verify-flips.csv", flips, labels, sample.files)
        save_flip_sheet(
            self._folder / "verify-flips.png", flips, labels, sample.files, sample.pictures
        )
        return Exported(self._folder, tuple(self._rows), document)
