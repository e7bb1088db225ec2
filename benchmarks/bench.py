"""What `catdog-edge bench` does, from options to files and words.

Joins the rooms of the benchmarks; knows nothing of click's options. Words go to stderr.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import environment, latency, loadgen, parity, robustness
from benchmarks.measure.cold_start import ColdStart, cold_starts
from benchmarks.measure.interleaved import Measurement
from benchmarks.plan import BenchOptions, Plan, plan
from benchmarks.report import document as report
from benchmarks.report import gates, html
from benchmarks.report.text import listed
from benchmarks.rows import REFERENCE, Runner
from catdog_edge import __version__
from catdog_edge.images.preprocess import Image
from catdog_edge.system.files import write_text
from catdog_edge.training.engine.device import torch_threads
from catdog_edge.training.runs.provenance import git_commit

log = logging.getLogger(__name__)

__all__ = ["Bench", "BenchOptions", "bench"]

SHOWN_FLIPS = 1000
"""Pictures of each kind on the contact sheet, of about 8 KB each: all but for broken files."""


@dataclass(frozen=True)
class Bench:
    """What was made.

    Attributes:
        document: What `bench.json` holds.
        folder: Where the files are.
        gates: Every limit, met or not.
    """

    document: dict[str, Any]
    folder: Path
    gates: list[gates.Gate]


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        answers: By base: `float32 [N,K]` for the test pictures.
        timed: Latency of every row.
        stages: By row with batch 1.
        cold: By row with batch 1.
        loadgen: See docs/bench.md; likewise the next two.
        corruptions: See above.
        originals: See above.
        quiet: How quiet the machine was meanwhile.
    """

    answers: Mapping[str, parity.Probabilities]
    timed: Measurement
    stages: Mapping[str, Mapping[str, float | None]]
    cold: Mapping[str, ColdStart]
    no_cold_start: Mapping[str, str]
    loadgen: dict[str, Any] | None
    corruptions: robustness.Asked | None
    originals: robustness.Asked | None
    quiet: environment.Activity


def bench(options: BenchOptions) -> Bench:
    """Measure PyTorch and every exported file, and write the reports.

    The gates are checked but not enforced: that is for the caller, who prints the table
    first.

    Raises:
        CatdogError: See `benchmarks.plan.plan`; or a row failed, or a report cannot be
            written.
    """
    with torch_threads():  # the rows of PyTorch set their own
        return _bench(options)


def _bench(options: BenchOptions) -> Bench:
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
    measured = _measure(options, planned)
    flips = _flips(planned, measured)
    document = _document(options, planned, measured, flips)
    found = gates.check(document, options.limits, planned.baseline)
    document["gates"] = [gate.to_dict() for gate in found]
    # The figures first: minutes of measuring are not lost, whatever becomes of the page.
    report.write(document, planned.folder)
    parity.write_flips(planned.folder / report.FLIPS, flips)
    page = html.page(document, _sheet(planned, flips))
    write_text(planned.folder / report.PAGE, page)
    return Bench(document, planned.folder, found)


def _measure(options: BenchOptions, planned: Plan) -> Measured:
    subjects, dataset, items = planned.runners, planned.dataset, planned.items
    watch = environment.ActivityMonitor()
    log.info("bench: answers, picture by picture ...")
    askers: dict[str, parity.Ask] = {
        one.row.base: one.probabilities for one in planned.by_base.values()
    }
    answers = parity.ask_all(askers, (dataset.decode(item) for item in items), _count(len(items)))
    frames = [dataset.decode(item) for item in robustness.spread(items, latency.FRAMES)]

    log.info(f"bench: latency, {options.seconds:g} s of interleaved rounds ...")
    timed = latency.time_rows(subjects, frames, options.seconds)
    log.info("bench: stages of a call ...")
    single = [one for one in subjects if one.row.batch == 1]
    stages = {
        one.row.name: latency.stages(one, frames, seconds=min(1.5, options.seconds / 20))
        for one in single
    }
    generated = None
    if options.scenario is not None:
        log.info(f"bench: LoadGen, {options.scenario} ...")
        speeds = {
            one.row.name: 1e3 * one.row.batch / timed.summaries[one.row.name].mean_ms
            for one in subjects
        }
        seconds = max(1.0, options.seconds / len(subjects))
        generated = loadgen.run_rows(
            subjects, frames, options.scenario, seconds, planned.folder, speeds
        )
    spoiled = originals = None
    if options.corruptions:
        log.info(f"bench: corruptions of up to {options.corruptions} test pictures ...")
        spoiled = robustness.corruptions(dataset, items, askers, answers, options.corruptions)
    if planned.originals is not None:
        originals = robustness.originals(planned.originals, askers)
    cold: dict[str, ColdStart] = {}
    failed: dict[str, str] = {}
    if options.cold_starts:
        log.info(f"bench: cold starts, {options.cold_starts} fresh processes per row ...")
        with tempfile.TemporaryDirectory() as scratch:
            picture = Path(scratch) / "picture.jpg"
            picture.write_bytes(latency.as_jpeg(frames[0]))
            rows = [one.row for one in single]
            cold, failed = cold_starts(rows, picture, options.cold_starts)
        for reason in failed.values():
            log.info(f"bench: no cold start: {reason}")
    return Measured(
        answers=answers,
        timed=timed,
        stages=stages,
        cold=cold,
        no_cold_start=failed,
        loadgen=generated,
        corruptions=spoiled,
        originals=originals,
        quiet=watch.stop(),
    )


