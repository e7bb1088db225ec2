"""Which way of squashing a frame: time, distance from a plain area filter, and accuracy.

    python -m benchmarks.studies.resize_rules PICTURES [--model M] [--size 128]

PICTURES is a folder or .zip of photographs at their original size, named `cat.N.jpg`, `dog.N.jpg`
or sorted into class folders. Its figures are in docs/preprocessing.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from catdog_edge import Classifier
from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import Image, resize
from catdog_edge.spec import ResizeStep, squash
from catdog_edge.training.data.load import open_dataset
from catdog_edge.training.evaluation.metrics import wilson
from exporters.checks.timing import compare


def rules(size: int) -> dict[str, tuple[ResizeStep, ...]]:
    """The candidates, by name; the first is what the others are compared with."""
    return {
        "area": (ResizeStep("area", size, size),),
        "linear": (ResizeStep("linear", size, size),),
        "linear to 2x, then linear": squash(size, size),
        "linear to 2x, then area": (
            ResizeStep("linear", 2 * size, 2 * size, shrink_only=True),
            ResizeStep("area", size, size),
        ),
        "linear to 3x, then area": (
            ResizeStep("linear", 3 * size, 3 * size, shrink_only=True),
            ResizeStep("area", size, size),
        ),
    }


def mosaic(frames: Sequence[Image], height: int = 1080, width: int = 1920) -> Image:
    """A frame of many photographs side by side: as sharp as a camera's own.

    One photograph blown up to the size would be smoother than what a camera sees.
    """
    rows, columns = 3, 4
    tiles = [
        cv2.resize(frames[i % len(frames)], (width // columns, height // rows))
        for i in range(rows * columns)
    ]
    stripes = [np.hstack(tiles[row * columns : (row + 1) * columns]) for row in range(rows)]
    return np.ascontiguousarray(np.vstack(stripes), dtype=np.uint8)


def levels(frames: Iterable[Image], steps: Sequence[ResizeStep], size: int) -> tuple[float, int]:
    """Mean and largest difference from the plain area filter, in grey levels."""
    whole = (ResizeStep("area", size, size),)
    differences = [
        np.abs(resize(frame, steps).astype(np.int16) - resize(frame, whole)) for frame in frames
    ]
    mean = float(np.mean([difference.mean() for difference in differences]))
    return mean, max(int(difference.max()) for difference in differences)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", help="a folder or .zip of photographs at full size")
    parser.add_argument("--model", help="adds accuracy: a .onnx file or a shipped model")
    parser.add_argument("--size", type=int, default=128, help="without --model")
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing")
    options = parser.parse_args(arguments)
    dataset = open_dataset(options.pictures)
    frames = [dataset.decode(item) for item in dataset.items]
    pets = Classifier(options.model, provider="cpu") if options.model else None
    if pets is not None and pets.spec.labels != dataset.labels:
        raise CatdogError(f"the pictures are of {dataset.labels}, the model of {pets.spec.labels}")
    size = pets.spec.height if pets is not None else options.size
    large = mosaic(frames)
    candidates = rules(size)
    # What the region of a still camera or a photograph of a data set may have.
    near = np.ascontiguousarray(large[: 3 * size // 2, : 3 * size // 2])
    cv2.setNumThreads(1)
    timings = [
        compare(
            {name: lambda s=steps, f=frame: resize(f, s) for name, steps in candidates.items()},  # type: ignore[misc]
            options.seconds,
        )
        for frame in (large, near)
    ]
    heights = sorted(frame.shape[0] for frame in frames)
    print(
        f"{len(frames)} photographs, median height {heights[len(heights) // 2]} pixels, to "
        f"{size}x{size}; one thread; OpenCV {cv2.__version__}"
    )
    print(
        f"| rule | 1080p frame, ms | {near.shape[1]}x{near.shape[0]} frame, ms | levels at 1080p "
        "| levels on the photographs | accuracy | answers that change "
        "| mean shift of a probability |"
    )
    print("|---|---|---|---|---|---|---|---|")
    plain: np.ndarray | None = None
    for name, steps in candidates.items():
        at_large, own = levels([large], steps, size)[0], levels(frames, steps, size)[0]
        accuracy = changed = shift = "-"
        if pets is not None:
            pixels = np.stack([resize(frame, steps) for frame in frames])
            values = pets.probabilities(pixels)
            plain = values if plain is None else plain
            answers = values.argmax(axis=1)
            right = int((answers == [item.label for item in dataset.items]).sum())
            changed = str(int((answers != plain.argmax(axis=1)).sum()))
            shift = f"{float(np.abs(values - plain).mean()):.4f}"
            low, high = wilson(right, len(frames))
            accuracy = f"{right / len(frames):.1%} ({low:.1%} to {high:.1%})"
        p50 = [f"{1e3 * timing.rows[name].p50:.3f}" for timing in timings]
        cells = [name, *p50, f"{at_large:.2f}", f"{own:.2f}", accuracy, changed, shift]
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
