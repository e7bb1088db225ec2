"""`catdog-edge eval`: accuracy, calibration and rejection on the test split."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from catdog_edge.errors import CatdogError, DataError, escaped, list_names
from catdog_edge.runtime.model_file import find_model, shipped_models
from catdog_edge.spec import ModelSpec
from catdog_edge.system.console import align
from catdog_edge.training.array_types import Float32
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.negatives import DRAWN, Negatives, negatives_split, open_negatives
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.data.source_groups import combined_pixels, held_out
from catdog_edge.training.data.source_names import told_apart
from catdog_edge.training.data.splits import split_of
from catdog_edge.training.evaluation import rejection
from catdog_edge.training.evaluation.classification_report import (
    TABLE_CLASSES,
    WORST,
    Evaluation,
    evaluate,
    shorten_label,
)
from catdog_edge.training.evaluation.inference import EvaluatedModel, check_labels
from catdog_edge.training.evaluation.rejection import RejectionReport, ThresholdRow
from catdog_edge.training.evaluation.source_report import (
    SourceResult,
    class_results,
    share,
    source_lines,
    with_answered,
)
from catdog_edge.training.runs.plots import save_roc
from catdog_edge.training.runs.run_folder import Run, find_checkpoint, run_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationReport:
    """Result of `catdog-edge eval`; the last three are empty without negatives."""

    path: Path
    result: Evaluation
    sources: tuple[SourceResult, ...]
    rejection: dict[str, RejectionReport] = field(default_factory=dict)  # by set of negatives
    answered: dict[str, float] = field(default_factory=dict)  # the share of each class
    thresholds: tuple[ThresholdRow, ...] = ()  # see `threshold_table`

    def to_dict(self) -> dict[str, Any]:
        """Convert to types of JSON."""
        return {
            "weights": str(self.path),
            **self.result.to_dict(),
            "rejection": {name: asdict(one) for name, one in self.rejection.items()},
            "answered": self.answered,
            "sources": [asdict(one) for one in self.sources],
            "thresholds": [asdict(one) for one in self.thresholds],
        }

    def __str__(self) -> str:
        lines = [str(self.result), *(f"neither     {n}: {r}" for n, r in self.rejection.items())]
        if self.answered:
            shares = list(self.answered.items())
            worst = ""
            if len(shares) > TABLE_CLASSES:
                shares = sorted(shares, key=lambda pair: pair[1])[:WORST]
                worst = f"worst of {len(self.answered):,} classes: "
            listed = ", ".join(f"{shorten_label(name)} {one:.2%}" for name, one in shares)
            lines.append(f"answered    {worst}{listed}")
        if len(self.sources) > 1:
            lines += ["", *source_lines(self.sources, "--json")]
        if self.thresholds:
            lines += ["", *_threshold_lines(self.thresholds)]
        return "\n".join(lines)


def _threshold_lines(table: Sequence[ThresholdRow]) -> list[str]:
    """Format the trade-off: the classes and kinds of negatives, each the mean of its sources.

    The worst source is in brackets.
    """
    kinds: dict[str, list[str]] = {}
    for name in table[0].negatives:
        kinds.setdefault(name.split("/")[0], []).append(name)
    rows = [["threshold", "the classes", *map(escaped, kinds)]]
    values = [row.threshold for row in table]
    # To pass one to --reject, the reader has to see how the rows differ.
    digits = next(n for n in range(4, 18) if len({f"{v:.{n}g}" for v in values}) == len(values))
    for row in table:
        shares = [list(row.classes.values())]
        shares += [[row.negatives[name] for name in names] for names in kinds.values()]
        worst = [min(shares[0]), *map(max, shares[1:])]
        cells = [
            f"{100 * fmean(each):.1f}" + f" ({100 * one:.1f})" * (len(each) > 1)
            for each, one in zip(shares, worst, strict=True)
        ]
        rows.append([f"{row.threshold:.{digits}g}", *cells])
    title = "answered with a class, %, at other thresholds (mean of the sources; the worst)"
    return [title, *align(rows)]


def evaluate_weights(
    weights: Path | None,
    data: Sequence[str] = (),
    other: Sequence[str] = (),
    plot: Path | None = None,
) -> EvaluationReport:
    """Evaluate a model on the test split, and on every image of sources left out of training.

    Args:
        weights: A `.pt` or `.onnx` file, a run folder, or the name of a shipped model; `None`
            is `best.pt` of the newest run.
        data: Folders, `.zip`s or `sample`; if empty, the data and the split of the run that
            contains the weights.
        other: Negatives, see `open_negatives`; if empty, those of the run. Only their test
            split is used.
        plot: A `.png` file for a plot of the trade-off.

    Raises:
        CatdogError: Weights or data are missing, damaged, or do not match; a plot without
            negatives.

    Examples:
        >>> print(evaluate_weights(Path("runs/mine/best.pt")))
    """
    path, run = _find_weights(weights)
    other = other or (run.negatives if run is not None and not data else ())
    if plot is not None and not other:
        raise CatdogError("--plot needs --other: it draws how negatives and classes are separated")
    model = EvaluatedModel(path)
    spec = model.spec
    left_out = [str(one) for one in spec.trained_on.get("left_out") or ()]
    # With the images that the run used, which are in their splits.
    keep_damaged = run is not None and run.keep_damaged
    datasets = _open_datasets(data, run, spec, left_out, keep_damaged)
    for dataset in datasets:
        check_labels(spec, dataset.labels, path, dataset.source)
    images, truth, names = combined_pixels(datasets, "test", spec.resize)
    where = list_names([one.display_name for one in datasets])
    if not names:
        raise DataError(f"{where}: there are no test images; name data that has some with --data")
    log.info(f"eval: {path} on the {len(truth):,} test images of {where}")
    predicted = model.probabilities(images)
    report = EvaluationReport(
        path,
        evaluate(predicted, truth, spec.labels),
        class_results(predicted.argmax(axis=1) == truth, names, left_out),
    )
    negatives = _open_negatives(other, spec, left_out, keep_damaged)
    if negatives is None:
        return report
    if spec.rejection is None:
        raise CatdogError(
            f"{path} was trained without --other: it has no threshold to measure; train again "
            "with --other, or leave it out here"
        )
    threshold, scores = spec.rejection.threshold, model.scores(images)
    of_label = rejection.split_groups(scores >= threshold, [spec.labels[i] for i in truth])
    answered = {name: float(of_label[name].mean()) for name in spec.labels if name in of_label}
    classes = rejection.split_groups(scores, names)
    others = rejection.negative_groups(negatives, "test", model.scores)
    if plot is not None:
        save_roc(plot, classes, others, threshold)
    return replace(_with_rejection(report, classes, others, threshold, left_out), answered=answered)


def _with_rejection(
    report: EvaluationReport,
    classes: Mapping[str, Float32],
    others: Mapping[str, Float32],
    threshold: float,
    left_out: Sequence[str],
) -> EvaluationReport:
    """Add the metrics of a threshold, from scores of the classes and of negatives by group."""
    rows = [*with_answered(report.sources, classes, threshold)]
    for name, scores in others.items():
        held_back = name.partition("/")[2] in left_out
        rows.append(SourceResult(name, len(scores), held_back, None, share(scores >= threshold)))
    reports = rejection.evaluate_groups(np.concatenate([*classes.values()]), others, threshold)
    return replace(
        report,
        sources=tuple(rows),
        rejection={name: one for name, one in reports.items() if name in (DRAWN, "others")},
        thresholds=tuple(rejection.threshold_table(classes, others, threshold)),
    )


def _open_negatives(
    other: Sequence[str], spec: ModelSpec, left_out: Sequence[str], keep_damaged: bool
) -> Negatives | None:
    split = negatives_split(spec.trained_on)
    negatives = open_negatives(other, spec.resize, split, keep_damaged)
    if negatives is not None:
        named = told_apart(negatives.datasets, left_out)
        datasets = tuple(held_out(one, left_out) for one in named)
        negatives = replace(negatives, datasets=datasets)
        for dataset in datasets:
            dataset.log_summary()
    return negatives


def _find_weights(weights: Path | None) -> tuple[Path, Run | None]:
    """Find the file of weights, and the run that contains it."""
    if str(weights) in shipped_models():
        weights = find_model(str(weights)).path or weights
    if weights is None or weights.is_dir():
        weights = find_checkpoint(weights)
    return weights, run_of(weights)


def _open_datasets(
    data: Sequence[str],
    run: Run | None,
    spec: ModelSpec,
    left_out: Sequence[str],
    keep_damaged: bool,
) -> tuple[Dataset, ...]:
    if not data and run is not None:
        return tuple(held_out(one, left_out) for one in run.opened())
    # Split as it was for the training, so that no training image is tested on.
    split = split_of(spec.trained_on)
    how: dict[str, Any] = {
        "labels": spec.labels if data else None, "split": split,
        "required": ("test",) if len(data) < 2 else (), "keep_damaged": keep_damaged,
    }  # fmt: skip
    opened = [open_dataset(source, **how) for source in (data or (None,))]
    return tuple(held_out(one, left_out) for one in told_apart(opened, left_out))
