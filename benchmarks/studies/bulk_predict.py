"""Images per second of `predict --out`, against a plain loop and against the decoder alone.

    python -m benchmarks.studies.bulk_predict --data DIR [--model M] [--images N] [--json FILE]

Interleaved, with the same number of threads: a plain loop of `imread`, resize and `session.run`;
`predict --out` with its rows written to disk, also with --reduce; and `imread` alone in as many
threads, which no program that decodes all pixels can beat. Memory is that of a process which
classifies the files over and over.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from benchmarks.measure.cold_start import resident_bytes
from benchmarks.measure.environment import Environment
from benchmarks.studies.command_line import StudyParser, keep
from catdog_edge import Classifier
from catdog_edge.bulk.classify_parts import ImageOptions, PartClassifier
from catdog_edge.bulk.parts import Part
from catdog_edge.bulk.results import Results
from catdog_edge.errors import CatdogError
from catdog_edge.images.find import find_images
from catdog_edge.images.preprocess import preprocess, to_layout
from catdog_edge.runtime.model_file import find_model
from exporters.checks.predictors import open_session
from exporters.checks.timing import Rounds, compare


def plain_loop(model: str, files: list[str], threads: int) -> Callable[[], object]:
    """Return a minimal loop that classifies files in sequence."""
    session = open_session(find_model(model).content, threads)
    name = session.get_inputs()[0].name
    with Classifier(model, "cpu", threads=1) as pets:
        spec = pets.spec

    def classify() -> None:
        for file in files:
            batch = to_layout(preprocess(cv2.imread(file), spec.resize)[None], spec.layout)
            session.run(None, {name: batch})

    return classify


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    files = [str(file) for file in find_images([options.data])][: options.images]
    if not Path(files[0]).is_file():
        raise CatdogError(f"there are no images in {options.data}; name a folder with --data")
    part = Part(0, "", files)
    document: dict[str, Any] = {"machine": asdict(Environment.detect()), "images": len(files)}
    with Classifier(options.model, "cpu", threads=1) as pets, tempfile.TemporaryDirectory() as out:
        results = Results(out, "jsonl", pets.spec.labels, {})
        ways = {
            name: PartClassifier(pets, options.threads, ImageOptions(reduce=reduce))
            for name, reduce in (("predict --out", False), ("predict --out --reduce", True))
        }
        threads = ways["predict --out"].threads

        def bulk(name: str) -> None:
            results.write(part, list(ways[name](part)))

        with ThreadPoolExecutor(threads) as pool:
            rivals: dict[str, Callable[[], object]] = {
                "plain loop": plain_loop(options.model, files, threads),
                **{name: partial(bulk, name) for name in ways},
                "decoder alone": lambda: any(pool.map(lambda one: cv2.imread(one) is None, files)),
            }
            timing = compare(
                rivals, options.seconds, Rounds(block_seconds=0, min_calls=1, warmup_calls=1)
            )
        print(f"{len(files)} images, {threads} threads, {timing.rounds} rounds, {pets!r}")
        for name, row in timing.rows.items():
            speed = timing.ratio("plain loop", to=name)
            print(f"{name:24} {len(files) / row.p50:8.1f} images/s, {speed} times the plain loop")
        print(f"of the decoder's rate: {timing.ratio('decoder alone', to='predict --out')}")
        document |= {"timing": timing.to_dict(), "threads": threads}
        memory = []
        for _ in range(options.memory_passes):
            bulk("predict --out")
            memory.append(resident_bytes() / 2**20)
        document["resident_mb"] = memory
        count = len(files) * len(memory)
        print(f"resident: {memory[0]:.1f} MB, after {count:,} images {memory[-1]:.1f} MB")
    keep(document, options.json)


main = StudyParser("bulk_predict", __doc__, run)
main.add_argument("--model", default="fast", help="a .onnx file or a shipped model")
main.add_argument("--data", required=True, help="a folder of photographs")
main.add_argument("--images", type=int, default=200, help="of the folder (200)")
main.add_argument("--memory-passes", type=int, default=20, help="over the images (20)")
main.threads("of every rival")
main.seconds(120.0, "of the comparison")
main.json()

if __name__ == "__main__":
    sys.exit(main())
