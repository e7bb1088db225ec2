"""Cost of `Classifier` over the session that it wraps: time, cold start, memory, spinning.

    python -m benchmarks.studies.classifier_overhead [--model M] [--weights best.pt] [--json FILE]

Rivals are interleaved in one run; cold starts, memory and leaks are those of fresh processes.
Linux: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from benchmarks.measure.cold_start import run_fresh
from benchmarks.measure.environment import Environment
from benchmarks.measure.latency import as_jpeg
from benchmarks.studies.command_line import StudyParser, keep
from catdog_edge import Classifier
from catdog_edge.errors import GateError
from catdog_edge.images.preprocess import Image
from catdog_edge.runtime.classifier import SPIN
from catdog_edge.runtime.model_file import find_model
from exporters.checks.predictors import open_session
from exporters.checks.timing import compare

# Multiples of the bare rival, and the growth in MB from 1,000 calls to the end.
LIMITS = {
    "native": 1.05, "1080p": 1.10, "cold start": 1.30, "memory": 1.15,
    "PyTorch's cold start": 4.0, "growth_mb": 1.0,
}  # fmt: skip
FIXED_MS = 0.05  # a call of `Classifier` may add so much: a tiny network is faster than any wrapper
FPS = 30  # at which a camera calls the classifier
PARTS = ("overhead", "cold", "leak", "spinning")  # methods of `Study`

# What the threads of a session do between two calls; the first is the reference.
WAITS = {"spinning, as ONNX Runtime": True, f"spinning {SPIN} us": SPIN, "sleeping": False}

# The programs of the fresh processes: by hand, with this package, with PyTorch.
BARE = """
import sys
import numpy as np, cv2, onnxruntime
model, picture, size, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
frame = cv2.imread(picture)
frame = cv2.resize(frame, (2 * size, 2 * size), interpolation=cv2.INTER_LINEAR)
frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
session.run(None, {"frames": frame[None]})
"""
OURS = """
import sys
import cv2
from catdog_edge import Classifier
Classifier(sys.argv[1], threads=int(sys.argv[4]))(cv2.imread(sys.argv[2]))
"""
TORCH = """
import sys
import cv2
from benchmarks.bench_rows import BenchRow, open_row
runner = open_row(BenchRow("pytorch", "pytorch", sys.argv[1], int(sys.argv[4])))
runner.probabilities([cv2.imread(sys.argv[2])])
"""
REPORT = """
import json, time
answered = time.perf_counter()
with open("/proc/self/status") as stream:
    status = dict(line.split(":", 1) for line in stream)
