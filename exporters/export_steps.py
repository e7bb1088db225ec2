"""Steps of an export: make each file in a temporary folder, check it, and keep or reject it."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import onnx_ir as ir
from torch import nn

from catdog_edge import __version__
from catdog_edge.errors import CatdogError, GateError, ModelError, ProviderError, first_line
from catdog_edge.runtime.heat_map import KEY as HEAT_MAP_KEY
from catdog_edge.runtime.model_file import LoadError, read_spec
from catdog_edge.runtime.onnxruntime_errors import INSTEAD, is_runtime_error
from catdog_edge.spec import Layout, ModelSpec, Precision
from catdog_edge.system.files import write_text
from catdog_edge.training.array_types import Pixels
from exporters.checks.acceptance import Strictness, Verification
from exporters.checks.disagreement_report import SHEET, TABLE, save_flips
from exporters.checks.file_check import Checked, ReferenceModel, check_file, time_files, too_slow
from exporters.checks.map_correlation import map_correlation
from exporters.checks.predictors import OnnxPredictor, Predictor, TorchPredictor
from exporters.checks.validation_data import ValidationSet
from exporters.export_report import Exported, ExportedFile, machine
from exporters.formats.dynamic_int8 import quantize_dynamic
from exporters.formats.fp16 import convert_fp16
from exporters.formats.ort import write_ort
from exporters.formats.torch_export import export_onnx
from exporters.graph.add_heat_map import add_heat_map
from exporters.graph.onnx_file import read_model, write_model
from exporters.graph.simplify import COMMON_OPSETS, DEFAULT_OPSET
from exporters.info import megabytes
from exporters.output_folder import no_room, publish
from exporters.static_int8.calibrate import Calibration
from exporters.static_int8.mixed_precision import search_schemes
from exporters.static_int8.optimized_graph import integer_layers, optimized_graph
from exporters.static_int8.quantize import calibrate

log = logging.getLogger(__name__)

T = TypeVar("T")

FP32 = "model.onnx"
DYNAMIC = "model.dynamic.onnx"
STATIC = "model.static.onnx"
HALF = "model.half.onnx"

PRECISIONS: dict[str, Precision] = {
    FP32: "fp32", DYNAMIC: "int8-dynamic", STATIC: "int8-static", HALF: "fp16",
    "model.ort": "fp32", "model.static.ort": "int8-static",
}  # fmt: skip
"""Every file that an export can make, and the precision of its weights."""

LITTLE = 0.05
"""`--quantize auto` keeps no int8 file that is smaller than fp32 by less than this share."""

TIMING_SECONDS = 5.0  # how long a candidate is timed against fp32


@dataclass(frozen=True)
class ExportOptions:
    """The options of `catdog-edge export`."""

    weights: Path | None = None
    data: str | None = None
    out: Path | None = None
    quantize: Literal["auto", "dynamic", "static", "all"] | None = None
    half: bool = False
    format: Literal["onnx", "ort"] = "onnx"
    layout: Layout = "nhwc-uint8"
    batch: int | None = None
    opset: int = DEFAULT_OPSET
    logits: bool = False
    calibration: Calibration = "minmax"
    calibration_pictures: int = 300
    max_drop: float = 0.5
    keep_slower: bool = False
    limit: int | None = None
    strict: bool = False
    target: Literal["cuda"] | None = None
    heat_map: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Convert the options that affect files and metrics to JSON types, without paths."""
        return {k: v for k, v in vars(self).items() if k not in ("weights", "data", "out")}


