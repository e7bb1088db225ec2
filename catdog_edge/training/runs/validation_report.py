"""The end of a run: calibrated weights, figures, a summary, and labels to review.

Only validation and training images are used; the test split is for `eval` and `bench`.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import nn

from catdog_edge.errors import list_names
from catdog_edge.spec import ModelSpec, Rejection
from catdog_edge.system.files import write_text
from catdog_edge.system.version import __version__
from catdog_edge.training.array_types import Float32, Pixels
from catdog_edge.training.data.dataset import Dataset, Split
from catdog_edge.training.data.negatives import DRAWN, Negatives
from catdog_edge.training.data.open_dataset import pixels
from catdog_edge.training.data.source_groups import sources_of
from catdog_edge.training.engine.history import EpochMetrics
from catdog_edge.training.engine.precision import autocast
from catdog_edge.training.engine.trainer import Trainer
from catdog_edge.training.evaluation import rejection
from catdog_edge.training.evaluation.calibration import calibrated, fit_known_scale, fit_temperature
from catdog_edge.training.evaluation.classification_report import Evaluation, evaluate
from catdog_edge.training.evaluation.inference import known, logits, probabilities
from catdog_edge.training.evaluation.metrics import softmax
from catdog_edge.training.evaluation.rejection import RejectionReport
from catdog_edge.training.evaluation.source_report import (
    SourceResult,
    class_results,
    source_lines,
    with_answered,
)
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from catdog_edge.training.models.imagenet_head import calibrate_known, set_group_temperature
from catdog_edge.training.runs import plots
from catdog_edge.training.runs.label_review import review, write_review_csv
from catdog_edge.training.runs.progress import duration
from catdog_edge.training.runs.run_data import RunData
from catdog_edge.training.runs.run_folder import Run

log = logging.getLogger(__name__)

SHOWN_MISTAKES = 30  # mistakes in `mistakes.png`
AGREE = 1e-3  # differences of logits, relative to their range, that are rounding
CONFIDENT = 0.9  # confidence in another label from which on `review.csv` lists an image

SPEC_METRICS = (
    "pictures", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "log_loss",
    "expected_calibration_error",
)  # fmt: skip
"""Metrics that travel with the weights."""

GroupScores = dict[str, Float32]


@dataclass(frozen=True)
class _Validated:
    """The calibrated spec, and the results of the best weights on the validation images."""

    spec: ModelSpec
    probabilities: Float32
    result: Evaluation
    sources: tuple[SourceResult, ...]  # of the classes
    rejection: dict[str, RejectionReport]
    classes: GroupScores
    negatives: GroupScores


def finish(run: Run, data: RunData, trainer: Trainer) -> None:
    """Calibrate the weights of the best epoch in `best.pt`, and write figures and summary.

    Weights that it has calibrated before keep their calibration.
    The labels of the first data set are reviewed in `review.csv`.
    """
    best = trainer.best_epoch()
    assert best is not None
    network, spec = load_checkpoint(run.weights)
    if not _is_calibrated(spec):
        set_group_temperature(network, trainer.plan.recipe.group_temperature)
    validated = _validate(network, spec, trainer, data)
    spec = validated.spec.replace(
        trained_on={**validated.spec.trained_on, "best_epoch": best.epoch}
    )
    save_checkpoint(run.weights, network.state_dict(), spec)
    _save_figures(run.folder, data, trainer, validated, best)
    suspects = _review(run, data.datasets[0], network, trainer, validated)
    seconds = sum(one.seconds for one in trainer.history)
    result, rejected = validated.result, validated.rejection
    summary = {
        "run": run.name,
        "architecture": spec.architecture,
        "labels": spec.labels,
        "epochs": len(trainer.history),
        "best": asdict(best),
        "seconds_of_training": round(seconds, 1),
        "precision": trainer.plan.precision,
        "temperature": spec.temperature,
        "validation": result.to_dict(),
        "sources": [asdict(one) for one in validated.sources],
        "rejection": {name: asdict(one) for name, one in rejected.items()},
        "tool_version": __version__,
    }
    write_text(run.folder / "summary.json", json.dumps(summary, indent=2))
    shown = {name: one for name, one in rejected.items() if name in (DRAWN, "others")}
    lines = [
        f"kept      epoch {best.epoch} of {len(trainer.history)}: of those whose accuracy is the "
        "best within its standard error, the one with the lowest loss",
        *(f"neither   {name}: {one}" for name, one in shown.items()),
        f"weights   {run.weights}",
        f"plots     {run.folder}: data.png, curves.png, confusion.png"
        + ", mistakes.png" * (result.accuracy < 1)
        + ", roc.png" * bool(rejected),
        f"review    {run.folder}/review.csv: {suspects:,} doubtful labels and copies",
        "next      catdog-edge eval; catdog-edge export --quantize; catdog-edge bench",
    ]
    log.info(
        f"\ntrained in {duration(seconds)}: right on {100 * result.accuracy:.1f} % of "
        f"{result.pictures:,} validation images (95 % interval {100 * result.accuracy_low:.1f} to "
        f"{100 * result.accuracy_high:.1f} %)",
        extra={"style": {"bold": True}},
    )
    if len(validated.sources) > 1:
        lines = [*source_lines(validated.sources, "summary.json"), "", *lines]
    log.info("\n".join(lines))


def _review(
    run: Run, dataset: Dataset, network: nn.Module, trainer: Trainer, validated: _Validated
) -> int:
    """Write `review.csv`; return its number of rows."""
    log.info(f"review    of {len(trainer.data.train[1]):,} training images ...")
    # At the network's own size. The precision of the training is good enough here, and faster.
    spec = validated.spec
    on_train = pixels(dataset, "train", spec.resize)[0]
    with autocast(trainer.device, trainer.plan.precision):
        answers: dict[Split, Float32] = {
            "train": probabilities(network, spec, on_train, trainer.device, bar="review"),
            "val": validated.probabilities[: len(dataset.items_of("val"))],
        }
    suspects = review(dataset, answers, spec.resize)
    suspects = [one for one in suspects if one.why != "label" or one.confidence >= CONFIDENT]
    write_review_csv(run.folder / "review.csv", suspects)
    return len(suspects)


def _validate(network: nn.Module, spec: ModelSpec, trainer: Trainer, data: RunData) -> _Validated:
    """Fit temperatures and threshold, unless that is done, and evaluate."""
    images, truth = trainer.data.val
    sources = [name for one in data.datasets for name in sources_of(one, "val")]
    network.to(trainer.device)

    def compute(pixels: Pixels) -> Float32:
        return logits(network, spec.normalization, pixels, trainer.device, bar="validation")

    others: GroupScores = {}
    done, has_scale = _is_calibrated(spec), False
    if data.negatives is None or done:
        outputs = compute(images)
        if data.negatives is not None:
            others = rejection.negative_groups(data.negatives, "val", compute)
    else:
        outputs, others, has_scale = _calibrate(network, data.negatives, images, sources, compute)
        if not has_scale:
            log.warning(
                f"the head of {spec.architecture} is neither a linear layer nor the mean of "
                "several: known is not calibrated, and its threshold is chosen on it as it is"
            )
    values = outputs[:, : len(spec.labels)]
    temperature = spec.temperature if done else fit_temperature(values, truth)
    answers = softmax(values, temperature)
    result = evaluate(answers, truth, spec.labels)
    results = class_results(answers.argmax(axis=1) == truth, sources)
    metrics = result.to_dict()
    fitted = spec.replace(
        temperature=temperature,
        metrics={"validation": {name: metrics[name] for name in SPEC_METRICS}},
    )
    if data.negatives is None:
        return _Validated(fitted, answers, result, results, {}, {}, {})
    scores = known(outputs)
    classes = rejection.split_groups(scores, sources)
    negatives = {name: known(one) for name, one in others.items()}
    rule = rejection.ThresholdRule.parse(str(spec.trained_on.get("reject_at", "eer")))
    threshold = 0.5
    if done and spec.rejection is not None:
        threshold = spec.rejection.threshold
    elif rule.kind != "eer" or not has_scale:
        threshold = rejection.choose_score_threshold(classes, negatives, rule)
    reports = rejection.evaluate_groups(scores, negatives, threshold)
    fitted = fitted.replace(rejection=Rejection("known", threshold))
    results = with_answered(results, classes, threshold)
    return _Validated(fitted, answers, result, results, reports, classes, negatives)


def _is_calibrated(spec: ModelSpec) -> bool:
    """Check whether `finish` has written the weights: what it multiplied would be so again."""
    return "best_epoch" in spec.trained_on


def _calibrate(
    network: nn.Module,
    negatives: Negatives,
    images: Pixels,
    sources: Sequence[str],
    compute: Callable[[Pixels], Float32],
) -> tuple[Float32, GroupScores, bool]:
    """Calibrate the score `known` of a network, in place.

    Returns:
        The network's logits `float32 [N,K+1]` of the images, those of negatives by group, and
        whether the network is calibrated; else it is as it was.
    """
    outputs = compute(images)
    others = rejection.negative_groups(negatives, "val", compute)
    scale, shift = fit_known_scale(rejection.split_groups(outputs, sources), others)
    weights = copy.deepcopy(network.state_dict())
    calibrate_known(network, scale, shift)
    found, wanted = compute(images), calibrated(outputs, scale, shift)
    if np.abs(found - wanted).max() > AGREE * max(1.0, float(np.ptp(wanted))):
        network.load_state_dict(weights)
        return outputs, others, False
    # Through the network, as the images: what follows is of the scores that an exported file has.
    return found, rejection.negative_groups(negatives, "val", compute), True


def _save_figures(
    folder: Path, data: RunData, trainer: Trainer, validated: _Validated, best: EpochMetrics
) -> None:
    spec, result = validated.spec, validated.result
    title = f"{spec.architecture} on {list_names([one.short_name for one in data.datasets], 3)}"
    if spec.rejection is not None:
        threshold = spec.rejection.threshold
        plots.save_roc(folder / "roc.png", validated.classes, validated.negatives, threshold)
    plots.save_curves(folder / "curves.png", trainer.history, best, title)
    title = f"validation: {result.accuracy:.2%} of {result.pictures:,}"
    plots.save_confusion(folder / "confusion.png", result.confusion, spec.labels, title)
    images, truth = trainer.data.val
    answers = validated.probabilities
    answered = answers.argmax(axis=1)
    wrong = np.flatnonzero(answered != truth)
    ranked = wrong[np.argsort(-answers[wrong, answered[wrong]], kind="stable")]
    files = [item.file for one in data.datasets for item in one.items_of("val")]
    cells = []
    for index in ranked[:SHOWN_MISTAKES]:
        right, wrong_one = (spec.labels[one[index]] for one in (truth, answered))
        confidence = float(answers[index, answered[index]])
        caption = plots.mistake_caption(files[index], right, wrong_one, confidence)
        cells.append((np.array(images[index]), caption))
    count = f"{len(cells)} of {len(wrong)} error{'s' * (len(wrong) != 1)}"
    title = f"{count} on validation, the most confident first"
    plots.save_contact_sheet(folder / "mistakes.png", cells, title)
