"""What `catdog-edge eval` does, from options to figures. Words go to stderr."""

from __future__ import annotations

from pathlib import Path

from catdog_edge.training.data import open_dataset, pixels
from catdog_edge.training.evaluate import Evaluation, Weights, check_labels, evaluate
from catdog_edge.training.progress import Reading
from catdog_edge.training.runs import newest_run, run_of
from catdog_edge.training.words import say, source_name


def evaluate_weights(weights: Path | None, data: str | None) -> tuple[Evaluation, Path]:
    """Measure a checkpoint or an ONNX file on a test split.

    Args:
        weights: A `.pt` or `.onnx` file; `None` takes `best.pt` of the newest run.
        data: A folder, a `.zip` or `sample`; `None` takes the data and the split of the run
            that the weights lie in.

    Raises:
        CatdogError: Weights or data are missing, damaged, or do not fit each other.
    """
    run = run_of(weights) if weights else newest_run()
    path = weights or newest_run().weights
    model = Weights(path)
    if data is not None or run is None:
        dataset = open_dataset(data, progress=Reading())
    else:
        dataset = run.dataset(progress=Reading())
    check_labels(model.spec, dataset.labels, path, dataset.source)
    pictures, truth, _ = pixels(dataset, "test", model.spec.resize)
    say(f"eval: {path} on the {len(truth):,} test pictures of {source_name(dataset)}")
    return evaluate(model.probabilities(pictures), truth, model.spec.labels), path
