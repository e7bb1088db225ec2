"""Cost of `Classifier` over the session that it wraps: time, cold start, memory, spinning.

    python -m benchmarks.studies.classifier_overhead [--model M] [--weights best.pt] [--json FILE]

Every figure comes from rivals that are interleaved in one run. Prints tables; `--json` keeps the
figures. Linux: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure.environment import Environment
from benchmarks.measure.latency import as_jpeg
from benchmarks.studies import process_cost
from benchmarks.studies.command_line import bare_session, exit_code
from benchmarks.studies.command_line import seconds as duration
from catdog_edge import Classifier
from catdog_edge.errors import GateError
from catdog_edge.images.preprocess import Image
from catdog_edge.runtime.classifier import SPIN
from catdog_edge.system.files import write_text
from exporters.checks.timing import Timing, compare

LIMITS = {
    "native": 1.05,
    "1080p": 1.10,
    "cold start": 1.30,
    "memory": 1.15,
    "PyTorch's cold start": 4.0,
    "growth_mb": 1.0,
}
"""Multiples of the bare rival, and the growth in MB from 1,000 calls to the end."""

FIXED_MS = 0.05
"""A call of `Classifier` may add so much whatever the ratio: a network of a few microseconds is
faster than any wrapper around it."""

PARTS = ("overhead", "cold", "leak", "spinning")

WAITS = {"spinning, as ONNX Runtime": True, f"spinning {SPIN} us": SPIN, "sleeping": False}
"""What the threads of a session do between two calls; the first is the reference."""


class Report:
    """The figures so far, and the limits that are not met."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {"machine": Environment.detect().to_dict()}
        self.missed: list[str] = []

    def judge(self, name: str, value: float, met: bool | None = None, note: str = "") -> None:
        """Print a figure and whether it meets its limit; by default that is an upper one."""
        met = value <= LIMITS[name] if met is None else met
        print(f"  {name}: {value:.3f} (limit {LIMITS[name]:g}{note}) {'ok' if met else 'MISSED'}")
        if not met:
            self.missed.append(name)


def picture(height: int, width: int) -> Image:
    """A smooth random image, `uint8 [height,width,3]`."""
    small = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    return np.ascontiguousarray(cv2.resize(small, (width, height)), dtype=np.uint8)


