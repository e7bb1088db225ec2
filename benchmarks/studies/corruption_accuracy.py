"""Accuracy of files under each corruption, from the file alone.

    python -m benchmarks.studies.corruption_accuracy fast accurate --data pets.zip [--other FILE]

Prints tables in Markdown, for the cards in `catdog_edge/zoo/`. Accuracy is that of the likeliest
class, rejection aside, on the test split, with its 95 % Wilson interval; beside it, the share that
is not rejected as `neither`. `--other` adds the share of out-of-class images that is rejected.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.measure.corruptions import CORRUPTIONS
from benchmarks.measure.parity import ImageSet
from benchmarks.report.text import markdown_table
from benchmarks.studies.command_line import StudyParser
from catdog_edge import Classifier
from catdog_edge.errors import DataError
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.open_dataset import open_dataset, open_negative_images
from catdog_edge.training.evaluation.inference import check_labels
from catdog_edge.training.evaluation.metrics import wilson


def image_sets(dataset: Dataset) -> list[ImageSet]:
    """Return the test split as it is and under each corruption."""
    items = dataset.items_of("test")
    corrupted = [ImageSet(f"{one.name}: {one.says}", dataset, items, one) for one in CORRUPTIONS]
    return [ImageSet("as they are", dataset, items), *corrupted]


def share(right: int, of: int) -> str:
    """Format a percentage with its interval."""
    low, high = wilson(right, of)
    return f"{100 * right / of:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def rejected(pets: Classifier, images: ImageSet) -> int:
    """Count the images that are classified as `neither`."""
    if pets.reject is None:
        return 0
    return int((pets.scores(images.frames()) < pets.reject.threshold).sum())


def accuracy_row(pets: Classifier, images: ImageSet) -> list[str]:
    """Return condition, accuracy, and the share that is not rejected."""
    count, predicted = len(images.items), pets.probabilities(images.frames()).argmax(axis=1)
    answered = f"{100 * (count - rejected(pets, images)) / count:.1f}"
    return [images.name, share(int((predicted == images.truth).sum()), count), answered]


def report(options: argparse.Namespace) -> None:
    """Measure and print."""
    for model in options.models:
        with Classifier(model, provider="cpu") as pets:
            dataset = open_dataset(options.data, labels=pets.spec.labels, limit=options.limit)
            check_labels(pets.spec, dataset.labels, Path(model), dataset.source)
            sets = image_sets(dataset)
            if not sets[0].items:
                raise DataError(
                    f"{dataset.source} has no test images (of {options.limit or 'all'} that "
                    "were taken); name more data or a larger --limit"
                )
            print(f"\n{model}: {len(sets[0].items):,} test images of {options.data}\n")
            heads = ["condition", "accuracy, %", "answered, %"]
            rows = [accuracy_row(pets, images) for images in sets]
            print(markdown_table(heads, rows))
            if options.other:
                sets = image_sets(open_negative_images(options.other))
                count = len(sets[0].items)
                print(f"\n{model}: {count:,} of {options.other}\n")
                rows = [[one.name, share(rejected(pets, one), count)] for one in sets]
                print(markdown_table(["condition", "rejected, %"], rows))


main = StudyParser("corruption_accuracy", __doc__, report)
main.add_argument("models", nargs="+", help="shipped models, or .onnx files")
main.add_argument("--data", required=True, help="a folder or .zip; its test split is used")
main.add_argument("--other", help="images that show none of the classes")
main.add_argument("--limit", type=int, help="take only so many images of --data")

if __name__ == "__main__":
    sys.exit(main())
