"""What `catdog-edge bench` does, from options to files and words.

Joins the rooms of the benchmarks; knows nothing of click's options. Words go to stderr.
"""

from __future__ import annotations

import hashlib
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environment, gates, html, latency, loadgen, parity, report, robustness
from benchmarks.fresh import ColdStart
from benchmarks.subjects import REFERENCE, Row, Subject, base_names, open_subject, plan_rows
from catdog_edge import __version__, automatic
from catdog_edge.errors import CatdogError, DataError, ModelError, ProviderError
from catdog_edge.files import write_text
from catdog_edge.modelfile import find_model
from catdog_edge.threads import Threads, choose_threads
from catdog_edge.training.command import describe, git_commit, say, source_name
from catdog_edge.training.data import Dataset, Item, open_dataset
from catdog_edge.training.evaluate import check_labels
from catdog_edge.training.progress import Reading
from catdog_edge.training.runs import Run, newest_run, run_of

SHOWN_FLIPS = 60
"""Pictures on the contact sheet; more does not fit a page that people look at."""


@dataclass(frozen=True)
class BenchOptions:
    """The options of `catdog-edge bench`.

    Attributes:
        weights: A checkpoint; `None`: `best.pt` of the newest run.
        data: A folder, a `.zip` or `sample`; `None`: the run's data and split.
        also: More exported files, or names of shipped models.
        seconds: The budget of the interleaved rounds.
        threads: Thread counts; empty: what the runtime chooses.
        batches: Batch sizes.
        providers: Execution providers; empty: the CPU's and all others that start.
        compiled: Whether `torch.compile` gets a row.
        cold_starts: Fresh processes per row; 0: none.
        corruptions: Test pictures per corruption; 0: none.
        originals: More labelled pictures, for instance at their original size.
        scenario: Run the rows under MLCommons' LoadGen as well, in this scenario.
        out: The folder for the files; `None`: the run's.
        limits: The gates.
        baseline: A `bench.json` to be held against.
        force: Compare with a baseline of another machine, model or data all the same.
    """

    weights: Path | None = None
    data: str | None = None
    also: tuple[str, ...] = ()
    seconds: float = 60.0
    threads: tuple[int, ...] = ()
    batches: tuple[int, ...] = (1,)
    providers: tuple[str, ...] = ()
    compiled: bool = False
    cold_starts: int = 3
    corruptions: int = 100
    originals: str | None = None
    scenario: loadgen.Scenario | None = None
    out: Path | None = None
    limits: gates.Limits = field(default_factory=gates.Limits)
    baseline: Path | None = None
    force: bool = False


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


