"""Run a bench: measure PyTorch and every exported file of a run, and write the reports."""

from __future__ import annotations

import hashlib
import itertools
import logging
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import latency, loadgen, robustness
from benchmarks.measure.cold_start import cold_starts
from benchmarks.measure.environment import Activity, ActivityMonitor, noise_reasons
from benchmarks.measure.interleaved import Measurement
from benchmarks.measure.parity import (
    Disagreement,
    ImageSet,
    Predict,
    class_figures,
    classify_all,
    compare_rows,
    write_disagreements,
)
from benchmarks.plan import BenchOptions, Plan, plan
from benchmarks.report import document as report
from benchmarks.report import gates, html
from benchmarks.report.text import listed
from benchmarks.rows import Runner
from catdog_edge import __version__
from catdog_edge.system.files import write_text
from catdog_edge.training.engine.device import torch_threads
from catdog_edge.training.runs.provenance import git_commit
from exporters.checks.comparison import Probabilities

log = logging.getLogger(__name__)

__all__ = ["BenchOptions", "BenchResult", "bench"]

SHOWN_DISAGREEMENTS = 200
"""Images of each set on the contact sheet, of about 8 KB each."""


@dataclass(frozen=True)
class BenchResult:
    """The result of `bench`.

    Attributes:
        document: The content of `bench.json`.
        folder: Where the reports are.
        gates: Every limit, met or not.
    """

    document: dict[str, Any]
    folder: Path
    gates: list[gates.Gate]


@dataclass(frozen=True)
class _Measured:
    """All measurements; `stages` and `cold` of the rows with batch 1, by name."""

    answers: Mapping[str, Probabilities]
    timed: Measurement
    stages: Mapping[str, Mapping[str, float | None]]
    cold: Mapping[str, dict[str, Any]]
    no_cold_start: Mapping[str, str]
    loadgen: dict[str, Any] | None
    corruptions: robustness.Result | None
    originals: robustness.Result | None
    activity: Activity


def bench(options: BenchOptions) -> BenchResult:
    """Measure PyTorch and every exported file of a run, and write the reports.

    Gates are checked, not enforced: the command prints the table first.

    Raises:
        CatdogError: See `benchmarks.plan.plan`; or a row failed, or a report cannot be written.

    Example:
        >>> done = bench(BenchOptions(weights=Path("runs/pets"), seconds=30.0))
        >>> [(row["name"], row["ratio"]["value"]) for row in done.document["rows"]]
        [('pytorch', 1.0), ('model', 0.31), ('model.static', 0.11)]
    """
    with torch_threads():  # PyTorch's rows set their own number
        planned = plan(options)
        planned.dataset.log_summary()
        files = {row.file for row in planned.rows if row.engine == "onnxruntime"}
        log.info(
            f"bench: {planned.weights} and {len(files)} exported files on "
            f"{len(planned.items):,} test pictures, {len(planned.runners)} rows, "
            f"{listed(planned.threads)} threads ({planned.card.threads_source})"
        )
        for one in planned.left_out:
            log.info(f"bench: left out: {one['row']}: {one['reason']}")
        sets = _image_sets(options, planned)
        measured = _measure(options, planned, sets)
        document, disagreements = _document(options, planned, measured, sets)
    found = gates.check(document, options.limits, planned.baseline)
    document["gates"] = [asdict(gate) for gate in found]
    # The figures first: they are kept whatever becomes of the page.
    report.write(document, planned.folder)
    write_disagreements(planned.folder / report.FLIPS, disagreements)
    page = html.page(document, _contact_sheet(sets, disagreements))
    write_text(planned.folder / report.PAGE, page)
    return BenchResult(document, planned.folder, found)


def _image_sets(options: BenchOptions, planned: Plan) -> dict[str, ImageSet]:
    """By name, what every row classifies: the test split, originals, corrupted test images."""
    sets = [ImageSet("test", planned.dataset, planned.items)]
    if planned.originals is not None:
        sets.append(ImageSet("originals", planned.originals, planned.originals.items))
    if options.corruptions:
        sets += robustness.corruption_sets(planned.dataset, planned.items, options.corruptions)
    return {one.name: one for one in sets}


