"""One export: every file is made in a temporary folder, judged, and kept or refused.

Knows the order of the steps and what to write down; where weights and pictures come from is
for `command`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from catdog_edge import __version__
from catdog_edge.errors import GateError
from catdog_edge.spec import ModelSpec
from catdog_edge.system.files import write_text
from catdog_edge.training.evaluation.inference import known, logits
from catdog_edge.training.evaluation.metrics import softmax
from exporters.checks.compare import Verification
from exporters.checks.flips import save_flip_sheet, write_flips
from exporters.checks.gates import Checked, check, race, too_slow
from exporters.checks.sample import Sample
from exporters.checks.session import Pictures
from exporters.checks.timing import Ratio
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.formats.fp16 import halve
from exporters.formats.ort import write_ort
from exporters.formats.torch_export import export_onnx
from exporters.graph import io
from exporters.making import making
from exporters.options import DYNAMIC, FORMS, FP32, HALF, STATIC, ExportOptions
from exporters.publish import publish
from exporters.report import Row, machine, with_metrics
from exporters.static_int8.quantize import Calibrated, calibrate
from exporters.static_int8.runtime_graph import integer_layers, optimized_graph
from exporters.static_int8.search import search
from exporters.text import megabytes

log = logging.getLogger(__name__)

LITTLE = 0.05
"""Share of the parameters below which dynamic quantization is not worth a person's time."""

RACE_SECONDS = 5.0
"""How long a candidate and fp32 take turns."""


@dataclass(frozen=True)
class Candidate:
    """A file that was made, not yet judged.

    Attributes:
        path: Where it is for now; its name is the one that it would keep.
        how: How it was quantized; goes into its spec.
        report: More on that, for `export.json` alone.
        fault: What is wrong with it beyond its answers and its speed.
    """

    path: Path
    how: Mapping[str, Any] | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""