def bench(options: BenchOptions) -> Bench:
    """Measure PyTorch and every exported file, and write the reports.

    The gates are checked but not enforced: that is for the caller, who prints the table
    first.

    Raises:
        CatdogError: Weights, exported files, data or baseline are missing, damaged, or do
            not fit each other; or a row that a gate names does not exist.
    """
    run, weights = _weights(options)
    folder = options.out or weights.parent
    files = _files(weights.parent, options.also)
    threads = options.threads or (choose_threads().count,)
    rows = plan_rows(
        weights,
        files,
        providers=options.providers or ("cpu", *automatic.offered()),
        threads=threads,
        batches=options.batches,
        compiled=options.compiled,
    )
    _known_rows(options.limits.max_ratio, rows)
    subjects, left_out = _open(rows, named=bool(options.providers))
    spec = subjects[0].spec
    baseline = gates.read_baseline(options.baseline) if options.baseline else None
    if options.scenario is not None:
        loadgen.load()

    if options.data is not None or run is None:
        dataset = open_dataset(options.data, progress=Reading())
    else:
        dataset = run.dataset(progress=Reading())
    for subject in _first_of_base(subjects):
        check_labels(subject.spec, dataset.labels, Path(subject.row.file), dataset.source)
    items = dataset.items_of("test")
    if not items:
        raise DataError(
            f"{source_name(dataset)} has no test pictures; bench measures on those alone: "
            "name other data with --data"
        )
    truth = np.array([item.label for item in items], dtype=np.int64)

    chosen = Threads(threads[0], "--threads") if options.threads else choose_threads()
    card = environment.look(chosen)
    model = {
        "architecture": spec.architecture,
        "labels": list(spec.labels),
        "height": spec.height,
        "width": spec.width,
        "temperature": spec.temperature,
        "trained_on": dict(spec.trained_on),
    }
    data = {
        "name": "sample" if dataset.is_sample else Path(dataset.source).name,
        "drawings": dataset.is_sample,
        "split": "test",
        "pictures": len(items),
        "counts": dict(dataset.counts()["test"]),
        "digest": _digest(items),
    }
    if baseline is not None and options.baseline is not None and not options.force:
        gates.check_comparable(
            baseline, options.baseline, environment=card.to_dict(), model=model, data=data
        )

    describe(dataset)
    say(
        f"bench: {weights} and {len(files)} exported files on {len(items):,} test pictures, "
        f"{len(subjects)} rows, {chosen.count} threads ({chosen.source})"
    )
    for one in left_out:
        say(f"bench: left out: {one['row']}: {one['reason']}")
    watch = environment.Watch()

    single = _first_of_base(subjects)
    askers: dict[str, parity.Ask] = {one.row.base: one.probabilities for one in single}
    say("bench: answers, picture by picture ...")
    answers = parity.ask_all(askers, (dataset.decode(item) for item in items), _count(len(items)))
    compared = {
        base: parity.compare(values, answers[REFERENCE], truth, dataset.labels)
        for base, values in answers.items()
    }
    flips = [
        flip
        for base, values in answers.items()
        if base != REFERENCE
        for flip in parity.flips_of(
            base, values, answers[REFERENCE], truth, dataset.labels, [item.file for item in items]
        )
    ]
    frames = [dataset.decode(item) for item in robustness.spread(items, latency.POOL)]

    say(f"bench: latency, {options.seconds:.0f} s of interleaved rounds ...")
    measured = latency.time_rows(subjects, frames, options.seconds)
    say("bench: stages of a call ...")
    staged = {
        one.row.name: latency.stages(one, frames, seconds=min(1.5, options.seconds / 20))
        for one in subjects
        if one.row.batch == 1
    }
    scenario = None
    if options.scenario is not None:
        say(f"bench: LoadGen, {options.scenario} ...")
        scenario = loadgen.run_rows(
            subjects,
            frames,
            options.scenario,
            max(1.0, options.seconds / len(subjects)),
            folder,
            {
                one.row.name: 1e3 * one.row.batch / measured.summaries[one.row.name].mean_ms
                for one in subjects
            },
        )
    spoiled = None
    if options.corruptions:
        say(f"bench: corruptions of up to {options.corruptions} test pictures ...")
        spoiled = robustness.corruptions(dataset, items, askers, answers, options.corruptions)
    originals = None
    if options.originals is not None:
        originals = robustness.originals(options.originals, dataset.labels, askers)
    cold: dict[str, ColdStart] = {}
    failed: dict[str, str] = {}
    if options.cold_starts:
        say(f"bench: cold starts, {options.cold_starts} fresh processes per row ...")
        with tempfile.TemporaryDirectory() as scratch:
            picture = latency.save_picture(frames[0], Path(scratch) / "picture.jpg")
            starters = [one.row for one in subjects if one.row.batch == 1]
            cold, failed = latency.cold_starts(starters, picture, options.cold_starts)
    for reason in failed.values():
        say(f"bench: no cold start: {reason}")
    quiet = watch.stop()

    document: dict[str, Any] = {
        "kind": "catdog-edge bench",
        "schema": report.SCHEMA,
        "tool_version": __version__,
        "git_commit": git_commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["catdog-edge", *sys.argv[1:]]),
        "run": folder.resolve().name if run is None else run.folder.resolve().name,
        "model": model,
        "data": data,
        "settings": {
            "seconds": options.seconds,
            "threads": list(threads),
            "batches": list(options.batches),
            "cold_starts": options.cold_starts,
            "corruption_pictures": options.corruptions,
            "rounds": measured.timing.rounds,
            "pause_ms": measured.timing.pause * 1e3,
            "block_ms": measured.block_seconds * 1e3,
        },
        "environment": {
            **card.to_dict(),
            "providers_asked": sorted({row.provider for row in rows if row.engine != "pytorch"}),
            "providers_obtained": sorted(
                {one.row.provider for one in subjects if one.row.engine != "pytorch"}
            ),
        },
        "quiet": quiet.to_dict(),
        "noise": environment.noise(card, quiet, latency.drifts(measured).items()),
        "rows": [
            _row(one, measured, compared[one.row.base].to_dict(), staged, cold) for one in subjects
        ],
        "left_out": left_out,
        "loadgen": scenario,
        "corruptions": spoiled,
        "originals": originals,
        "flips": {"count": len(flips), "file": report.FLIPS},
        "gates": [],
    }
    found = gates.check(document, options.limits, baseline)
    document["gates"] = [gate.to_dict() for gate in found]
    shown = _sheet(dataset, items, flips)
    report.write(document, folder)
    parity.write_flips(folder / report.FLIPS, flips)
    write_text(folder / report.PAGE, html.page(document, shown))
    return Bench(document, folder, found)


