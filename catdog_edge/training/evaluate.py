"""`catdog-edge eval`: accuracy, calibration and rejection on the test split."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catdog_edge.errors import CatdogError
from catdog_edge.runtime.model_file import find_model, shipped_models
from catdog_edge.system.console import plain
from catdog_edge.training.data.load import open_dataset, pixels
from catdog_edge.training.data.negatives import drawn_negatives, open_negatives
from catdog_edge.training.data.splits import split_of
from catdog_edge.training.evaluation.evaluation import Evaluation, Predictor, check_labels, evaluate
from catdog_edge.training.evaluation.rejection import RejectionReport, evaluate_threshold
from catdog_edge.training.runs.progress import ReadingProgress
from catdog_edge.training.runs.run_folder import newest_run, run_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationReport:
    """Result of `catdog-edge eval`.

    Attributes:
        path: The file.
        result: Accuracy and calibration.
        rejection: Rejection of negatives, by set; empty where there were none.
        answered: The share of each class that is not rejected; empty where there were no
            negatives.
    """

    path: Path
    result: Evaluation
    rejection: dict[str, RejectionReport]
    answered: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rejection = {name: one.to_dict() for name, one in self.rejection.items()}
        return {
            "weights": str(self.path),
            **self.result.to_dict(),
            "rejection": rejection,
            "answered": self.answered,
        }

    def __str__(self) -> str:
        lines = [str(self.result), *(f"neither     {n}: {r}" for n, r in self.rejection.items())]
        if self.answered:
            shares = ", ".join(f"{plain(name)} {one:.2%}" for name, one in self.answered.items())
            lines.append(f"answered    {shares}")
        return "\n".join(lines)


def evaluate_weights(weights: Path | None, data: str | None, other: str | None) -> EvaluationReport:
    """Evaluate a checkpoint or an ONNX file on a test split.

    Args:
        weights: A `.pt` or `.onnx` file, or the name of a shipped model; `None` takes `best.pt`
            of the newest run.
        data: A folder, a `.zip` or `sample`; `None` takes the data and the split of the run
            that the weights lie in.
        other: Negatives, see `open_negatives`; `None` takes those of the run. Only their test
            half is used.

    Raises:
        CatdogError: Weights or data are missing, damaged, or do not fit each other.

    Example:
        >>> print(evaluate_weights(Path("runs/mine/best.pt"), None, None))
    """
    if weights is not None and str(weights) in shipped_models():
        weights = find_model(str(weights)).path
    run = run_of(weights) if weights else newest_run()
    path = weights or newest_run().weights
    model = Predictor(path)
    progress = ReadingProgress()
    if data is not None or run is None:
        # Split as it was for the training, so that no training image is tested on.
        dataset = open_dataset(data, split=split_of(model.spec.trained_on), progress=progress)
    else:
        dataset = run.dataset(progress=progress)
    check_labels(model.spec, dataset.labels, path, dataset.source)
    images, truth, _ = pixels(dataset, "test", model.spec.resize)
    log.info(f"eval: {path} on the {len(truth):,} test pictures of {dataset.display_name}")
    result = evaluate(model.probabilities(images), truth, model.spec.labels)
    if other is None and data is None and run is not None:
        other = run.args().get("other")
    negatives = open_negatives(other, model.spec.resize, progress)
    if negatives is None:
        return EvaluationReport(path, result, {}, {})
    negatives.log_summary()
    if model.spec.rejection is None:
        raise CatdogError(
            f"{path} was trained without --other: it has no threshold to measure; train again "
            "with --other, or leave it out here"
        )
    threshold, scores = model.spec.rejection.threshold, model.scores(images)
    sets = {"drawn": drawn_negatives(negatives.steps)}
    if negatives.dataset is not None:
        sets["others"] = negatives.photographs("test")
    reports = {
        name: evaluate_threshold(scores, model.scores(one), threshold) for name, one in sets.items()
    }
    answered = {
        label: float((scores[truth == index] >= threshold).mean())
        for index, label in enumerate(model.spec.labels)
        if (truth == index).any()
    }
    return EvaluationReport(path, result, reports, answered)