def overhead(model: str, threads: int, seconds: float) -> dict[str, Timing]:
    """Time `Classifier` and a bare session on a frame of the model's size and a 1080p frame."""
    pets = Classifier(model, provider="cpu", threads=threads)
    assert pets.path is not None
    session = bare_session(pets.path, threads)
    height, width = pets.spec.size
    native, large = picture(height, width), picture(1080, 1920)
    frames = native[None]

    def resized() -> object:
        half = cv2.resize(large, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
        whole = cv2.resize(half, (width, height), interpolation=cv2.INTER_AREA)
        return session.run(None, {"frames": whole[None]})

    return {
        "native": compare(
            {
                "session.run": lambda: session.run(None, {"frames": frames}),
                "Classifier": lambda: pets(native),
            },
            seconds,
        ),
        "1080p": compare(
            {"resize and session.run": resized, "Classifier": lambda: pets(large)}, seconds
        ),
    }


def report_overhead(report: Report, options: argparse.Namespace) -> None:
    """Measure, print and judge `overhead`."""
    timings = overhead(options.model, options.threads, options.seconds)
    report.document["overhead"] = {name: timing.to_dict() for name, timing in timings.items()}
    for name, timing in timings.items():
        ratio = timing.ratio("Classifier")
        bare, ours = (1e3 * latency.p50 for latency in timing.rows.values())
        for row, p50 in zip(timing.rows, (bare, ours), strict=True):
            print(f"{name:8} {row:24} p50 {p50:.3f} ms")
        print(f"  ratio {ratio}")
        met = ratio.value <= LIMITS[name] or ours - bare <= FIXED_MS
        report.judge(name, ratio.value, met, f", or {FIXED_MS:g} ms more")


def report_cold_starts(report: Report, options: argparse.Namespace) -> None:
    """Measure, print and judge cold starts and memory."""
    cold = process_cost.cold_starts(options.model, options.weights, options.threads, options.runs)
    report.document["cold"] = cold
    for name, row in cold.items():
        print(
            f"{name:12} first answer {row['first_answer_s']:.3f} s, resident "
            f"{row['resident_mb']:.1f} MB, peak {row['peak_mb']:.1f} MB"
        )
    report.judge("cold start", cold["catdog_edge"]["time_ratio"])
    report.judge("memory", cold["catdog_edge"]["memory_ratio"])
    if "PyTorch" in cold:
        name = "PyTorch's cold start"
        ratio = cold["PyTorch"]["first_answer_s"] / cold["catdog_edge"]["first_answer_s"]
        report.judge(name, ratio, ratio >= LIMITS[name])


def report_leak(report: Report, options: argparse.Namespace) -> None:
    """Measure, print and judge the growth of memory."""
    memory = process_cost.leak(options.model, options.threads, options.calls)
    report.document["leak"] = memory
    print("calls: resident MB  " + ", ".join(f"{n}: {size:.1f}" for n, size in memory.items()))
    last = list(memory.values())[-1]
    report.judge("growth_mb", last - memory.get("1000", last))


def report_spinning(report: Report, options: argparse.Namespace) -> None:
    """Measure ways for idle threads to wait: alone, beside a session, beside a busy camera."""
    frame, seconds = picture(480, 640), options.seconds
    pairs = {
        name: [
            Classifier(options.model, provider="cpu", threads=options.threads, spin=spin)
            for _ in range(2)
        ]
        for name, spin in WAITS.items()
    }
    alone: dict[str, Callable[[], object]] = {}
    both: dict[str, Callable[[], object]] = {}
    for name, (first, second) in pairs.items():
        alone[name] = lambda pets=first: pets(frame)  # type: ignore[misc]
        both[name] = lambda one=first, two=second: (one(frame), two(frame))  # type: ignore[misc]
    found: dict[str, Any] = {
        "alone": compare(alone, seconds).to_dict(),
        "two sessions that take turns": compare(both, seconds).to_dict(),
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
    report.document["spinning"] = found
    print(json.dumps(found, indent=1))


def _paced(pets: Classifier, frame: Image, seconds: float, rate: float = 30) -> dict[str, float]:
    """Milliseconds of processor time and of waiting per frame, at a steady frame rate."""
    pets.warmup()
    waits = []
    start, cpu = time.perf_counter(), time.process_time()
    due = start
    while due < start + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        before = time.perf_counter()
        pets(frame)
        waits.append(time.perf_counter() - before)
        due += 1 / rate
    return {
        "processor_ms": 1e3 * (time.process_time() - cpu) / len(waits),
        "wait_p50_ms": 1e3 * float(np.median(waits)),
        "wait_p95_ms": 1e3 * float(np.percentile(waits, 95)),
    }


@contextmanager
def busy_camera(threads: int) -> Iterator[list[int]]:
    """Within the block, threads decode 1080p JPEG frames without a pause; counts the frames."""
    data = np.frombuffer(as_jpeg(picture(1080, 1920)), np.uint8)
    stop = threading.Event()
    counts = [0] * threads

    def decode(index: int) -> None:
        while not stop.is_set():
            cv2.imdecode(data, cv2.IMREAD_COLOR)
            counts[index] += 1

    workers = [threading.Thread(target=decode, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield counts
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def run(options: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        GateError: A limit is not met.
    """
    report = Report()
    with Classifier(options.model, provider="cpu", threads=options.threads) as pets:
        options.threads = pets.threads
        report.document["model"] = repr(pets)
    print(report.document["model"])
    parts = (report_overhead, report_cold_starts, report_leak, report_spinning)
    for name, part in zip(PARTS, parts, strict=True):
        if name in (options.only or PARTS):
            part(report, options)
    if options.json is not None:
        write_text(options.json, json.dumps(report.document, indent=1) + "\n")
    if report.missed:
        raise GateError(f"limits not met: {', '.join(report.missed)}")


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="fast", help="a .onnx file or a shipped model")
    parser.add_argument("--weights", type=Path, help="a checkpoint: adds PyTorch's cold start")
    parser.add_argument("--threads", type=int, help="of every session")
    parser.add_argument("--seconds", type=duration, default=10.0, help="per comparison")
    parser.add_argument("--runs", type=int, default=10, help="cold starts of each program")
    parser.add_argument("--calls", type=int, default=100_000, help="of the leak check")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--only", choices=PARTS, action="append", help="may be repeated")
    options = parser.parse_args(arguments)
    return exit_code("classifier_overhead", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
