"""What a bench will measure: which run, files, rows and pictures, or why it cannot.

Everything that can be wrong with what was asked for is found here, before anything is timed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import environment, loadgen
from benchmarks.report import gates
from benchmarks.report.document import DOCUMENT
from benchmarks.rows import Row, Subject, base_names, open_subject, plan_rows
from catdog_edge.errors import CatdogError, DataError, ModelError, ProviderError
from catdog_edge.runtime import selection
from catdog_edge.runtime.model_file import find_model
from catdog_edge.runtime.threads import Threads, choose_threads
from catdog_edge.spec import ModelSpec
from catdog_edge.system.files import cannot_write
from catdog_edge.training.data.dataset import Dataset, Item
from catdog_edge.training.data.load import open_dataset
from catdog_edge.training.data.splits import split_of
from catdog_edge.training.evaluation.evaluation import check_labels
from catdog_edge.training.runs.progress import Reading
from catdog_edge.training.runs.run_folder import Run, newest_run, run_of


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
class Plan:
    """What will be measured; made by `plan`.

    Attributes:
        weights: The checkpoint.
        folder: Where the reports go.
        files: The exported files.
        rows: All rows that were meant.
        subjects: Those that opened, PyTorch's first.
        left_out: `row` and `reason` of the others.
        dataset: Where the pictures are.
        items: The test pictures.
        truth: `int64 [N]`, their labels.
        card: The environment, as it was before.
        model: What the document says of the model.
        data: What the document says of the pictures.
        baseline: The document to be held against, or `None`.
        originals: More labelled pictures, or `None`.
    """

    weights: Path
    folder: Path
    files: Sequence[Path]
    rows: Sequence[Row]
    subjects: Sequence[Subject]
    left_out: Sequence[dict[str, str]]
    dataset: Dataset
    items: Sequence[Item]
    truth: npt.NDArray[np.int64]
    card: environment.Environment
    model: dict[str, Any]
    data: dict[str, Any]
    baseline: dict[str, Any] | None
    originals: Dataset | None

    @property
    def threads(self) -> list[int]:
        """All counts of threads that rows have."""
        return sorted({row.threads for row in self.rows})

    @property
    def single(self) -> list[Subject]:
        """One subject for each file and provider, whatever threads and batch."""
        found: dict[str, Subject] = {}
        for subject in self.subjects:
            found.setdefault(subject.row.base, subject)
        return list(found.values())


def plan(options: BenchOptions) -> Plan:
    """Find, open and check everything that a bench needs.

    Raises:
        CatdogError: Weights, exported files, data or baseline are missing, damaged, or do
            not fit each other; a row that a gate names does not exist; or the folder for the
            reports cannot be written.
    """
    run, weights = _weights(options)
    folder = options.out or weights.parent
    files = _files(weights, options.also)
    chosen = Threads(options.threads[0], "--threads") if options.threads else choose_threads()
    rows = plan_rows(
        weights,
        files,
        providers=tuple(dict.fromkeys(options.providers)) or ("cpu", *selection.offered()),
        threads=options.threads or (chosen.count,),
        batches=options.batches,
        compiled=options.compiled,
    )
    _told_apart(rows)
    _known_rows(options.limits.max_ratio, rows)
    baseline = gates.read_baseline(options.baseline) if options.baseline else None
    if options.baseline is not None:
        _spared(options.baseline, folder)
    if options.scenario is not None:
        loadgen.load()
        loadgen.check_batches(options.scenario, options.batches)
    # Before anything is opened or read: that would count as load of others.
    card = environment.look(chosen)
    writable(folder)
    subjects, left_out = _open(rows, named=bool(options.providers))
    spec = subjects[0].spec
    dataset = _dataset(options, run, spec)
    items = dataset.items_of("test")
    found = Plan(
        weights=weights,
        folder=folder,
        files=files,
        rows=rows,
        subjects=subjects,
        left_out=left_out,
        dataset=dataset,
        items=items,
        truth=np.array([item.label for item in items], dtype=np.int64),
        card=card,
        model={
            "architecture": spec.architecture,
            "labels": list(spec.labels),
            "height": spec.height,
            "width": spec.width,
            "temperature": spec.temperature,
            "trained_on": dict(spec.trained_on),
        },
        data={
            "name": "sample" if dataset.is_sample else Path(dataset.source).name,
            "drawings": dataset.is_sample,
            "split": "test",
            "pictures": len(items),
            "counts": dict(dataset.counts()["test"]),
            "digest": _digest(items),
        },
        baseline=baseline,
        originals=_originals(options.originals, spec.labels),
    )
    for subject in found.single:
        check_labels(subject.spec, dataset.labels, Path(subject.row.file), dataset.source)
    if not items:
        raise DataError(
            f"{dataset.display_name} has no test pictures; bench measures on those alone: "
            "name other data with --data"
        )
    if baseline is not None and options.baseline is not None and not options.force:
        gates.check_comparable(
            baseline,
            options.baseline,
            environment=found.card.to_dict(),
            model=found.model,
            data=found.data,
            rows={
                one.row.name: (one.row.threads, one.row.batch, one.spec.architecture)
                for one in subjects
            },
        )
    return found


def _dataset(options: BenchOptions, run: Run | None, spec: ModelSpec) -> Dataset:
    if options.data is not None or run is None:
        # Split as it was for the training: no picture of that becomes one of the test.
        return open_dataset(options.data, split=split_of(spec.trained_on), progress=Reading())
    return run.dataset(progress=Reading())


def _originals(source: str | None, labels: tuple[str, ...]) -> Dataset | None:
    """All pictures of another source, whatever split they would be in."""
    if source is None:
        return None
    try:
        dataset = open_dataset(source, labels=labels, split=(0, 0, 100), progress=Reading())
    except DataError as error:
        raise DataError(f"--originals: {str(error).replace('--data', '--originals')}") from error
    if dataset.labels != labels:
        raise DataError(
            f"{dataset.source} has the classes {', '.join(dataset.labels)}, the model "
            f"{', '.join(labels)}; name pictures with the model's classes with --originals"
        )
    return dataset


def _spared(baseline: Path, folder: Path) -> None:
    """See to it that a run does not take the place of what it is held against.

    Otherwise a regression would be found once, and be the baseline of the next run.

    Raises:
        CatdogError: The baseline is where this run's own document goes.
    """
    if baseline.resolve() == (folder / DOCUMENT).resolve():
        raise CatdogError(
            f"the baseline {baseline} is where this run writes its own figures; name another "
            f"folder for them with --out, or copy the baseline away first"
        )


def writable(folder: Path) -> None:
    """Find out before minutes of measuring that the reports cannot be kept.

    Raises:
        CatdogError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def _weights(options: BenchOptions) -> tuple[Run | None, Path]:
    if options.weights is None:
        run = newest_run()
        return run, run.weights
    if options.weights.suffix in (".onnx", ".ort"):
        raise ModelError(
            f"{options.weights} is an exported file; --weights names the checkpoint beside it "
            "that it is compared with, --also names more exported files"
        )
    weights = checkpoint(options.weights)
    return run_of(weights), weights