def _flips(planned: Plan, measured: Measured) -> list[parity.Flip]:
    """Every disagreement of every row with PyTorch: on the test split, then on other pictures."""
    files = [item.file for item in planned.items]
    flips = parity.all_flips(measured.answers, planned.truth, planned.dataset.labels, files)
    for asked in (measured.originals, measured.corruptions):
        flips += [] if asked is None else asked.flips
    return flips


def _document(
    options: BenchOptions, planned: Plan, measured: Measured, flips: Sequence[parity.Flip]
) -> dict[str, Any]:
    """What `bench.json` holds, but for the gates; its keys are told in docs/bench.md."""
    timed = measured.timed
    reference = measured.answers[REFERENCE]
    compared = {
        base: parity.compare(values, reference, planned.truth, planned.dataset.labels).to_dict()
        for base, values in measured.answers.items()
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
        "quiet": measured.quiet.to_dict(),
        "noise": environment.noise_reasons(
            planned.card, measured.quiet, timed.drifts, timed.unsettled
        ),
        "rows": [_row(one, measured, compared[one.row.base]) for one in planned.runners],
        "no_cold_start": [
            {"row": row, "reason": reason} for row, reason in measured.no_cold_start.items()
        ],
        "loadgen": measured.loadgen,
        "corruptions": None if measured.corruptions is None else measured.corruptions.document,
        "originals": None if measured.originals is None else measured.originals.document,
        "flips": {
            "count": sum(flip.pictures == parity.AS_THEY_ARE for flip in flips),
            "by_pictures": _counted(flips, measured),
            "file": report.FLIPS,
        },
        "gates": [],
    }


def _row(subject: Runner, measured: Measured, answers: Mapping[str, Any]) -> dict[str, Any]:
    row, timed = subject.row, measured.timed
    path = Path(row.file)
    content = path.read_bytes()
    summary = timed.summaries[row.name]
    ratio = timed.ratios[row.name]
    return {
        "name": row.name,
        "base": row.base,
        "is_reference": row.is_reference,
        "engine": row.engine,
        "variant": row.variant if row.engine == "pytorch" else None,
        "provider": row.provider if row.engine == "onnxruntime" else None,
        "precision": subject.spec.precision,
        "architecture": subject.spec.architecture,
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "threads": row.threads,
        "batch": row.batch,
        "ratio": {**asdict(ratio), "to": timed.references[row.name]},
        "latency": {
            **summary.to_dict(),
            "pictures_per_second": 1e3 * row.batch / summary.mean_ms,
            "warm_up": asdict(timed.warm_ups[row.name]),
        },
        "stages_ms": measured.stages.get(row.name),
        "cold": measured.cold[row.name].to_dict() if row.name in measured.cold else None,
        "answers": dict(answers),
    }


def _sheet(planned: Plan, flips: Sequence[parity.Flip]) -> list[html.Shown]:
    """The pictures of the contact sheet: each once, with the rows that differ on it."""
    kinds: dict[str, dict[int, list[parity.Flip]]] = {}
    for flip in flips:
        kinds.setdefault(flip.pictures, {}).setdefault(flip.index, []).append(flip)
    shown = []
    for by_picture in kinds.values():
        # Two confident answers that differ are further apart than two hesitant ones.
        surest = sorted(
            by_picture.values(),
            key=lambda group: -max(one.confidence + one.reference_confidence for one in group),
        )
        shown += [html.Shown(_frame(planned, group[0]), group) for group in surest[:SHOWN_FLIPS]]
    return shown


def _counted(flips: Sequence[parity.Flip], measured: Measured) -> dict[str, dict[str, int]]:
    """By kind of pictures, none left out: disagreements, and pictures that have one."""
    kinds = [parity.AS_THEY_ARE]
    kinds += [] if measured.originals is None else [parity.ORIGINALS]
    if measured.corruptions is not None:
        kinds += [one["name"] for one in measured.corruptions.document["set"]]
    found = {}
    for kind in kinds:
        indices = [flip.index for flip in flips if flip.pictures == kind]
        found[kind] = {"disagreements": len(indices), "pictures": len(set(indices))}
    return found


def _frame(planned: Plan, flip: parity.Flip) -> Image:
    if flip.pictures == parity.ORIGINALS and planned.originals is not None:
        return planned.originals.decode(planned.originals.items[flip.index])
    return robustness.seen(flip, planned.dataset, planned.items)


def _count(total: int) -> Callable[[int], None]:
    def show(done: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r  {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)

    return show
