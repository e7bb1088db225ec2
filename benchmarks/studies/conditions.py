"""What shipped files answer on a bad day: accuracy under each corruption, from the file alone.

    python -m benchmarks.studies.conditions fast accurate --data cat_dog.zip [--other other.zip]

Prints tables in Markdown, for the cards in `catdog_edge/zoo/`. Accuracy is that of the top class,
rejection aside, on the test split of the data, with its 95 % Wilson interval; beside it, how many
pets are still answered where the model can say `neither`. `--other` adds how many pictures that
show none of the classes are rejected under the same corruptions: those that no training saw.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from benchmarks.measure.corruptions import CORRUPTIONS, Corruption, corrupt
from catdog_edge import Classifier
from catdog_edge.errors import CatdogError, DataError
from catdog_edge.images.preprocess import Image
from catdog_edge.training.data.dataset import Dataset, Item
from catdog_edge.training.data.load import open_dataset, open_negative_images
from catdog_edge.training.evaluation.metrics import wilson
from catdog_edge.training.runs.progress import ReadingProgress

CONDITIONS: dict[str, Corruption | None] = {
    "as they are": None,
    **{f"{one.name}: {one.says}": one for one in CORRUPTIONS},
}
"""What a card tells apart."""

CHUNK = 256
"""Pictures in memory at a time."""


def frames(
    dataset: Dataset, items: Sequence[Item], corruption: Corruption | None
) -> Iterator[Image]:
    """The pictures, spoiled or as they are: `uint8 [H,W,3]` BGR."""
    for item in items:
        frame = dataset.decode(item)
        yield frame if corruption is None else corrupt(corruption, frame, item.digest)


def share(right: int, of: int) -> str:
    """A percentage with its interval."""
    low, high = wilson(right, of)
    return f"{100 * right / of:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def pets_rows(pets: Classifier, dataset: Dataset) -> list[list[str]]:
    """By condition: accuracy, and the share of pets that are answered."""
    items = dataset.items_of("test")
    rows = []
    for name, corruption in CONDITIONS.items():
        right = answered = 0
        for first in range(0, len(items), CHUNK):
            part = items[first : first + CHUNK]
            spoiled = list(frames(dataset, part, corruption))
            truth = np.array([item.label for item in part])
            right += int((pets.probabilities(spoiled).argmax(axis=1) == truth).sum())
            answered += len(part) - rejected(pets, spoiled)
        rows.append([name, share(right, len(items)), f"{100 * answered / len(items):.1f}"])
    return rows


def others_rows(pets: Classifier, dataset: Dataset) -> list[list[str]]:
    """By condition: the share that is rejected."""
    items = dataset.items_of("test")
    return [
        [name, share(rejected(pets, frames(dataset, items, corruption)), len(items))]
        for name, corruption in CONDITIONS.items()
    ]


def rejected(pets: Classifier, pictures: Iterable[Image]) -> int:
    """How many are answered with `neither`."""
    if pets.reject is None:
        return 0
    return int((pets.scores(pictures) < pets.reject.threshold).sum())


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", help="shipped models, or .onnx files")
    parser.add_argument("--data", required=True, help="a folder or .zip; its test split is asked")
    parser.add_argument("--other", help="pictures that show none of the classes")
    parser.add_argument("--limit", type=int, help="take only so many pictures of --data")
    options = parser.parse_args(arguments)
    try:
        for model in options.models:
            with Classifier(model, provider="cpu") as pets:
                dataset = open_dataset(
                    options.data,
                    labels=pets.spec.labels,
                    limit=options.limit,
                    progress=ReadingProgress(),
                )
                if dataset.labels != pets.spec.labels:
                    raise DataError(
                        f"{dataset.source} has the classes {', '.join(dataset.labels)}, {model} "
                        f"tells {', '.join(pets.spec.labels)} apart; name data with those"
                    )
                count = len(dataset.items_of("test"))
                if not count:
                    raise DataError(
                        f"{dataset.source} has no test pictures (of {options.limit or 'all'} that "
                        "were taken); name more data or a larger --limit"
                    )
                print(f"\n{model}: {count:,} test pictures of {options.data}\n")
                print(table(["condition", "accuracy, %", "answered, %"], pets_rows(pets, dataset)))
                if options.other:
                    others = open_negative_images(options.other, progress=ReadingProgress())
                    print(f"\n{model}: {len(others.items_of('test')):,} of {options.other}\n")
                    print(table(["condition", "rejected, %"], others_rows(pets, others)))
    except CatdogError as error:
        print(f"conditions: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
