"""Ways to squash a frame: time, distance from a plain area filter, and accuracy.

    python -m benchmarks.studies.resize_rules PICTURES [--model M] [--size 128]

PICTURES is a folder or .zip of photographs at their original size, named `cat.N.jpg`, `dog.N.jpg`
or sorted into class folders. The figures are in docs/preprocessing.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np

from benchmarks.report.text import markdown_table
from benchmarks.studies.command_line import StudyParser
from catdog_edge import Classifier
from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import Image, resize
from catdog_edge.spec import ResizeStep, squash
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.evaluation.metrics import wilson
from exporters.checks.timing import compare

Steps = tuple[ResizeStep, ...]


def rules(size: int) -> dict[str, Steps]:
    """Return the candidates; the first is the reference of the others."""
    area = ResizeStep("area", size, size)

    def shrink(factor: int) -> ResizeStep:
        return ResizeStep("linear", factor * size, factor * size, shrink_only=True)

    return {
        "area": (area,),
        "linear": (ResizeStep("linear", size, size),),
        "linear to 2x, then linear": squash(size, size),
        "linear to 2x, then area": (shrink(2), area),
        "linear to 3x, then area": (shrink(3), area),
    }


def mosaic(frames: Sequence[Image]) -> Image:
    """Make a 1080p frame of twelve photographs, as sharp as a camera's, unlike an enlarged one."""
    tiles = [cv2.resize(frames[i % len(frames)], (480, 360)) for i in range(12)]
    stripes = [np.hstack(tiles[row : row + 4]) for row in (0, 4, 8)]
    return np.ascontiguousarray(np.vstack(stripes), dtype=np.uint8)


def levels(frames: Sequence[Image], steps: Steps, area: Steps) -> str:
    """Return the mean difference from the plain area filter, in grey levels."""
    differences = [
        np.abs(resize(frame, steps).astype(np.int16) - resize(frame, area)).mean()
        for frame in frames
    ]
    return f"{np.mean(differences):.2f}"


def report(options: argparse.Namespace) -> None:
    """Measure and print."""
    dataset = open_dataset(options.pictures)
    frames = [dataset.decode(item) for item in dataset.items]
    pets = Classifier(options.model, provider="cpu") if options.model else None
    if pets is not None and pets.spec.labels != dataset.labels:
        raise CatdogError(f"the pictures are of {dataset.labels}, the model of {pets.spec.labels}")
    size = pets.spec.height if pets is not None else options.size
    large = mosaic(frames)
    # About the size of a photograph of a data set.
    near = np.ascontiguousarray(large[: 3 * size // 2, : 3 * size // 2])
    candidates = rules(size)
    cv2.setNumThreads(1)
    calls = (
        {name: partial(resize, frame, steps) for name, steps in candidates.items()}
        for frame in (large, near)
    )
    timings = [compare(by_rule, options.seconds) for by_rule in calls]
    rows = []
    first: np.ndarray | None = None
    for name, steps in candidates.items():
        cells = [name, *(f"{1e3 * timing.rows[name].p50:.3f}" for timing in timings)]
        cells += [levels(shown, steps, candidates["area"]) for shown in ([large], frames)]
        if pets is not None:
            values = pets.probabilities(np.stack([resize(frame, steps) for frame in frames]))
            first = values if first is None else first
            answers = values.argmax(axis=1)
            right = int((answers == [item.label for item in dataset.items]).sum())
            low, high = wilson(right, len(frames))
            cells += [
                f"{right / len(frames):.1%} ({low:.1%} to {high:.1%})",
                str(int((answers != first.argmax(axis=1)).sum())),
                f"{float(np.abs(values - first).mean()):.4f}",
            ]
        rows.append(cells)
    heads = ["rule", "1080p frame, ms", f"{near.shape[1]}x{near.shape[0]} frame, ms"]
    heads += ["levels at 1080p", "levels on the photographs"]
    if pets is not None:
        heads += ["accuracy", "answers that change", "mean shift of a probability"]
    heights = sorted(frame.shape[0] for frame in frames)
    print(
        f"{len(frames)} photographs, median height {heights[len(heights) // 2]} pixels, to "
        f"{size}x{size}; one thread; OpenCV {cv2.__version__}"
    )
    print(markdown_table(heads, rows))


main = StudyParser("resize_rules", __doc__, report)
main.add_argument("pictures", help="a folder or .zip of photographs at full size")
main.add_argument("--model", help="adds accuracy: a .onnx file or a shipped model")
main.add_argument("--size", type=int, default=128, help="without --model (128)")
main.seconds(6.0, "of timing")

if __name__ == "__main__":
    sys.exit(main())
