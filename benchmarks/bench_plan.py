"""Plan a bench: resolve the run, files, rows and test images, and check them before measuring."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_rows import MOST_ON_CPU, BenchRow, Runner, open_row, plan_rows, references
from benchmarks.measure import loadgen
from benchmarks.measure.environment import Environment
from benchmarks.measure.gpu import Gpu
from benchmarks.report import gates
from benchmarks.report.document import DOCUMENT
from catdog_edge.errors import CatdogError, DataError, ModelError, ProviderError, list_names
from catdog_edge.images.preprocess import Image
from catdog_edge.runtime.model_file import find_model, read_spec
from catdog_edge.runtime.providers import selection
from catdog_edge.spec import ModelSpec
from catdog_edge.system.threads import Threads, choose_threads
from catdog_edge.training.data.dataset import Dataset, Item
from catdog_edge.training.data.folder_or_zip import Source
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.data.splits import split_of
from catdog_edge.training.evaluation.inference import check_labels
from catdog_edge.training.runs.run_folder import find_checkpoint, run_of
from exporters.graph.onnx_file import check_fp32
from exporters.output_folder import check_writable


@dataclass(frozen=True)
class BenchOptions:
    """The options of `catdog-edge bench`, which its help describes, with its defaults."""

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
class BenchPlan:
    """What a bench measures.

    `runners` are the opened rows, PyTorch's first: the answers of the others are compared with
    those of the first one. `left_out` has `row` and `reason` of the rest; `card` is the environment
    before anything was opened.
    """

    weights: Path
    folder: Path
    rows: Sequence[BenchRow]
    runners: Sequence[Runner]
    left_out: Sequence[dict[str, str]]
    datasets: Sequence[Dataset]
    card: Environment
    baseline: dict[str, Any] | None
    originals: Dataset | None

    @cached_property
    def dataset(self) -> Dataset:
        """All data sets, joined."""
        return _joined(self.datasets)

    @cached_property
    def items(self) -> Sequence[Item]:
        """The test images."""
        return self.dataset.items_of("test")

    @property
    def threads(self) -> list[int]:
        """All thread counts."""
        return sorted({row.threads for row in self.rows})

    @property
    def by_base(self) -> dict[str, Runner]:
        """The first runner of each file and provider, whatever its threads and batch."""
        found: dict[str, Runner] = {}
        for runner in self.runners:
            found.setdefault(runner.row.base, runner)
        return found

    def describe(self) -> dict[str, Any]:
        """Return what `bench.json` says of the run before anything is measured."""
        spec, dataset = self.runners[0].spec, self.dataset
        digests = "\n".join(sorted(f"{item.digest} {item.label}" for item in self.items))
        exported = [row for row in self.rows if row.engine == "onnxruntime"]
        opened = [one.row for one in self.runners]
        compared = references(opened)
        return {
            "run": self.weights.resolve().parent.name,
            "model": {
                **{name: getattr(spec, name) for name in ("architecture", "height", "width")},
                "labels": list(spec.labels),
                "temperature": spec.temperature,
                "trained_on": dict(spec.trained_on),
            },
            "data": {
                "name": ", ".join(
                    "sample" if one.is_sample else Path(one.source).name for one in self.datasets
                ),
                "drawings": all(one.is_sample for one in self.datasets),
                "split": "test",
                "pictures": len(self.items),
                "counts": dict(dataset.counts()["test"]),
                "digest": hashlib.sha256(digests.encode()).hexdigest()[:32],
            },
            "environment": {
                **asdict(self.card),
                "providers_asked": sorted({row.provider for row in exported}),
                "providers_obtained": sorted({row.provider for row in exported if row in opened}),
            },
            "rows": [
                {name: getattr(one.row, name) for name in ("name", "threads", "batch")}
                | {"architecture": one.spec.architecture, "ratio": {"to": compared[one.row.name]}}
                for one in self.runners
            ],
            "left_out": list(self.left_out),
        }


def plan_bench(options: BenchOptions) -> BenchPlan:
    """Find, open and check the inputs of a bench; `CatdogError` if one is unusable."""
    weights = _weights(options.weights)
    run, folder = run_of(weights), options.out or weights.parent
    chosen = Threads(options.threads[0], "--threads") if options.threads else choose_threads()
    rows = plan_rows(
        weights,
        _exported_files(weights, options.also),
        providers=tuple(dict.fromkeys(options.providers)) or ("cpu", *selection.accelerators()),
        threads=options.threads or (chosen.count,),
        batches=options.batches,
        compiled=options.compiled,
    )
    if missing := [batch for batch in options.batches if batch not in {row.batch for row in rows}]:
        raise CatdogError(
            f"--batch {missing[0]}: on the CPU a call has at most {MOST_ON_CPU} images, and no "
            "other device is requested or installed; name one, like --provider cuda"
        )
    _check_names(rows, options.limits.max_ratio)
    baseline = None
    if options.baseline is not None:
        baseline = gates.read_baseline(options.baseline, folder / DOCUMENT)
    if options.scenario is not None:
        loadgen.import_loadgen()
        loadgen.check_batches(options.scenario, options.batches)
    # Before anything is opened or read, which would raise the load average.
    card = Environment.detect(chosen)
    if any(row.device == "cuda" for row in rows):
        card = replace(card, gpu=Gpu.detect())
    check_writable(folder)
    runners, left_out = _open(rows, required=bool(options.providers))
    spec = runners[0].spec
    if options.data is None and run is not None:
        datasets = run.datasets()
    else:  # split as for the training, so that no training image becomes a test image
        split = split_of(spec.trained_on)
        datasets = (open_dataset(options.data, split=split),)
    originals = None if options.originals is None else _originals(options.originals, spec, weights)
    found = BenchPlan(weights, folder, rows, runners, left_out, datasets, card, baseline, originals)
    dataset = found.dataset
    for runner in found.by_base.values():
        check_labels(runner.spec, dataset.labels, Path(runner.row.file), dataset.source)
    if not found.items:
        raise DataError(
            f"{dataset.display_name} has no test images; bench measures on those alone: "
            "name other data with --data"
        )
    if baseline is not None and options.baseline is not None and not options.force:
        gates.check_comparable(baseline, options.baseline, found.describe())
    return found


def _weights(named: Path | None) -> Path:
    if named is not None and named.suffix in (".onnx", ".ort"):
        spec = read_spec(named)
        if "imported" in spec.trained_on:
            check_fp32(named, spec)
            return named
        raise ModelError(
            f"{named} is an exported file; --weights names the checkpoint beside it "
            "that it is compared with, --also names more exported files"
        )
    return find_checkpoint(named)


def _exported_files(weights: Path, also: Sequence[str]) -> list[Path]:
    """List the exported files of a run, `model.onnx` first, and those named with `--also`."""
    folder, more = weights.parent, [Path(str(find_model(name).path)) for name in also]
    if weights.suffix == ".onnx":  # imported: what lies beside it may be of other programs
        return [weights, *more]
    found = [path for path in folder.iterdir() if path.suffix in (".onnx", ".ort")]
    found.sort(key=lambda path: (path.name != "model.onnx", path.name))
    found += more
    if not found:
        raise ModelError(
            f"{folder} has no exported file to compare with PyTorch; make one with: "
            f"catdog-edge export --quantize --weights {weights}"
        )
    return found


def _check_names(rows: Sequence[BenchRow], max_ratio: Mapping[str, float]) -> None:
    """Check that row names are unique and that `--max-ratio` names existing rows."""
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1 and row.engine == "onnxruntime":
            raise ModelError(
                f"{row.file} would be the row {row.name}, and so would another file or PyTorch; "
                "name each file only once, and give files of the same name folders of different "
                "names"
            )
    for name in max_ratio:
        if name not in names:
            raise CatdogError(
                f"--max-ratio names {name}, which is no row of this run; the rows are: "
                f"{', '.join(names)}"
            )
        if rows[names.index(name)].is_reference:
            raise CatdogError(
                f"--max-ratio names {name}, which all others are compared with: its ratio is "
                "always 1; name another row"
            )


def _open(rows: Sequence[BenchRow], required: bool) -> tuple[list[Runner], list[dict[str, str]]]:
    """Open the rows; unless providers are `required`, those that do not start are left out."""
    runners: list[Runner] = []
    left_out: list[dict[str, str]] = []
    fixed_batches: dict[str, int | None] = {}
    for row in rows:
        try:
            runner = open_row(row)
        except CatdogError as error:
            on_gpu = row.engine == "pytorch" and row.device != "cpu"  # not requested
            optional = isinstance(error, ProviderError) and not required
            if not optional and not on_gpu and row.variant != "compile":
                raise
            left_out.append({"row": row.name, "reason": str(error)})
            continue
        fixed = runner.fixed_batch
        if fixed not in (None, row.batch):  # padded or split, its time would be of other calls
            fixed_batches[row.file] = fixed
            reason = f"the file takes {fixed} images a call, not {row.batch}: --batch {fixed}"
            left_out.append({"row": row.name, "reason": reason})
        elif row.batch > MOST_ON_CPU and (reason := _fails(runner)):
            left_out.append({"row": row.name, "reason": reason})
        else:
            runners.append(runner)
    for file in fixed_batches.keys() - {runner.row.file for runner in runners}:
        raise ModelError(
            f"{file} takes {fixed_batches[file]} images a call, which no row here has; give "
            f"--batch {fixed_batches[file]}, or export it without --batch"
        )
    return _with_reference(runners, left_out)


def _fails(runner: Runner) -> str:
    """Return why a row cannot run its batch, usually too little memory; empty if it can."""
    blank = np.zeros((*runner.spec.size, 3), np.uint8)
    try:
        runner.probabilities([blank] * runner.row.batch)
    except CatdogError as error:
        return str(error)
    return ""


def _with_reference(
    runners: Sequence[Runner], left_out: list[dict[str, str]]
) -> tuple[list[Runner], list[dict[str, str]]]:
    """Leave out the rows whose PyTorch row is, for instance because its batch did not fit."""
    compared = references([one.row for one in runners])
    for one in runners:
        if one.row.name not in compared:
            reason = f"there is no {' or '.join(one.row.references)} to compare it with"
            left_out.append({"row": one.row.name, "reason": reason})
    found = [one for one in runners if one.row.name in compared]
    if not found:
        raise CatdogError(f"no row can be measured: {left_out[0]['row']}: {left_out[0]['reason']}")
    return found, left_out


class _JoinedSource(Source):
    """Files of several sources, each under the name of its data set."""

    def __init__(self, files: Mapping[str, tuple[Source, str]]) -> None:
        self.name, self.entries, self._files = "", {}, files

    def frame(self, file: str, *, keep_damaged: bool = False) -> Image:
        source, name = self._files[file]
        return source.frame(name, keep_damaged=keep_damaged)


def _joined(datasets: Sequence[Dataset]) -> Dataset:
    """Join data sets of the same classes; a single one stays as it is."""
    if len(datasets) == 1:
        return datasets[0]
    files: dict[str, tuple[Source, str]] = {}
    items = []
    for one in datasets:
        for item in one.items:
            named = replace(item, file=f"{one.name}/{item.file}")
            files[named.file] = one.files, item.file
            items.append(named)
    return replace(
        datasets[0],
        source=list_names([one.display_name for one in datasets]),
        items=tuple(items),
        files=_JoinedSource(files),
        skipped=tuple(entry for one in datasets for entry in one.skipped),
        layout=", ".join(dict.fromkeys(one.layout for one in datasets)),
        notes=tuple(note for one in datasets for note in one.notes),
    )


def _originals(source: str, spec: ModelSpec, weights: Path) -> Dataset:
    """Return all images of another source, whatever their split."""
    how: Any = {"labels": spec.labels, "split": (0, 0, 100)}
    try:
        dataset = open_dataset(source, **how)
        check_labels(spec, dataset.labels, weights, dataset.source)
    except DataError as error:
        raise DataError(f"--originals: {str(error).replace('--data', '--originals')}") from error
    return dataset
