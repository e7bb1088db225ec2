"""Cold start, memory and leaks of the runtime, each in processes of their own.

The programs are what a person would write by hand (`BARE`), with this package (`OURS`), and with
PyTorch (`TORCH`). Linux: memory is read from /proc.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure.cold_start import run_fresh
from benchmarks.measure.latency import as_jpeg
from catdog_edge.runtime.model_file import find_model, read_spec

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
from benchmarks.runners import BenchRow, open_row
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
from catdog_edge import Classifier
pets = Classifier(sys.argv[1], threads=int(sys.argv[2]))
frame = np.random.default_rng(0).integers(0, 256, (*pets.spec.size, 3), dtype=np.uint8)
found = {"answered_at": time.perf_counter()}
for count in range(1, int(sys.argv[3]) + 1):
    pets(frame)
    if count in (1, 10, 100, 1000) or count % 10000 == 0:
        with open("/proc/self/status") as stream:
            memory = next(line for line in stream if line.startswith("VmRSS"))
        found[count] = int(memory.split()[1]) / 1024
print(json.dumps(found))
"""


def cold_starts(model: str, weights: Path | None, threads: int, runs: int) -> dict[str, Any]:
    """Measure time to the first answer and memory (MB) of each program, interleaved.

    One more process of each before the `runs` that count fills the file cache and writes byte
    code. Without `weights`, PyTorch is left out.

    Raises:
        CatdogError: A program fails.
    """
    file, size = str(find_model(model).path), read_spec(model).height
    programs = {"bare script": (BARE, file), "catdog_edge": (OURS, file)}
    if weights is not None:
        programs["PyTorch"] = (TORCH, str(weights))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.jpg"
        noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture.write_bytes(as_jpeg(np.asarray(cv2.resize(noise, (640, 480)), np.uint8)))
        arguments = [str(picture), str(size), str(threads)]
        for run in range(runs + 1):
            for name, (program, path) in programs.items():
                result = run_fresh(["-c", program + REPORT, path, *arguments], name)
                if run:
                    found[name].append(result)
    bare = found["bare script"]

    def middle(results: list[dict[str, float]], key: str) -> float:
        return statistics.median(result[key] for result in results)

    def ratio(results: list[dict[str, float]], key: str) -> float:
        pairs = zip(results, bare, strict=True)  # of one round: what drifts in between cancels
        return statistics.median(mine[key] / theirs[key] for mine, theirs in pairs)

    return {
        name: {
            "runs": len(results),
            "first_answer_s": middle(results, "first_answer_s"),
            "resident_mb": middle(results, "VmRSS"),
            "peak_mb": middle(results, "VmHWM"),
            "time_ratio": ratio(results, "first_answer_s"),
            "memory_ratio": ratio(results, "VmRSS"),
        }
        for name, results in found.items()
    }


def leak(model: str, threads: int, calls: int) -> Mapping[str, float]:
    """Measure resident memory in MB by number of calls, in one fresh process.

    Raises:
        CatdogError: The process fails.
    """
    arguments = [str(find_model(model).path), str(threads), str(calls)]
    found = run_fresh(["-c", LEAK, *arguments], "leak check", timeout=None)
    return {count: size for count, size in found.items() if count.isdecimal()}
