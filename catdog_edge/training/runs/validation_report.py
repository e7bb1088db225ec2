"""The end of a run: calibrated weights, figures, a summary, and labels to review.

Only validation and training images are used; the test split is for `eval` and `bench`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from catdog_edge import __version__
from catdog_edge.errors import list_names
from catdog_edge.spec import ModelSpec, Rejection
from catdog_edge.system.files import write_text
from catdog_edge.training.data.dataset import Dataset, Split
from catdog_edge.training.data.negatives import DRAWN, Negatives, drawn_negatives
from catdog_edge.training.data.open_dataset import pixels
from catdog_edge.training.data.source_groups import sources_of
from catdog_edge.training.engine.history import EpochMetrics
from catdog_edge.training.engine.precision import autocast
from catdog_edge.training.engine.trainer import Pixels, Trainer
from catdog_edge.training.evaluation.calibration import fit_temperature
from catdog_edge.training.evaluation.classification_report import Evaluation, evaluate
from catdog_edge.training.evaluation.inference import known, logits, probabilities
from catdog_edge.training.evaluation.metrics import softmax
from catdog_edge.training.evaluation.rejection import (
    RejectionReport,
    Scores,
    ThresholdRule,
    calibrated,
    choose_threshold,
    evaluate_threshold,
    fit_known_scale,
    split_groups,
)
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from catdog_edge.training.models.imagenet_head import calibrate_known
from catdog_edge.training.runs.label_review import review, write_review_csv
from catdog_edge.training.runs.plots import (
    Mistake,
    save_confusion,
    save_curves,
    save_mistakes,
    save_roc,
)
from catdog_edge.training.runs.progress import duration
from catdog_edge.training.runs.run_folder import Run

log = logging.getLogger(__name__)

SHOWN_MISTAKES = 30
"""Mistakes in `mistakes.png`."""

CONFIDENT = 0.9
"""Confidence in another label from which on `review.csv` lists an image."""

SPEC_METRICS = (
    "pictures",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "log_loss",
    "expected_calibration_error",
)
"""Metrics that travel with the weights."""


@dataclass(frozen=True)
class _Validated:
    """The calibrated spec, and what the best weights do on the validation images."""

    spec: ModelSpec
    probabilities: npt.NDArray[np.float32]
    result: Evaluation
    rejection: dict[str, RejectionReport]
    groups: tuple[dict[str, Scores], dict[str, Scores]]


def finish(
    run: Run, datasets: Sequence[Dataset], trainer: Trainer, negatives: Negatives | None
) -> None:
    """Calibrate the best weights and write figures, summary and review of a run.

    Args:
        run: The run folder.
        datasets: What was trained on; the review is of the first.
        trainer: After its last epoch.
        negatives: What the network was trained with, if anything.

    Raises:
        CatdogError: A file cannot be read or written.
    """
    best = trainer.best_epoch()
    assert best is not None
    network, spec = load_checkpoint(run.weights)
    names = [name for one in datasets for name in sources_of(one, "val")]
    validated = _validate(network, spec, trainer, names, negatives, best)
    spec, result = validated.spec, validated.result
    save_checkpoint(run.weights, network.state_dict(), spec)
    _save_figures(run.folder, datasets, trainer, validated, best)
    dataset = datasets[0]

    log.info(f"review    of {len(trainer.data.train[1]):,} training pictures ...")
    # At the network's own size. The precision of the training is good enough here, and faster.
    on_train = pixels(dataset, "train", spec.resize)[0]
    with autocast(trainer.device, trainer.plan.precision):
        answers: dict[Split, npt.NDArray[np.float32]] = {
            "train": probabilities(network, spec, on_train, device=trainer.device),
            "val": validated.probabilities[: len(dataset.items_of("val"))],
        }
    suspects = review(dataset, answers, spec.resize)
    suspects = [one for one in suspects if one.why != "label" or one.confidence >= CONFIDENT]
    write_review_csv(run.folder / "review.csv", suspects)

    seconds = sum(one.seconds for one in trainer.history)
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
        "rejection": {name: one.to_dict() for name, one in validated.rejection.items()},
        "tool_version": __version__,
    }
    write_text(run.folder / "summary.json", json.dumps(summary, indent=2))
    log.info(
        f"\ntrained in {duration(seconds)}; validation accuracy {result.accuracy:.2%} "
        f"(95 % interval {result.accuracy_low:.2%} to {result.accuracy_high:.2%}), "
        f"best of epoch {best.epoch}\n"
        + "".join(
            f"neither   {name}: {one}\n"
            for name, one in validated.rejection.items()
            if name in (DRAWN, "others")
        )
        + f"weights   {run.weights}\n"
        f"pictures  {run.folder}: data.png, curves.png, confusion.png, mistakes.png"
        + ", roc.png"
        * bool(validated.rejection)
        + "\n"
        f"review    {run.folder}/review.csv: {len(suspects):,} doubtful labels and copies\n"
        f"next      catdog-edge eval; catdog-edge export --quantize; catdog-edge bench"
    )


def _validate(
    network: nn.Module,
    spec: ModelSpec,
    trainer: Trainer,
    sources: Sequence[str],
    negatives: Negatives | None,
    best: EpochMetrics,
) -> _Validated:
    """Fit temperatures and threshold, and evaluate."""
    images, truth = trainer.data.val
    network.to(trainer.device)

    def compute(pixels: Pixels) -> npt.NDArray[np.float32]:
        return logits(network, spec.normalization, pixels, device=trainer.device)

    outputs = compute(images)
    others: dict[str, npt.NDArray[np.float32]] = {}
    if negatives is not None:
        others = _by_group(compute, negatives)
        scale, shift = fit_known_scale(split_groups(outputs, sources), others)
        calibrate_known(network, scale, shift)
        outputs = compute(images)
        others = {name: calibrated(values, scale, shift) for name, values in others.items()}
    values = outputs[:, : len(spec.labels)]
    spec = spec.replace(temperature=fit_temperature(values, truth))
    answers = softmax(values, spec.temperature)
    result = evaluate(answers, truth, spec.labels)
    rejection: dict[str, RejectionReport] = {}
    groups: tuple[dict[str, Scores], dict[str, Scores]] = ({}, {})
    if negatives is not None:
        scores = known(outputs)
        groups = split_groups(scores, sources), {n: known(one) for n, one in others.items()}
        rule = ThresholdRule.parse(str(spec.trained_on.get("reject_at", "eer")))
        threshold = 0.5 if rule.kind == "eer" else choose_threshold(*groups, rule)
        spec = spec.replace(rejection=Rejection("known", threshold))
        sets = dict(groups[1])
        if len(sets) > 1:
            sets["others"] = np.concatenate([one for name, one in sets.items() if name != DRAWN])
        rejection = {n: evaluate_threshold(scores, one, threshold) for n, one in sets.items()}
    metrics = result.to_dict()
    spec = spec.replace(
        trained_on={**spec.trained_on, "best_epoch": best.epoch},
        metrics={"validation": {name: metrics[name] for name in SPEC_METRICS}},
    )
    return _Validated(spec, answers, result, rejection, groups)


def _by_group(
    compute: Callable[[Pixels], npt.NDArray[np.float32]], negatives: Negatives
) -> dict[str, npt.NDArray[np.float32]]:
    """Compute the logits of the negatives of validation, by kind and source."""
    found = {DRAWN: compute(drawn_negatives(negatives.steps))}
    photographs = negatives.photographs("val")
    if len(photographs):
        found |= split_groups(compute(photographs), negatives.groups("val"))
    return found


def _save_figures(
    folder: Path,
    datasets: Sequence[Dataset],
    trainer: Trainer,
    validated: _Validated,
    best: EpochMetrics,
) -> None:
    spec, result = validated.spec, validated.result
    title = f"{spec.architecture} on {list_names([one.short_name for one in datasets], 3)}"
    if spec.rejection is not None:
        save_roc(folder / "roc.png", *validated.groups, spec.rejection.threshold)
    save_curves(folder / "curves.png", trainer.history, best, title)
    save_confusion(
        folder / "confusion.png",
        result.confusion,
        spec.labels,
        f"validation: {result.accuracy:.2%} of {result.pictures:,}",
    )
    images, truth = trainer.data.val
    answers = validated.probabilities
    answered = answers.argmax(axis=1)
    wrong = np.flatnonzero(answered != truth)
    ranked = wrong[np.argsort(-answers[wrong, answered[wrong]], kind="stable")]
    files = [item.file for one in datasets for item in one.items_of("val")]
    mistakes = [
        Mistake(
            picture=np.array(images[index]),
            file=files[index],
            truth=spec.labels[truth[index]],
            answer=spec.labels[answered[index]],
            confidence=float(answers[index, answered[index]]),
        )
        for index in ranked[:SHOWN_MISTAKES]
    ]
    save_mistakes(
        folder / "mistakes.png",
        mistakes,
        f"{len(mistakes)} of {len(wrong)} errors on validation, the most confident first",
    )
