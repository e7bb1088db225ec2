"""Accuracy of files under each corruption, from the file alone.

    python -m benchmarks.studies.corruption_accuracy fast accurate --data pets.zip [--other FILE]

Prints tables in Markdown, for the cards in `catdog_edge/zoo/`. Accuracy is that of the likeliest
class, rejection aside, on the test split, with its 95 % Wilson interval; beside it, the share that
is not rejected as `neither`. `--other` adds the share of out-of-class images that is rejected.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.measure.corruptions import CORRUPTIONS, Corruption
from benchmarks.measure.parity import ImageSet
from benchmarks.report.text import few, markdown_table
from benchmarks.studies.command_line import exit_code
from catdog_edge import Classifier
from catdog_edge.errors import DataError
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.open_dataset import open_dataset, open_negative_images
from catdog_edge.training.evaluation.metrics import wilson
from catdog_edge.training.runs.progress import ReadingProgress

CONDITIONS: dict[str, Corruption | None] = {
    "as they are": None,
    **{f"{one.name}: {one.says}": one for one in CORRUPTIONS},
}


def image_sets(dataset: Dataset) -> list[ImageSet]:
    """The test split under each condition."""
    items = dataset.items_of("test")
    return [ImageSet(name, dataset, items, one) for name, one in CONDITIONS.items()]


def share(right: int, of: int) -> str:
    """A percentage with its interval."""
    low, high = wilson(right, of)
    return f"{100 * right / of:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def rejected(pets: Classifier, images: ImageSet) -> int:
    """Number of images that are classified as `neither`."""
    if pets.reject is None:
        return 0
    return int((pets.scores(images.frames()) < pets.reject.threshold).sum())


def accuracy_rows(pets: Classifier, dataset: Dataset) -> list[list[str]]:
    """By condition: accuracy, and the share that is not rejected."""
    rows = []
    for images in image_sets(dataset):
        count = len(images.items)
        predicted = pets.probabilities(images.frames()).argmax(axis=1)
        right = int((predicted == images.truth).sum())
        answered = count - rejected(pets, images)
        rows.append([images.name, share(right, count), f"{100 * answered / count:.1f}"])
    return rows


def rejection_rows(pets: Classifier, dataset: Dataset) -> list[list[str]]:
    """By condition: the share that is rejected."""
    return [
        [images.name, share(rejected(pets, images), len(images.items))]
        for images in image_sets(dataset)
    ]


def report(options: argparse.Namespace) -> None:
    """Measure and print."""

    def show(title: str, heads: list[str], rows: list[list[str]]) -> None:
        print("\n".join(["", title, "", *markdown_table(heads, rows)]))

    for model in options.models:
        with Classifier(model, provider="cpu") as pets:
            labels, progress = pets.spec.labels, ReadingProgress()
            dataset = open_dataset(
                options.data, labels=labels, limit=options.limit, progress=progress
            )
            if dataset.labels != labels:
                raise DataError(
                    f"{dataset.source} has the classes {few(dataset.labels)}, {model} has "
                    f"{few(labels)}; name data with those"
                )
            count = len(dataset.items_of("test"))
            if not count:
                raise DataError(
                    f"{dataset.source} has no test pictures (of {options.limit or 'all'} that "
                    "were taken); name more data or a larger --limit"
                )
            heads = ["condition", "accuracy, %", "answered, %"]
            title = f"{model}: {count:,} test pictures of {options.data}"
            show(title, heads, accuracy_rows(pets, dataset))
            if options.other:
                others = open_negative_images(options.other, progress=ReadingProgress())
                title = f"{model}: {len(others.items_of('test')):,} of {options.other}"
                show(title, ["condition", "rejected, %"], rejection_rows(pets, others))


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", help="shipped models, or .onnx files")
    parser.add_argument("--data", required=True, help="a folder or .zip; its test split is used")
    parser.add_argument("--other", help="images that show none of the classes")
    parser.add_argument("--limit", type=int, help="take only so many images of --data")
    options = parser.parse_args(arguments)
    return exit_code("corruption_accuracy", lambda: report(options))


if __name__ == "__main__":
    sys.exit(main())