def checkpoint(named: Path) -> Path:
    """The checkpoint that `--weights` names: a file, or the `best.pt` of a run's folder.

    Raises:
        ModelError: There is none.
    """
    found = Run(named).weights if named.is_dir() else named
    if not found.is_file():
        raise ModelError(
            f"there is no checkpoint {found}; name the best.pt of a run, or its folder, with "
            "--weights"
        )
    return found


def _files(weights: Path, also: Sequence[str]) -> list[Path]:
    """The exported files of a run, the plain one first, and the others that were named."""
    folder = weights.parent
    found = sorted([*folder.glob("*.onnx"), *folder.glob("*.ort")], key=lambda one: one.name)
    found.sort(key=lambda one: one.name != "model.onnx")
    for name in also:
        path = find_model(name).path
        assert path is not None
        found.append(path)
    if not found:
        raise ModelError(
            f"{folder} has no exported file to compare with PyTorch; make one with: "
            f"catdog-edge export --quantize --weights {weights}"
        )
    names = base_names(found)
    for file, name in zip(found, names, strict=True):
        if names.count(name) > 1:
            raise ModelError(
                f"{file} would be the row {name}, and so would another file; name each only once, "
                "and give files of the same name folders of different names"
            )
    return found


def _told_apart(rows: Sequence[Row]) -> None:
    """Refuse a file whose name is that of another row: figures are kept by name."""
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1 and row.engine == "onnxruntime":
            raise ModelError(
                f"{row.file} would be the row {row.name}, which there is already; give the file "
                "another name"
            )


def _known_rows(names: Mapping[str, float], rows: Sequence[Row]) -> None:
    known = [row.name for row in rows]
    for name in names:
        if name not in known:
            raise CatdogError(
                f"--max-ratio names {name}, which is no row of this run; "
                f"the rows are: {', '.join(known)}"
            )
        if any(row.name == name and row.is_reference for row in rows):
            raise CatdogError(
                f"--max-ratio names {name}, which all others are compared with: its ratio is "
                "always 1; name another row"
            )


def _open(rows: Sequence[Row], named: bool) -> tuple[list[Subject], list[dict[str, str]]]:
    """Open the rows; a provider that was not asked for by name may fail to start.

    Raises:
        CatdogError: A file cannot be opened, or its fixed batch is that of no row.
    """
    subjects: list[Subject] = []
    left_out = []
    fixed_batches: dict[str, int | None] = {}
    for row in rows:
        try:
            subject = open_subject(row)
            if (fixed := subject.fixed_batch) not in (None, row.batch):
                # Run all the same it would be filled up or cut, and its time that of other calls.
                fixed_batches[row.file] = fixed
                reason = f"the file takes {fixed} pictures a call, not {row.batch}"
                left_out.append({"row": row.name, "reason": f"{reason}: --batch {fixed}"})
                continue
            subjects.append(subject)
        except ProviderError as error:
            if named:
                raise
            left_out.append({"row": row.name, "reason": str(error)})
        except CatdogError as error:
            if row.variant != "compile":
                raise
            left_out.append({"row": row.name, "reason": str(error)})
    measured = {subject.row.file for subject in subjects}
    for file, fixed in fixed_batches.items():
        if file not in measured:
            raise ModelError(
                f"{file} takes {fixed} pictures a call, which no row here has; give "
                f"--batch {fixed}, or export it without --batch"
            )
    return subjects, left_out


def _digest(items: Sequence[Item]) -> str:
    """Tells one set of labelled test pictures from another, whatever their names and order."""
    text = "\n".join(sorted(f"{item.digest} {item.label}" for item in items))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