class ExportSteps:
    """One export: files are made in `scratch`, checked on the images, and those kept published."""

    def __init__(
        self, options: ExportOptions, validation: ValidationSet, folder: Path, scratch: Path
    ) -> None:
        self._options, self._validation = options, validation
        self._folder, self._scratch = folder, scratch
        self._policy = Strictness(options.max_drop, options.strict)
        self._source = scratch / FP32
        self._files: list[ExportedFile] = []

    def fp32(self, network: nn.Module, spec: ModelSpec, weights: str) -> None:
        """Make `model.onnx`, the reference; `GateError` if it disagrees with PyTorch."""
        options, path = self._options, self._source
        names = ("layout", "batch", "opset", "logits")
        with self._making(FP32):
            made = export_onnx(network, spec, path, **{k: getattr(options, k) for k in names})
        log.info(
            f"{FP32}: opset {made.opset}, IR {made.ir_version}, {megabytes(path.stat().st_size)}, "
            f"{made.nodes_before} nodes simplified to {made.nodes}; {made.folded}"
        )
        log.info(f"running PyTorch on {len(self._validation.images):,} images")
        details = {k: v for k, v in asdict(made).items() if k != "path"}
        self._start(TorchPredictor(network, spec), weights, details)

    def imported(self, weights: Path) -> None:
        """Use an imported file as `model.onnx`, the reference of all other files."""
        with self._making(FP32):
            shutil.copyfile(weights, self._source)
        self._start(OnnxPredictor(weights), weights.name, {})

    def _start(self, right: Predictor, weights: str, details: Mapping[str, Any]) -> None:
        path = self._source
        if self._options.heat_map:
            with self._making(FP32):
                add_heat_map(path)
        expected = ReferenceModel(right, self._validation)
        with self._making(FP32):
            checked = self._check(path, expected)
        checked.verification.require(FP32)
        self._reference = ReferenceModel(checked.model, self._validation, checked.answers)
        timing = time_files({FP32: path}, self._validation, TIMING_SECONDS / 2)
        file = self._file(path, checked, weights)
        file = replace(file, p50_ms=timing.rows[FP32].p50 * 1e3, details=details)
        self._keep(file, checked.model.spec)

    def dynamic(self) -> None:
        """Make `model.dynamic.onnx`."""
        path, made = self._make(DYNAMIC, quantize_dynamic)
        if not made.quantized:
            reason = f"{FP32} has no linear layer to quantize; use --quantize static"
            self._refuse(replace(self._file(path, None, FP32), refused=reason))
            return
        count = len(made.quantized)
        before, after = (megabytes(file.stat().st_size) for file in (self._source, path))
        log.info(
            f"{DYNAMIC}: {count} linear layer{'s' if count > 1 else ''} with {made.share:.1%} of "
            f"the parameters, {before} to {after}"
        )
        self._judge(path, {"kind": "dynamic", "layers": list(made.quantized), "share": made.share})

    def static(self, images: Pixels, source: str) -> None:
        """Make `model.static.onnx`, calibrated on training images, `uint8 [N,S,S,3]`, BGR."""
        method, path = self._options.calibration, self._scratch / STATIC
        log.info(f"{STATIC}: measuring activations on {len(images)} {source} ({method})")

        def judge(model: ir.Model) -> Verification:
            with self._making(STATIC):
                write_model(model, path, calibrated.spec)
                return self._check(path, self._reference).verification

        with self._making(STATIC):
            calibrated = calibrate(self._source, images, method)
            scheme, found, attempts = search_schemes(calibrated, self._source, images, judge)
            write_model(found.model, path, calibrated.spec)
            runtime = optimized_graph(path)
        integer = integer_layers(runtime, calibrated.layers)
        how = {
            "kind": "static",
            "scheme": scheme,
            "calibration": calibrated.method,
            "calibration_pictures": calibrated.images,
            "float_layers": list(found.in_float),
            "layers": len(calibrated.layers),
            "integer_layers_at_run_time": len(integer),
        }
        # The `Reshape` of space to depth moves nothing.
        kinds = (node.op_type for node in runtime.graph if node.op_type != "Reshape")
        report = {
            "attempts": attempts,
            "sensitivity": [asdict(entry) for entry in found.ranking],
            "first_operator_at_run_time": next(kinds),
        }
        broken = sorted(integer.intersection(found.in_float))
        fault = f"onnxruntime runs {', '.join(broken)} in integers all the same" if broken else ""
        self._judge(path, how, report, fault)

    def half(self) -> None:
        """Make `model.half.onnx`; check and time it on its target, if this machine has one."""
        path, _ = self._make(HALF, convert_fp16)
        log.info(f"{HALF}: {megabytes(path.stat().st_size)}")
        target = self._options.target
        try:
            if target is not None:
                OnnxPredictor(path, name=HALF, provider=target)
            self._judge(path, provider=target or "cpu")
        except Exception as error:
            if isinstance(error, ProviderError):
                reason = str(error).removesuffix(INSTEAD)
            elif target is not None and is_runtime_error(error):  # it starts, but a call fails
                reason = f"{target} failed ({first_line(error)})"
            else:
                raise
            log.info(f"note: {HALF} is checked on the CPU, and not timed: {reason}")
            self._judge(path, provider=None)

    def ort(self) -> None:
        """Make `model.ort` and, if the static file was kept, `model.static.ort`."""
        for source in [name for name in (FP32, STATIC) if name in self._kept()]:
            path, _ = self._make(Path(source).with_suffix(".ort").name, write_ort, source)
            log.info(f"{path.name}: {megabytes(path.stat().st_size)}")
            self._judge(path)

    def finish(self, weights: str, data: str) -> Exported:
        """Publish all kept files, with `export.json` and the differing images."""
        kept = self._kept()
        older = [form for form in PRECISIONS if form not in kept and (self._folder / form).exists()]
        document = {
            "tool_version": __version__,
            "weights": weights,
            "data": data,
            "checked_on": self._validation.source,
            "machine": machine(),
            "options": self._options.to_dict(),
            "files": [file.to_dict() for file in self._files],
            "of_an_earlier_export": older,
        }
        checked = [(file.name, file.verification) for file in self._files if file.verification]
        flips = [(name, flip) for name, found in checked for flip in found.comparison.flips]
        with self._making("export.json"):
            save_flips(self._scratch, flips, self._reference.model.spec.labels, self._validation)
            write_text(self._scratch / "export.json", json.dumps(document, indent=2) + "\n")
        names = [*kept, TABLE, *([SHEET] if flips else []), "export.json"]
        publish([self._scratch / name for name in names], self._folder)
        if not flips:  # of an earlier export
            (self._folder / SHEET).unlink(missing_ok=True)
        other = [form for form in older if not self._of_these_weights(self._folder / form)]
        if other:
            log.info(
                f"note: {', '.join(other)} in {self._folder}: of an earlier export, perhaps of "
                "other weights; export again or remove"
            )
        return Exported(tuple(self._files), document, self._folder)

    def _of_these_weights(self, path: Path) -> bool:
        """Check whether a file has the figures of the checkpoint; each training has its own."""
        try:
            found, ours = read_spec(path), self._reference.model.spec
        except ModelError:
            return False
        figures = [(one.temperature, one.metrics.get("validation")) for one in (found, ours)]
        return figures[0] == figures[1] and figures[1][1] is not None

    def _make(
        self, name: str, convert: Callable[[Path, Path], T], source: str = FP32
    ) -> tuple[Path, T]:
        path = self._scratch / name
        with self._making(name):
            return path, convert(self._scratch / source, path)

    @contextlib.contextmanager
    def _making(self, form: str) -> Iterator[None]:
        """Make errors of a block name the form and a remedy instead of a temporary file."""
        opset, scratch = self._options.opset, self._scratch
        try:
            yield
        except GateError:
            raise
        except LoadError as error:
            if "No space left" in error.reason:
                raise no_room(scratch.parent, OSError(None, "No space left on device")) from error
            remedy = error.remedy
            if opset not in COMMON_OPSETS:
                remedy = (
                    f"choose a lower --opset: every form loads with {COMMON_OPSETS.start} to "
                    f"{COMMON_OPSETS[-1]}, {DEFAULT_OPSET} is the default"
                )
            raise ModelError(
                f"{form} cannot be made with opset {opset}: {error.reason}; {remedy}"
            ) from error
        except (OSError, CatdogError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError):
                raise no_room(scratch.parent, cause) from error
            text = str(error).replace(f"{scratch}/", "")
            raise type(error)(text if text.startswith(form) else f"{form}: {text}") from error

    def _check(self, path: Path, reference: ReferenceModel, provider: str = "cpu") -> Checked:
        model = OnnxPredictor(path, name=path.name, provider=provider)
        return check_file(model, path.name, reference, self._policy, logits=self._options.logits)

    def _judge(
        self,
        path: Path,
        how: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
        fault: str = "",
        provider: str | None = "cpu",
    ) -> None:
        """Check and time a file against fp32; keep it if all limits are met.

        `how` it was quantized goes into its spec, `report` into `export.json` alone; `fault` is
        what is wrong beyond answers and speed; no `provider`: not timed.
        """
        size, full = path.stat().st_size, self._source.stat().st_size
        try:
            if how is not None and self._options.quantize == "auto" and size > (1 - LITTLE) * full:
                raise GateError(
                    f"it saves nothing: {megabytes(size)}, {FP32} has {megabytes(full)}"
                )
            with self._making(path.name):
                checked = self._check(path, self._reference, provider or "cpu")
        except GateError as error:
            reason = str(error).removeprefix(f"{path.name}: ")
            self._refuse(replace(self._file(path, None, FP32), refused=reason))
            return
        files = {FP32: self._source, path.name: path}
        ratio = p50 = None
        if provider is not None:
            timing = time_files(files, self._validation, TIMING_SECONDS, provider)
            ratio, p50 = timing.ratio(path.name), timing.rows[path.name].p50 * 1e3
        slow = too_slow(ratio) if ratio else ""
        reasons = [fault, *checked.verification.failures]
        if slow and how is not None and not self._options.keep_slower:
            reasons.append(f"{slow}; --keep-slower keeps it")
        file = replace(
            self._file(path, checked, FP32),
            p50_ms=p50,
            ratio=ratio,
            provider=provider or "cpu",
            details={} if how is None else {"quantization": {**how, **(report or {})}},
            refused="; ".join(filter(None, reasons)),
        )
        if file.refused:
            self._refuse(file)
            return
        for note in filter(None, (slow, *checked.verification.notes)):
            log.info(f"note: {path.name}: {note}")
        self._keep(file, checked.model.spec, how)

    def _kept(self) -> list[str]:
        return [file.name for file in self._files if not file.refused]

    def _refuse(self, file: ExportedFile) -> None:
        log.info(f"{file.name}: not kept: {file.refused}", extra={"style": {"fg": "yellow"}})
        self._files.append(file)

    def _keep(
        self, file: ExportedFile, spec: ModelSpec, quantization: Mapping[str, Any] | None = None
    ) -> None:
        """Write the metrics into the file, and add it to the kept files."""
        path = self._scratch / file.name
        if self._options.heat_map and path.suffix == ".onnx" and path != self._source:
            with self._making(file.name):
                add_heat_map(path)
                found = map_correlation(self._source, path, self._validation.images)
            log.info(f"{file.name}: {found}")
            file = replace(file, details={**file.details, "heat_map_correlation": asdict(found)})
        spec = file.stamped(spec, self._validation.source, quantization)
        with self._making(file.name):
            if path.suffix == ".ort":
                stamped = self._scratch / "stamped.onnx"
                model = read_model(path.with_suffix(".onnx"))
                model.metadata_props.pop(HEAT_MAP_KEY, None)  # it follows protobuf alone
                write_model(model, stamped, spec)
                write_ort(stamped, path)
            else:
                write_model(read_model(path), path, spec)
        self._files.append(replace(file, bytes=path.stat().st_size))

    def _file(self, path: Path, checked: Checked | None, reference: str) -> ExportedFile:
        return ExportedFile(
            name=path.name,
            precision=PRECISIONS[path.name],
            bytes=path.stat().st_size,
            verification=None if checked is None else checked.verification,
            reference=reference,
            batch=self._options.batch or 1,
        )