class Job:
    """One export.

    Args:
        options: What was asked for.
        sample: The pictures that every file is checked on.
        folder: Where files go that are kept.
        scratch: An empty folder for those that are not, yet.
    """

    def __init__(self, options: ExportOptions, sample: Sample, folder: Path, scratch: Path) -> None:
        self._options = options
        self._sample = sample
        self._folder = folder
        self._scratch = scratch
        self._source = scratch / FP32
        self._rows: list[Row] = []
        self._kept: list[Path] = []

    def fp32(self, network: nn.Module, spec: ModelSpec, weights: str) -> None:
        """Make `model.onnx`, the reference of all other files.

        Raises:
            GateError: It does not answer as PyTorch does; nothing is kept.
        """
        options, path = self._options, self._source
        with self._making(FP32):
            report = export_onnx(
                network,
                spec,
                path,
                layout=options.layout,
                batch=options.batch,
                opset=options.opset,
                logits=options.logits,
            )
        log.info(
            f"{FP32}: opset {report.opset}, IR {report.ir_version}, {megabytes(report.bytes)}, "
            f"{report.nodes_before} nodes simplified to {report.nodes_after}; {report.folded}"
        )
        pictures = self._sample.pictures
        log.info(f"asking PyTorch about {len(pictures):,} pictures")
        every = logits(network, spec.normalization, pictures)
        values = every[:, : len(spec.labels)]
        scores = known(every) if spec.logits > len(spec.labels) else None
        with self._making(FP32):
            checked = check(
                path,
                FP32,
                softmax(values, spec.temperature),
                spec,
                self._sample,
                logits=options.logits,
                reference_logits=values if options.logits else None,
                reference_known=scores,
            )
        checked.verification.require(FP32)
        self._reference, self._spec = checked, checked.spec
        details = {
            "opset": report.opset,
            "ir_version": report.ir_version,
            "layout": report.layout,
            "nodes_before": report.nodes_before,
            "nodes": report.nodes_after,
            "operators": report.operators,
            "folded": report.folded,
        }
        timing = race({FP32: path}, self._sample, RACE_SECONDS / 2)
        row = self._row(path, checked, weights, timing.rows[FP32].p50 * 1e3, None, details)
        with self._making(FP32):
            self._keep(row, checked.spec)

    def dynamic(self) -> None:
        """Make `model.dynamic.onnx`."""
        path = self._scratch / DYNAMIC
        with self._making(DYNAMIC):
            report = quantize_dynamic(self._source, path)
        count = len(report.quantized)
        log.info(
            f"{DYNAMIC}: {count} linear layer{'s' if count > 1 else ''} with {report.share:.1%} of "
            f"the parameters, {megabytes(report.bytes_before)} to {megabytes(report.bytes)}"
        )
        if report.share < LITTLE:
            log.info(
                f"{DYNAMIC}: dynamic quantization has next to nothing to work on in "
                f"{self._spec.architecture}; --quantize static is the one that pays here"
            )
        how = {"kind": "dynamic", "layers": list(report.quantized), "share": report.share}
        self._judge(Candidate(path, how))

    def static(self, pictures: Pictures, source: str) -> None:
        """Make `model.static.onnx`.

        Args:
            pictures: `uint8 [N,S,S,3]`, BGR, of the training split.
            source: What they are called.

        Raises:
            ModelError: No kind of int8 loads in this onnxruntime and gives probabilities.
        """
        method = self._options.calibration
        log.info(f"{STATIC}: measuring activations on {len(pictures)} {source} ({method})")
        with self._making(STATIC):
            calibrated = calibrate(self._source, pictures, method)

        def judge(model: onnx.ModelProto) -> Verification:
            with self._making(STATIC):
                return self._check(self._write_static(model, calibrated)).verification

        with self._making(STATIC):
            scheme, found, attempts = search(calibrated, self._source, pictures, judge)
            path = self._write_static(found.model, calibrated)
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
            # Taking pixels together moves none (`space_to_depth`).
            "first_operator_at_run_time": next(
                node.op_type for node in runtime.graph.node if node.op_type != "Reshape"
            ),
        }
        broken = sorted(integer.intersection(found.in_float))
        fault = f"onnxruntime runs {', '.join(broken)} in integers all the same" if broken else ""
        self._judge(Candidate(path, how, report, fault))

    def half(self) -> None:
        """Make `model.half.onnx`."""
        path = self._scratch / HALF
        with self._making(HALF):
            model, spec = halve(self._source)
            io.stamp(model, spec)
            io.write_model(model, path)
        log.info(f"{HALF}: {megabytes(path.stat().st_size)}")
        self._judge(Candidate(path))

    def ort(self) -> None:
        """Make `model.ort` and, where the static file was kept, `model.static.ort`."""
        kept = [row.file for row in self._rows if not row.refused]
        for source in (name for name in (FP32, STATIC) if name in kept):
            path = (self._scratch / source).with_suffix(".ort")
            with self._making(path.name):
                write_ort(self._scratch / source, path)
            log.info(f"{path.name}: {megabytes(path.stat().st_size)}")
            self._judge(Candidate(path))

    def finish(self, weights: str, source: str) -> tuple[tuple[Row, ...], dict[str, Any]]:
        """Put all that is kept into its place, with `export.json` and the differing pictures.

        Args:
            weights: What the checkpoint is called.
            source: What the data is called.

        Returns:
            The rows, and what stands in `export.json`.

        Raises:
            CatdogError: Something cannot be written; the folder is as it was.
        """
        made = {path.name for path in self._kept}
        older = [form for form in FORMS if form not in made and (self._folder / form).exists()]
        document = {
            "tool_version": __version__,
            "weights": weights,
            "data": source,
            "checked_on": self._sample.source,
            "machine": machine(),
            "options": self._options.to_dict(),
            "files": [row.to_dict() for row in self._rows],
            "of_an_earlier_export": older,
        }
        flips = [
            (row.file, flip)
            for row in self._rows
            if row.verification is not None
            for flip in row.verification.flips
        ]
        labels, files = self._spec.labels, self._sample.files
        listed, sheet, figures = (
            self._scratch / name for name in ("verify-flips.csv", "verify-flips.png", "export.json")
        )
        with self._making("export.json"):
            write_flips(listed, flips, labels, files)
            save_flip_sheet(sheet, flips, labels, files, self._sample.pictures)
            write_text(figures, json.dumps(document, indent=2) + "\n")
        publish([*self._kept, listed, sheet, figures], self._folder)
        if older:
            log.info(
                f"note: {', '.join(older)} in {self._folder}: of an earlier export, perhaps of "
                "other weights; make anew or remove"
            )
        return tuple(self._rows), document

    def _making(self, form: str) -> AbstractContextManager[None]:
        return making(form, self._options.opset, self._scratch)

    def _write_static(self, model: onnx.ModelProto, calibrated: Calibrated) -> Path:
        path = self._scratch / STATIC
        io.stamp(model, calibrated.spec.replace(precision="int8-static"))
        io.write_model(model, path)
        return path

    def _check(self, path: Path) -> Checked:
        return check(
            path,
            path.name,
            self._reference.answers,
            self._spec,
            self._sample,
            logits=self._options.logits,
            reference_logits=self._reference.logits,
            reference_known=self._reference.known,
            max_drop=self._options.max_drop,
        )

    def _judge(self, candidate: Candidate) -> None:
        """Check and time a candidate against fp32; keep it if nothing speaks against it."""
        path = candidate.path
        try:
            with self._making(path.name):
                checked = self._check(path)
        except GateError as error:
            reason = str(error).removeprefix(f"{path.name}: ")
            self._refuse(self._row(path, None, FP32, None, None, {}, reason))
            return
        timing = race({FP32: self._source, path.name: path}, self._sample, RACE_SECONDS)
        ratio = timing.ratio(path.name)
        slow = too_slow(ratio)
        reasons = [candidate.fault, *checked.verification.failures]
        details: dict[str, Any] = {}
        if candidate.how is not None:
            details["quantization"] = {**candidate.how, **candidate.report}
            if slow and not self._options.keep_slower:
                reasons.append(f"{slow}; --keep-slower keeps it")
        reason = "; ".join(reason for reason in reasons if reason)
        p50 = timing.rows[path.name].p50 * 1e3
        row = self._row(path, checked, FP32, p50, ratio, details, reason)
        if slow and not reason:
            log.info(f"note: {path.name}: {slow}")
        if not reason:
            with self._making(path.name):
                self._keep(row, checked.spec, candidate.how)
            return
        self._refuse(row)

    def _refuse(self, row: Row) -> None:
        log.info(f"{row.file}: not kept: {row.refused}")
        self._rows.append(row)

    def _keep(
        self, row: Row, spec: ModelSpec, quantization: Mapping[str, Any] | None = None
    ) -> None:
        """Write the figures into the file, and put it with those that are kept."""
        path = self._scratch / row.file
        spec = with_metrics(spec, row, self._sample.source, quantization)
        if path.suffix == ".ort":
            model = io.read_model(path.with_suffix(".onnx"))
            io.stamp(model, spec)
            stamped = self._scratch / "stamped.onnx"
            io.write_model(model, stamped)
            write_ort(stamped, path)
        else:
            model = io.read_model(path)
            io.stamp(model, spec)
            io.write_model(model, path)
        self._kept.append(path)
        self._rows.append(replace(row, bytes=path.stat().st_size))

    def _row(
        self,
        path: Path,
        checked: Checked | None,
        reference: str,
        p50_ms: float | None,
        ratio: Ratio | None,
        details: Mapping[str, Any],
        refused: str = "",
    ) -> Row:
        return Row(
            file=path.name,
            precision=FORMS[path.name],
            bytes=path.stat().st_size,
            verification=None if checked is None else checked.verification,
            reference=reference,
            p50_ms=p50_ms,
            batch=self._options.batch or 1,
            ratio=ratio,
            details=details,
            refused=refused,
        )