def _weights(options: BenchOptions) -> tuple[Run | None, Path]:
    if options.weights is None:
        run = newest_run()
        return run, run.weights
    if options.weights.suffix in (".onnx", ".ort"):
        raise ModelError(
            f"{options.weights} is an exported file; --weights names the checkpoint beside it "
            "that it is compared with, --also names more exported files"
        )
    return run_of(options.weights), options.weights


def _files(folder: Path, also: Sequence[str]) -> list[Path]:
    """The exported files of a run, the plain one first, and the others that were named."""
    found = sorted([*folder.glob("*.onnx"), *folder.glob("*.ort")], key=lambda one: one.name)
    found.sort(key=lambda one: one.name != "model.onnx")
    for name in also:
        path = find_model(name).path
        assert path is not None
        found.append(path)
    if not found:
        raise ModelError(
            f"{folder} has no exported file to compare with PyTorch; make one with: "
            f"catdog-edge export --quantize --weights {folder / 'best.pt'}"
        )
    if len(set(base_names(found))) < len(found):
        raise ModelError("two of the files have the same name and folder; name each only once")
    return found


def _known_rows(names: Mapping[str, float], rows: Sequence[Row]) -> None:
    known = [row.name for row in rows]
    for name in names:
        if name not in known:
            raise CatdogError(
                f"--max-ratio names {name}, which is no row of this run; "
                f"the rows are: {', '.join(known)}"
            )


def _open(rows: Sequence[Row], named: bool) -> tuple[list[Subject], list[dict[str, str]]]:
    """Open the rows; a provider that was not asked for by name may fail to start."""
    subjects: list[Subject] = []
    left_out = []
    for row in rows:
        try:
            subjects.append(open_subject(row))
        except ProviderError as error:
            if named:
                raise
            left_out.append({"row": row.name, "reason": str(error)})
        except CatdogError as error:
            if row.variant != "compile":
                raise
            left_out.append({"row": row.name, "reason": str(error)})
    return subjects, left_out


def _first_of_base(subjects: Sequence[Subject]) -> list[Subject]:
    found: dict[str, Subject] = {}
    for subject in subjects:
        found.setdefault(subject.row.base, subject)
    return list(found.values())


def _row(
    subject: Subject,
    measured: Any,
    answers: dict[str, Any],
    staged: Mapping[str, Mapping[str, float]],
    cold: Mapping[str, Any],
) -> dict[str, Any]:
    row = subject.row
    path = Path(row.file)
    content = path.read_bytes()
    summary = measured.summaries[row.name]
    ratio = measured.ratios[row.name]
    return {
        "name": row.name,
        "base": row.base,
        "is_reference": row.base == REFERENCE,
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
        "ratio": {**asdict(ratio), "to": measured.references[row.name]},
        "latency": {
            **summary.to_dict(),
            "pictures_per_second": 1e3 * row.batch / summary.mean_ms,
            "warm_up": asdict(measured.warm_ups[row.name]),
        },
        "stages_ms": staged.get(row.name),
        "cold": cold[row.name].to_dict() if row.name in cold else None,
        "answers": answers,
    }


def _digest(items: Sequence[Item]) -> str:
    """Tells one set of labelled test pictures from another, whatever their names and order."""
    text = "\n".join(sorted(f"{item.digest} {item.label}" for item in items))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _sheet(
    dataset: Dataset, items: Sequence[Item], flips: Sequence[parity.Flip]
) -> list[html.Shown]:
    """The pictures of the contact sheet: each once, with the rows that differ on it."""
    by_picture: dict[int, list[parity.Flip]] = {}
    for flip in flips:
        by_picture.setdefault(flip.index, []).append(flip)
    return [
        html.Shown(dataset.decode(items[index]), group)
        for index, group in list(by_picture.items())[:SHOWN_FLIPS]
    ]


def _count(total: int) -> Callable[[int], None]:
    def show(done: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r  {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)

    return show