def _measure(options: BenchOptions, planned: Plan, sets: Mapping[str, ImageSet]) -> _Measured:
    runners, test = planned.runners, sets["test"]
    single = [one for one in runners if one.row.batch == 1]
    monitor = ActivityMonitor()
    log.info("bench: answers, picture by picture ...")
    predictors: dict[str, Predict] = {
        base: runner.probabilities for base, runner in planned.by_base.items()
    }
    answers = classify_all(predictors, test.frames(), _counter(len(test.items)))
    frames = [test.dataset.decode(item) for item in robustness.balanced(test.items, latency.FRAMES)]
    log.info(f"bench: latency, {options.seconds:g} s of interleaved rounds ...")
    timed = latency.time_rows(runners, frames, options.seconds)
    log.info("bench: stages of a call ...")
    seconds = min(1.5, options.seconds / 20)
    stages = {one.row.name: latency.stages(one, frames, seconds) for one in single}
    generated = None
    if options.scenario is not None:
        log.info(f"bench: LoadGen, {options.scenario} ...")
        speeds = {
            one.row.name: 1e3 * one.row.batch / timed.summaries[one.row.name].mean_ms
            for one in runners
        }
        seconds = max(1.0, options.seconds / len(runners))
        generated = loadgen.run_rows(
            runners, frames, options.scenario, seconds, planned.folder, speeds
        )
    corrupted = [one for one in sets.values() if one.corruption is not None]
    corruptions = originals = None
    if corrupted:
        log.info(f"bench: corruptions of up to {options.corruptions} test pictures ...")
        corruptions = robustness.corruptions(corrupted, predictors, test, answers)
    if "originals" in sets:
        originals = robustness.originals(sets["originals"], predictors)
    cold: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    if options.cold_starts:
        log.info(f"bench: cold starts, {options.cold_starts} fresh processes per row ...")
        with tempfile.TemporaryDirectory() as scratch:
            picture = Path(scratch) / "picture.jpg"
            picture.write_bytes(latency.as_jpeg(frames[0]))
            cold, failed = cold_starts([one.row for one in single], picture, options.cold_starts)
        for reason in failed.values():
            log.info(f"bench: no cold start: {reason}")
    return _Measured(
        answers=answers,
        timed=timed,
        stages=stages,
        cold=cold,
        no_cold_start=failed,
        loadgen=generated,
        corruptions=corruptions,
        originals=originals,
        activity=monitor.stop(),
    )


def _document(
    options: BenchOptions, planned: Plan, measured: _Measured, sets: Mapping[str, ImageSet]
) -> tuple[dict[str, Any], list[Disagreement]]:
    """Make the content of `bench.json` but for the gates (see docs/bench.md); list disagreements.

    Those of the test split come first.
    """
    timed, test = measured.timed, sets["test"]
    figures, disagreements = compare_rows(measured.answers, test)
    others = [one for one in (measured.originals, measured.corruptions) if one is not None]
    disagreements += itertools.chain.from_iterable(found for _, found in others)
    by_set = {name: [one for one in disagreements if one.pictures == name] for name in sets}
    document = {
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
        "quiet": measured.activity.to_dict(),
        "noise": noise_reasons(planned.card, measured.activity, timed.drifts, timed.unsettled),
        "rows": [_row(one, measured, figures[one.row.base]) for one in planned.runners],
        "classes": class_figures(measured.answers, test.truth),
        "no_cold_start": [
            {"row": row, "reason": reason} for row, reason in measured.no_cold_start.items()
        ],
        "loadgen": measured.loadgen,
        "corruptions": None if measured.corruptions is None else measured.corruptions[0],
        "originals": None if measured.originals is None else measured.originals[0],
        "flips": {
            "count": len(by_set["test"]),
            "by_pictures": {
                name: {"disagreements": len(found), "pictures": len({one.index for one in found})}
                for name, found in by_set.items()
            },
            "file": report.FLIPS,
        },
        "gates": [],
    }
    return document, disagreements


def _row(runner: Runner, measured: _Measured, figures: Mapping[str, Any]) -> dict[str, Any]:
    row, timed = runner.row, measured.timed
    content = Path(row.file).read_bytes()
    summary = timed.summaries[row.name]
    return {
        "name": row.name,
        "base": row.base,
        "is_reference": row.is_reference,
        "engine": row.engine,
        "variant": row.variant if row.engine == "pytorch" else None,
        "provider": row.provider if row.engine == "onnxruntime" else None,
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
        "stages_ms": measured.stages.get(row.name),
        "cold": measured.cold.get(row.name),
        "answers": dict(figures),
    }


def _contact_sheet(
    sets: Mapping[str, ImageSet], disagreements: Sequence[Disagreement]
) -> list[html.SheetImage]:
    """Each image once, with the rows that disagree; of each set the most confident ones first."""
    groups: dict[tuple[str, int], list[Disagreement]] = {}
    for one in disagreements:
        groups.setdefault((one.pictures, one.index), []).append(one)
    shown = []
    for name, images in sets.items():
        ranked = sorted(
            (group for (pictures, _), group in groups.items() if pictures == name),
            key=lambda group: -max(one.confidence + one.reference_confidence for one in group),
        )
        shown += [
            html.SheetImage(images.frame(group[0].index), group)
            for group in ranked[:SHOWN_DISAGREEMENTS]
        ]
    return shown


def _counter(total: int) -> Callable[[int], None]:
    def show(done: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r  {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)

    return show