memory = {name: int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")}
print(json.dumps({"answered_at": answered, **memory}))
"""
LEAK = """
import json, sys, time
import numpy as np
from benchmarks.measure.cold_start import resident_bytes
from catdog_edge import Classifier
pets = Classifier(sys.argv[1], threads=int(sys.argv[2]))
frame = np.random.default_rng(0).integers(0, 256, (*pets.spec.size, 3), dtype=np.uint8)
found = {"answered_at": time.perf_counter()}
for count in range(1, int(sys.argv[3]) + 1):
    pets(frame)
    if count in (1, 10, 100, 1000) or count % 10000 == 0:
        found[count] = resident_bytes() / 2**20
print(json.dumps(found))
"""


class Study:
    """The parts of the study, the figures so far, and the limits that are not met."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.document: dict[str, Any] = {"machine": asdict(Environment.detect())}
        self.missed: list[str] = []
        with self.classifier() as pets:
            self.threads, self.size = pets.threads, pets.spec.size
            self.document["model"] = repr(pets)
        print(self.document["model"])

    def classifier(self, **more: Any) -> Classifier:
        """Open the model under measurement."""
        return Classifier(self.options.model, provider="cpu", threads=self.options.threads, **more)

    def judge(self, name: str, value: float, met: bool | None = None, note: str = "") -> None:
        """Print a figure and whether it meets its limit; by default that is an upper one."""
        met = value <= LIMITS[name] if met is None else met
        print(f"  {name}: {value:.3f} (limit {LIMITS[name]:g}{note}) {'ok' if met else 'MISSED'}")
        self.missed += [] if met else [name]

    def overhead(self) -> dict[str, Any]:
        """Compare `Classifier` and a bare session on frames of the model's size and of 1080p."""
        pets, (height, width) = self.classifier(), self.size
        session = open_session(self.options.model, self.threads)
        native, large = picture(height, width), picture(1080, 1920)

        def resized() -> object:
            half = cv2.resize(large, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
            whole = cv2.resize(half, (width, height), interpolation=cv2.INTER_AREA)
            return session.run(None, {"frames": whole[None]})

        rivals: dict[str, dict[str, Callable[[], object]]] = {
            "native": {
                "session.run": lambda: session.run(None, {"frames": native[None]}),
                "Classifier": lambda: pets(native),
            },
            "1080p": {"resize and session.run": resized, "Classifier": lambda: pets(large)},
        }
        document = {}
        for name, calls in rivals.items():
            timing = compare(calls, self.options.seconds)
            document[name] = timing.to_dict()
            ratio = timing.ratio("Classifier")
            bare, ours = (1e3 * latency.p50 for latency in timing.rows.values())
            for row, p50 in zip(timing.rows, (bare, ours), strict=True):
                print(f"{name:8} {row:24} p50 {p50:.3f} ms")
            print(f"  ratio {ratio}")
            met = ratio.value <= LIMITS[name] or ours - bare <= FIXED_MS
            self.judge(name, ratio.value, met, f", or {FIXED_MS:g} ms more")
        return document

    def cold(self) -> dict[str, Any]:
        """Measure first answer and memory of fresh processes, after one each to fill caches."""
        file = str(find_model(self.options.model).path)
        programs = {"bare script": (BARE, file), "catdog_edge": (OURS, file)}
        if self.options.weights is not None:
            programs["PyTorch"] = (TORCH, str(self.options.weights))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.jpg"
            path.write_bytes(as_jpeg(picture(480, 640)))
            for run in range(self.options.runs + 1):
                for name, (program, model) in programs.items():
                    arguments = ["-c", program + REPORT, model, path, self.size[0], self.threads]
                    found[name] += [run_fresh([str(one) for one in arguments], name)] if run else []
        document = {name: _cold_row(runs, found["bare script"]) for name, runs in found.items()}
        for name, row in document.items():
            print(
                f"{name:12} first answer {row['first_answer_s']:.3f} s, resident "
                f"{row['resident_mb']:.1f} MB, peak {row['peak_mb']:.1f} MB"
            )
        ours, name = document["catdog_edge"], "PyTorch's cold start"
        self.judge("cold start", ours["time_ratio"])
        self.judge("memory", ours["memory_ratio"])
        if "PyTorch" in document:
            ratio = document["PyTorch"]["first_answer_s"] / ours["first_answer_s"]
            self.judge(name, ratio, ratio >= LIMITS[name])
        return document

    def leak(self) -> Mapping[str, float]:
        """Measure resident memory in MB by number of calls, in one fresh process."""
        model = find_model(self.options.model).path
        arguments = [str(one) for one in (model, self.threads, self.options.calls)]
        found = run_fresh(["-c", LEAK, *arguments], "leak check", timeout=None)
        memory = {count: size for count, size in found.items() if count.isdecimal()}
        print("calls: resident MB  " + ", ".join(f"{n}: {size:.1f}" for n, size in memory.items()))
        last = list(memory.values())[-1]
        self.judge("growth_mb", last - memory.get("1000", last))
        return memory

    def spinning(self) -> dict[str, Any]:
        """Compare ways for idle threads to wait: alone, beside a session, beside a busy camera."""
        frame, seconds = picture(480, 640), self.options.seconds
        pairs = {
            name: [self.classifier(spin=spin) for _ in range(2)] for name, spin in WAITS.items()
        }
        alone = {name: partial(first, frame) for name, (first, _) in pairs.items()}
        both = {
            name: partial(lambda one, two: (one(frame), two(frame)), *pair)
            for name, pair in pairs.items()
        }
        found: dict[str, Any] = {
            "alone": compare(alone, seconds).to_dict(),
            "two alternating sessions": compare(both, seconds).to_dict(),
        }
        for decoders in (1, 2):
            with busy_camera(decoders) as decoded:
                start, before = time.perf_counter(), sum(decoded)
                timing = compare(alone, seconds).to_dict()
                rate = (sum(decoded) - before) / (time.perf_counter() - start)
            scene = f"beside a busy camera loop ({decoders} threads)"
            found[scene] = {**timing, "decoded frames per second": rate}
        found["processor time per frame at 30 frames per second"] = {
            name: _paced(pets[0], frame, seconds / 2) for name, pets in pairs.items()
        }
        print(json.dumps(found, indent=1))
        return found


def picture(height: int, width: int) -> Image:
    """Return a smooth random image, `uint8 [height,width,3]`."""
    small = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    return np.ascontiguousarray(cv2.resize(small, (width, height)), dtype=np.uint8)


def _cold_row(
    runs: Sequence[Mapping[str, float]], bare: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    def middle(key: str) -> float:
        return median(run[key] for run in runs)

    def ratio(key: str) -> float:  # of one round: what drifts in between cancels
        return median(mine[key] / theirs[key] for mine, theirs in zip(runs, bare, strict=True))

    return {
        "runs": len(runs),
        "first_answer_s": middle("first_answer_s"),
        "resident_mb": middle("VmRSS"),
        "peak_mb": middle("VmHWM"),
        "time_ratio": ratio("first_answer_s"),
        "memory_ratio": ratio("VmRSS"),
    }


def _paced(pets: Classifier, frame: Image, seconds: float) -> dict[str, float]:
    """Return milliseconds of processor time and of waiting per frame, at a steady frame rate."""
    pets.warmup()
    waits = []
    start, cpu = time.perf_counter(), time.process_time()
    due = start
    while due < start + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        before = time.perf_counter()
        pets(frame)
        waits.append(time.perf_counter() - before)
        due += 1 / FPS
    return {
        "processor_ms": 1e3 * (time.process_time() - cpu) / len(waits),
        "wait_p50_ms": 1e3 * float(np.median(waits)),
        "wait_p95_ms": 1e3 * float(np.percentile(waits, 95)),
    }


@contextmanager
def busy_camera(threads: int) -> Iterator[list[int]]:
    """Decode 1080p JPEG frames in threads during the block, and count them."""
    data = np.frombuffer(as_jpeg(picture(1080, 1920)), np.uint8)
    stop = threading.Event()
    counts = [0] * threads

    def decode(index: int) -> None:
        while not stop.is_set():
            cv2.imdecode(data, cv2.IMREAD_COLOR)
            counts[index] += 1

    with ThreadPoolExecutor(threads) as pool:
        for index in range(threads):
            pool.submit(decode, index)
        try:
            yield counts
        finally:
            stop.set()


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    study = Study(options)
    for name in PARTS:
        if name in (options.only or PARTS):
            study.document[name] = getattr(study, name)()
    keep(study.document, options.json)
    if study.missed:
        raise GateError(f"limits not met: {', '.join(study.missed)}")


main = StudyParser("classifier_overhead", __doc__, run)
main.add_argument("--model", default="fast", help="a .onnx file or a shipped model")
main.add_argument("--weights", type=Path, help="a checkpoint: adds PyTorch's cold start")
main.threads("of every session")
main.seconds(10.0, "per comparison")
main.add_argument("--runs", type=int, default=10, help="cold starts of each program")
main.add_argument("--calls", type=int, default=100_000, help="of the leak check")
main.json()
main.add_argument("--only", choices=PARTS, action="append", help="may be repeated")

if __name__ == "__main__":
    sys.exit(main())
