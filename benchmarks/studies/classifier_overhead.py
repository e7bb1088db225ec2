"""What `Classifier` costs beside the session that it wraps: time, cold start, memory, spinning.

    python -m benchmarks.studies.classifier_overhead [--model M] [--weights best.pt] [--json FILE]

Every figure comes from rivals that take turns in one run. Prints tables for people; `--json`
keeps the figures. Linux (memory is read from /proc).
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime

from benchmarks.measure import environment
from benchmarks.studies import process_cost
from catdog_edge import Classifier
from catdog_edge.errors import CatdogError
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
"""What is asked for: times of the bare rival, and the growth from 1,000 calls to the end."""

WAITS = {"spinning, as ONNX Runtime": True, f"spinning {SPIN} us": SPIN, "sleeping": False}
"""What the threads of a session do between two calls; the first is the yardstick."""


def bare_session(pets: Classifier) -> onnxruntime.InferenceSession:
    """A session as a careful person would make it by hand: same file, same threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = pets.threads
    return onnxruntime.InferenceSession(str(pets.path), options, providers=["CPUExecutionProvider"])


def picture(height: int, width: int) -> Image:
    """A smooth random picture: `uint8 [height,width,3]`."""
    small = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    return np.ascontiguousarray(cv2.resize(small, (width, height)), dtype=np.uint8)


def overhead(model: str, threads: int | None, seconds: float) -> dict[str, Timing]:
    """Our call against the bare one, on a frame of the model's size and on a 1080p frame."""
    pets = Classifier(model, provider="cpu", threads=threads)
    session = bare_session(pets)
    height, width = pets.spec.size
    native, large = picture(height, width), picture(1080, 1920)

    def resized() -> object:
        half = cv2.resize(large, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
        whole = cv2.resize(half, (width, height), interpolation=cv2.INTER_AREA)
        return session.run(None, {"frames": whole[None]})

    frames = native[None]
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


def spinning(model: str, threads: int | None, seconds: float) -> dict[str, Any]:
    """Ways for idle threads to wait: alone, beside a second session, beside a busy camera."""
    frame = picture(480, 640)
    pairs = {
        name: (
            Classifier(model, provider="cpu", threads=threads, spin=spin),
            Classifier(model, provider="cpu", threads=threads, spin=spin),
        )
        for name, spin in WAITS.items()
    }
    alone: dict[str, Callable[[], object]] = {}
    turns: dict[str, Callable[[], object]] = {}
    for name, (first, second) in pairs.items():
        alone[name] = lambda pets=first: pets(frame)  # type: ignore[misc]
        turns[name] = lambda one=first, two=second: (one(frame), two(frame))  # type: ignore[misc]
    found: dict[str, Any] = {
        "alone": _rows(compare(alone, seconds)),
        "two sessions that take turns": _rows(compare(turns, seconds)),
    }
    for decoders in (1, 2):
        with camera(decoders) as decoded:
            start, before = time.perf_counter(), sum(decoded)
            name = f"beside a busy camera loop ({decoders} threads)"
            found[name] = _rows(compare(alone, seconds))
            rate = (sum(decoded) - before) / (time.perf_counter() - start)
            found[name]["decoded frames per second"] = rate
    found["processor time per frame at 30 frames per second"] = {
        name: _paced(pets[0], frame, seconds / 2) for name, pets in pairs.items()
    }
    return found


def _rows(timing: Timing) -> dict[str, Any]:
    return timing.to_dict()


def _paced(pets: Classifier, frame: Image, seconds: float, rate: float = 30) -> dict[str, float]:
    """Milliseconds of processor time and of waiting per frame, frames coming at a steady rate."""
    pets.warmup()
    waits = []
    start, processor = time.perf_counter(), time.process_time()
    due = start
    while due < start + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        before = time.perf_counter()
        pets(frame)
        waits.append(time.perf_counter() - before)
        due += 1 / rate
    spent = time.process_time() - processor
    return {
        "processor_ms": 1e3 * spent / len(waits),
        "wait_p50_ms": 1e3 * float(np.median(waits)),
        "wait_p95_ms": 1e3 * float(np.percentile(waits, 95)),
    }


@contextmanager
def camera(threads: int) -> Iterator[list[int]]:
    """Threads that decode 1080p JPEG frames without a pause, as a camera's reader does."""
    coded, data = cv2.imencode(".jpg", picture(1080, 1920))
    if not coded:
        raise CatdogError("OpenCV cannot write a JPEG here")
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


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 3 where a limit is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="fast", help="a .onnx file or a shipped model")
    parser.add_argument("--weights", type=Path, help="a checkpoint: adds PyTorch's cold start")
    parser.add_argument("--threads", type=int, help="of every session")
    parser.add_argument("--seconds", type=float, default=10.0, help="per comparison")
    parser.add_argument("--runs", type=int, default=10, help="cold starts of each program")
    parser.add_argument("--calls", type=int, default=100_000, help="of the leak check")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--only", choices=("overhead", "cold", "leak", "spinning"), action="append")
    options = parser.parse_args(arguments)
    wanted = options.only or ["overhead", "cold", "leak", "spinning"]
    with Classifier(options.model, provider="cpu", threads=options.threads) as pets:
        threads = pets.threads
        document: dict[str, Any] = {
            "model": repr(pets),
            "machine": asdict(environment.Environment.detect()),
        }
    print(document["model"])
    missed: list[str] = []

    def judge(name: str, value: float, least: bool = False) -> None:
        limit = LIMITS[name]
        met = value >= limit if least else value <= limit
        word = "at least" if least else "at most"
        print(f"  {name}: {value:.3f} ({word} {limit:g}) {'ok' if met else 'MISSED'}")
        if not met:
            missed.append(name)

    if "overhead" in wanted:
        timings = overhead(options.model, threads, options.seconds)
        document["overhead"] = {name: timing.to_dict() for name, timing in timings.items()}
        for name, timing in timings.items():
            ratio = timing.ratio("Classifier")
            for row, latency in timing.rows.items():
                print(f"{name:8} {row:24} p50 {1e3 * latency.p50:.3f} ms")
            print(f"  ratio {ratio}")
            judge(name, ratio.value)
    if "cold" in wanted:
        cold = process_cost.cold_starts(options.model, options.weights, threads, options.runs)
        document["cold"] = cold
        for name, row in cold.items():
            print(
                f"{name:12} first answer {row['first_answer_s']:.3f} s, resident "
                f"{row['resident_mb']:.1f} MB, peak {row['peak_mb']:.1f} MB"
            )
        judge("cold start", cold["catdog_edge"]["time_ratio"])
        judge("memory", cold["catdog_edge"]["memory_ratio"])
        if "PyTorch" in cold:
            ratio = cold["PyTorch"]["first_answer_s"] / cold["catdog_edge"]["first_answer_s"]
            judge("PyTorch's cold start", ratio, least=True)
    if "leak" in wanted:
        memory = process_cost.leak(options.model, threads, options.calls)
        document["leak"] = memory
        print("calls: resident MB  " + ", ".join(f"{n}: {k / 1024:.1f}" for n, k in memory.items()))
        last = list(memory.values())[-1]
        judge("growth_mb", (last - memory.get("1000", last)) / 1024)
    if "spinning" in wanted:
        document["spinning"] = spinning(options.model, threads, options.seconds)
        print(json.dumps(document["spinning"], indent=1))
    if options.json is not None:
        write_text(options.json, json.dumps(document, indent=1) + "\n")
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return 3 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
