"""Run a bench: measure PyTorch and every exported file of a run, and write the reports."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench_plan import BenchOptions, BenchPlan, plan_bench
from benchmarks.bench_rows import OnnxRunner, Runner
from benchmarks.measure import latency, loadgen, parity, robustness
from benchmarks.measure.cold_start import cold_starts
from benchmarks.measure.environment import ActivityMonitor, noise_reasons
from benchmarks.report import document as report
from benchmarks.report import gates, html
from benchmarks.report.text import listed
from catdog_edge import __version__
from catdog_edge.errors import ModelError
from catdog_edge.images.draw import overlay
from catdog_edge.images.preprocess import Image
from catdog_edge.system.console import progress_bar, track
from catdog_edge.system.files import write_text
from catdog_edge.training.engine.device import torch_threads
from catdog_edge.training.runs.provenance import git_commit

log = logging.getLogger(__name__)

__all__ = ["BenchOptions", "BenchResult", "bench"]

SHOWN_DISAGREEMENTS = 200  # images of each set on the contact sheet, of about 8 KB each


@dataclass(frozen=True)
class BenchResult:
    """The content of `bench.json`, the folder of the reports, and every limit, met or not.

    `weights` is the checkpoint; the exported files are beside it.
    """

    document: dict[str, Any]
    folder: Path
    gates: list[gates.Gate]
    weights: Path


def bench(options: BenchOptions) -> BenchResult:
    """Measure PyTorch and every exported file of a run, and write the reports.

    Gates are checked, not enforced: the command prints the table first.

    Examples:
        >>> done = bench(BenchOptions(weights=Path("runs/pets"), seconds=30.0))
        >>> [(row["name"], row["ratio"]["value"]) for row in done.document["rows"]]
        [('pytorch', 1.0), ('model', 0.31), ('model.static', 0.11)]
    """
    with torch_threads():  # PyTorch's rows set their own number
        planned = plan_bench(options)
        planned.dataset.log_summary()
        exported = (row.file for row in planned.rows if row.engine == "onnxruntime")
        files = set(exported) - {str(planned.weights)}
        log.info(
            f"bench: {planned.weights} and {len(files)} exported files on "
            f"{len(planned.items):,} test images, {len(planned.runners)} rows, "
            f"{listed(planned.threads)} threads ({planned.card.threads_source})"
        )
        for one in planned.left_out:
            log.info(f"bench: left out: {one['row']}: {one['reason']}")
        measured = _Measurements(options, planned)
    document = measured.document()
    found = gates.check(document, options.limits, planned.baseline)
    document["gates"] = [asdict(gate) for gate in found]
    # The figures first: they are kept whatever becomes of the page.
    report.write(document, planned.folder)
    parity.write_disagreements(planned.folder / report.FLIPS, measured.disagreements)
    sheet = _contact_sheet(planned, measured.sets, measured.disagreements)
    write_text(planned.folder / report.PAGE, html.page(document, sheet))
    return BenchResult(document, planned.folder, found, planned.weights)


class _Measurements:
    """Everything that a bench measures; `document` is what `bench.json` says of it."""

    def __init__(self, options: BenchOptions, planned: BenchPlan) -> None:
        self.options, self.planned = options, planned
        self.test = parity.ImageSet("test", planned.dataset, planned.items)
        sets = [self.test]
        if planned.originals is not None:
            sets.append(parity.ImageSet("originals", planned.originals, planned.originals.items))
        if options.corruptions:
            sets += robustness.corruption_sets(planned.dataset, planned.items, options.corruptions)
        self.sets = {one.name: one for one in sets}
        runners = planned.runners
        single = [one for one in runners if one.row.batch == 1]
        monitor = ActivityMonitor(with_gpu=planned.card.gpu is not None)
        log.info("bench: answers, image by image ...")
        predictors = {base: runner.probabilities for base, runner in planned.by_base.items()}
        count = progress_bar("images", len(self.test.items))
        self.answers = parity.classify_all(predictors, self.test.frames(), count)
        self.figures, self.disagreements = parity.compare_rows(self.answers, self.test)
        chosen = robustness.balanced(planned.items, latency.FRAMES)
        frames = [planned.dataset.decode(item) for item in chosen]
        log.info(f"bench: latency, {options.seconds:g} s of interleaved rounds ...")
        self.timed = latency.time_rows(runners, frames, options.seconds)
        log.info("bench: stages of a call ...")
        seconds = min(1.5, options.seconds / 20)
        self.stages = {
            one.row.name: latency.stages(one, frames, seconds) for one in track(single, "rows")
        }
        self.loadgen = self._loadgen(frames, options.scenario) if options.scenario else None
        self.corruptions = self.originals = None
        if "originals" in self.sets:
            self.originals, found = robustness.classify_originals(
                self.sets["originals"], predictors
            )
            self.disagreements += found
        if options.corruptions:
            log.info(f"bench: corruptions of up to {options.corruptions} test images ...")
            corrupted = [one for one in sets if one.corruption is not None]
            self.corruptions, found = robustness.classify_corrupted(
                corrupted, predictors, self.test, self.answers
            )
            self.disagreements += found
        if options.cold_starts:
            log.info(f"bench: cold starts, {options.cold_starts} fresh processes per row ...")
        with tempfile.TemporaryDirectory() as scratch:
            picture = Path(scratch) / "picture.jpg"
            picture.write_bytes(latency.as_jpeg(frames[0]))
            self.cold, self.no_cold_start = cold_starts(
                [one.row for one in single], picture, options.cold_starts
            )
        for reason in self.no_cold_start.values():
            log.info(f"bench: no cold start: {reason}")
        self.activity = monitor.stop()

    def _loadgen(self, frames: Sequence[Image], scenario: loadgen.Scenario) -> dict[str, Any]:
        log.info(f"bench: LoadGen, {scenario} ...")
        runners, summaries = self.planned.runners, self.timed.summaries
        speeds = {
            one.row.name: 1e3 * one.row.batch / summaries[one.row.name].mean_ms for one in runners
        }
        seconds = max(1.0, self.options.seconds / len(runners))
        return loadgen.run_rows(runners, frames, scenario, seconds, self.planned.folder, speeds)

    def document(self) -> dict[str, Any]:
        """Return the content of `bench.json` but for the gates."""
        options, planned, timed = self.options, self.planned, self.timed
        by_set = {
            name: [one.index for one in self.disagreements if one.pictures == name]
            for name in self.sets
        }
        counts = {
            name: {"disagreements": len(indices), "pictures": len(set(indices))}
            for name, indices in by_set.items()
        }
        return {
            "kind": "catdog-edge bench",
            "schema": report.SCHEMA,
            "tool_version": __version__,
            "git_commit": git_commit(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["catdog-edge", *sys.argv[1:]]),
            **planned.describe(),
            "settings": {
                "seconds": options.seconds,
                "threads": planned.threads,
                "batches": sorted({row.batch for row in planned.rows}),
                "cold_starts": options.cold_starts,
                "corruption_pictures": options.corruptions,
                "rounds": timed.timing.rounds,
                "pass_starts": list(timed.timing.starts),
                "pause_ms": timed.timing.pause * 1e3,
                "block_ms": timed.block_seconds * 1e3,
            },
            "quiet": asdict(self.activity),
            "noise": noise_reasons(planned.card, self.activity, timed.drifts, timed.unsettled),
            "answers_to": planned.runners[0].row.base,
            "rows": [self._row(one) for one in planned.runners],
            "classes": parity.class_figures(self.answers, self.test.truth),
            "no_cold_start": [
                {"row": row, "reason": reason} for row, reason in self.no_cold_start.items()
            ],
            "loadgen": self.loadgen,
            "corruptions": self.corruptions,
            "originals": self.originals,
            "flips": {"count": len(by_set["test"]), "by_pictures": counts, "file": report.FLIPS},
            "gates": [],
        }

    def _row(self, runner: Runner) -> dict[str, Any]:
        row, timed, content = runner.row, self.timed, Path(runner.row.file).read_bytes()
        summary = timed.summaries[row.name]
        return {
            "name": row.name,
            "base": row.base,
            "is_reference": row.base == self.planned.runners[0].row.base,
            "engine": row.engine,
            "variant": row.variant if row.engine == "pytorch" else None,
            "provider": row.provider if row.engine == "onnxruntime" else None,
            "device": row.device,
            "tf32": runner.tf32,
            "precision": runner.spec.precision,
            "architecture": runner.spec.architecture,
            "file": Path(row.file).name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "threads": row.threads,
            "batch": row.batch,
            "ratio": {**asdict(timed.ratios[row.name]), "to": timed.references[row.name]},
            "latency": {
                **asdict(summary),
                "pictures_per_second": 1e3 * row.batch / summary.mean_ms,
                "warm_up": asdict(timed.warm_ups[row.name]),
            },
            "stages_ms": self.stages.get(row.name),
            "cold": self.cold.get(row.name),
            "answers": self.figures[row.base],
        }


def _contact_sheet(
    planned: BenchPlan,
    sets: Mapping[str, parity.ImageSet],
    disagreements: Sequence[parity.Disagreement],
) -> list[html.SheetImage]:
    """List each image once, with the rows that disagree; the most confident of each set first.

    Where one of those rows has a heat map, it is coloured by that of its answer.
    """
    groups: dict[str, dict[int, list[parity.Disagreement]]] = {name: {} for name in sets}
    for one in disagreements:
        groups[one.pictures].setdefault(one.index, []).append(one)

    def confidence(group: Sequence[parity.Disagreement]) -> float:
        return max(one.confidence + one.reference_confidence for one in group)

    return [
        _sheet_image(planned, sets[name].frame(group[0].index), group)
        for name, found in groups.items()
        for group in sorted(found.values(), key=confidence, reverse=True)[:SHOWN_DISAGREEMENTS]
    ]


def _sheet_image(
    planned: BenchPlan, frame: Image, group: Sequence[parity.Disagreement]
) -> html.SheetImage:
    reference = planned.runners[0].row.base
    for one in group:
        runner = planned.by_base[one.row]
        if isinstance(runner, OnnxRunner):
            with contextlib.suppress(ModelError):  # it has no heat map
                heat = runner.classifier.explain(frame, one.answer)
                return html.SheetImage(overlay(frame, heat), group, reference, one.row)
    return html.SheetImage(frame, group, reference)
