"""What a finished run leaves behind: calibrated weights, figures, pictures, and a list to review.

Knows validation and training pictures; the test split is for `eval` and `bench` alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from catdog_edge import __version__
from catdog_edge.errors import CatdogError
from catdog_edge.spec import ModelSpec, Rejection
from catdog_edge.system.files import write_text
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.load import pixels
from catdog_edge.training.data.negatives import Negatives, drawn_negatives
from catdog_edge.training.engine.precision import autocast
from catdog_edge.training.engine.trainer import EpochRow, Labels, Pixels, Trainer
from catdog_edge.training.evaluation.calibration import fit_temperature
from catdog_edge.training.evaluation.evaluation import Evaluation, evaluate
from catdog_edge.training.evaluation.inference import known, logits, probabilities
from catdog_edge.training.evaluation.metrics import softmax
from catdog_edge.training.evaluation.rejection import (
    RejectionReport,
    Scores,
    choose_threshold,
    report,
)
from catdog_edge.training.models.checkpoint import load_checkpoint, save_checkpoint
from catdog_edge.training.runs.label_review import review, write_review_csv
from catdog_edge.training.runs.plots import Mistake, save_confusion, save_curves, save_mistakes
from catdog_edge.training.runs.progress import duration
from catdog_edge.training.runs.run_folder import Run

log = logging.getLogger(__name__)

SHOWN_MISTAKES = 30
"""Errors on the contact sheet; more does not fit a page that people look at."""

SURE = 0.9
"""How sure the network must be of another label to call one doubtful in `review.csv`."""

KEPT_METRICS = (
    "pictures",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "log_loss",
    "expected_calibration_error",
)
"""What of the evaluation travels with the weights."""


def finish(
    run: Run,
    dataset: Dataset,
    trainer: Trainer,
    val_files: Sequence[str],
    others: Negatives | None = None,
) -> None:
    """Calibrate the best weights and write all that a person wants to see of the run.

    Args:
        run: Where it goes.
        dataset: What was trained on.
        trainer: After its last epoch.
        val_files: Names of the validation pictures.
        others: Pictures of none of the classes, where the network was trained with some.

    Raises:
        CatdogError: A file cannot be read or written.
    """
    best, val = trainer.best_epoch(), trainer.val
    if best is None:
        raise CatdogError(f"{run.folder}: no epoch was trained; give --epochs 1 or more")
    network, spec = load_checkpoint(run.weights)
    every = logits(network, spec.normalization, val[0])
    values = every[:, : len(spec.labels)]
    spec = spec.replace(temperature=fit_temperature(values, val[1]))
    answers = softmax(values, spec.temperature)
    result = evaluate(answers, val[1], spec.labels)
    validation = result.to_dict()
    rejection: dict[str, RejectionReport] = {}
    if others is not None:
        scores = known(every)
        spec = spec.replace(rejection=Rejection("known", choose_threshold(scores)))
        rejection = _rejection(network, spec, scores, others)
    spec = spec.replace(
        trained_on={**spec.trained_on, "best_epoch": best.epoch},
        metrics={"validation": {name: validation[name] for name in KEPT_METRICS}},
    )
    save_checkpoint(run.weights, network.state_dict(), spec)

    _save_pictures(run.folder, dataset, trainer.rows, best, result, answers, val, val_files, spec)
    log.info(f"review    of {len(trainer.train[1]):,} training pictures ...")
    # At the network's own size, whatever size the training changed them at. The precision of
    # the training is good enough for a list of doubts, and quicker.
    on_train = pixels(dataset, "train", spec.resize)[0]
    with autocast(trainer.device, trainer.plan.precision):
        answers_on_train = probabilities(network, spec, on_train)
    suspects = review(dataset, {"train": answers_on_train, "val": answers}, spec.resize)
    # A network that hardly knows better than the labels has no right to doubt them.
    suspects = [one for one in suspects if one.why != "label" or one.confidence >= SURE]
    write_review_csv(run.folder / "review.csv", suspects)

    seconds = sum(row.seconds for row in trainer.rows)
    summary = {
        "run": run.name,
        "architecture": spec.architecture,
        "labels": spec.labels,
        "epochs": len(trainer.rows),
        "best": asdict(best),
        "seconds_of_training": round(seconds, 1),
        "precision": trainer.plan.precision,
        "temperature": spec.temperature,
        "validation": validation,
        "rejection": {name: one.to_dict() for name, one in rejection.items()},
        "tool_version": __version__,
    }
    write_text(run.folder / "summary.json", json.dumps(summary, indent=2))
    log.info(
        f"\ntrained in {duration(seconds)}; validation accuracy {result.accuracy:.2%} "
        f"(95 % interval {result.accuracy_low:.2%} to {result.accuracy_high:.2%}), "
        f"best of epoch {best.epoch}\n"
        + "".join(f"neither   {name}: {one}\n" for name, one in rejection.items())
        + f"weights   {run.weights}\n"
        f"pictures  {run.folder}: data.png, curves.png, confusion.png, mistakes.png\n"
        f"review    {run.folder}/review.csv: {len(suspects):,} doubtful labels and copies\n"
        f"next      catdog-edge eval; catdog-edge export --quantize; catdog-edge bench"
    )


def _rejection(
    network: nn.Module, spec: ModelSpec, scores: Scores, others: Negatives
) -> dict[str, RejectionReport]:
    """What the threshold does to other things of validation, and to drawings of nothing."""
    assert spec.rejection is not None
    sets = {"drawn": drawn_negatives(others.steps)}
    if others.dataset is not None:
        sets["others"] = others.photographs("val")
    return {
        name: report(
            scores, known(logits(network, spec.normalization, one)), spec.rejection.threshold
        )
        for name, one in sets.items()
    }


def _save_pictures(
    folder: Path,
    dataset: Dataset,
    rows: Sequence[EpochRow],
    best: EpochRow,
    result: Evaluation,
    answers: npt.NDArray[np.float32],
    val: tuple[Pixels, Labels],
    val_files: Sequence[str],
    spec: ModelSpec,
) -> None:
    save_curves(folder / "curves.png", rows, best, f"{spec.architecture} on {dataset.short_name}")
    save_confusion(
        folder / "confusion.png",
        np.array(result.confusion),
        spec.labels,
        f"validation: {result.accuracy:.2%} of {result.pictures:,}",
    )
    mistakes = _mistakes(answers, *val, val_files, spec)
    save_mistakes(
        folder / "mistakes.png",
        mistakes[:SHOWN_MISTAKES],
        f"{min(len(mistakes), SHOWN_MISTAKES)} of {len(mistakes)} errors on validation, "
        "the most confident first",
    )


def _mistakes(
    answers: npt.NDArray[np.float32],
    pictures: Pixels,
    truth: Labels,
    files: Sequence[str],
    spec: ModelSpec,
) -> list[Mistake]:
    answered = answers.argmax(axis=1)
    wrong = np.flatnonzero(answered != truth)
    ranked = wrong[np.argsort(-answers[wrong, answered[wrong]], kind="stable")]
    return [
        Mistake(
            picture=np.array(pictures[index]),
            file=files[index],
            truth=spec.labels[truth[index]],
            answer=spec.labels[answered[index]],
            confidence=float(answers[index, answered[index]]),
        )
        for index in ranked
    ]
