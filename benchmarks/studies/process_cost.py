"""Cold start, memory and leaks of the runtime, each in processes of their own.

The parent half starts short programs and holds the watch; the programs are what a person
would write by hand (`BARE`), with this package (`OURS`), and with PyTorch (`TORCH`). Each
answers one picture and then says how much memory it has. Knows nothing of latency.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from catdog_edge.errors import CatdogError
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
print("answer", session.run(None, {"frames": frame[None]})[0], flush=True)
"""

OURS = """
import sys
import cv2
from catdog_edge import Classifier
pets = Classifier(sys.argv[1], threads=int(sys.argv[4]))
print("answer", pets(cv2.imread(sys.argv[2])), flush=True)
"""

TORCH = """
import sys
import numpy as np, cv2, torch
from catdog_edge.images.preprocess import preprocess
from catdog_edge.training.models.checkpoint import load_checkpoint
torch.set_num_threads(int(sys.argv[4]))
network, spec = load_checkpoint(sys.argv[1])
frame = preprocess(cv2.imread(sys.argv[2]), spec.resize)
pixels = torch.from_numpy(frame[None]).permute(0, 3, 1, 2).flip(1).float()
mean = torch.tensor(spec.normalization.mean).view(1, 3, 1, 1)
std = torch.tensor(spec.normalization.std).view(1, 3, 1, 1)
with torch.inference_mode():
    logits = network((pixels - mean) / std)[:, : len(spec.labels)] / spec.temperature
    print("answer", torch.softmax(logits, 1), flush=True)
"""

MEMORY = """
with open("/proc/self/status") as stream:
    status = dict(line.split(":", 1) for line in stream)
print("memory", status["VmRSS"].split()[0], status["VmHWM"].split()[0], flush=True)
"""

LEAK = """
import sys
import numpy as np
from catdog_edge import Classifier
pets = Classifier(sys.argv[1], threads=int(sys.argv[2]))
frame = np.random.default_rng(0).integers(0, 256, (*pets.spec.size, 3), dtype=np.uint8)
def resident():
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("VmRSS"))
for count in range(1, int(sys.argv[3]) + 1):
    pets(frame)
    if count in (1, 10, 100, 1000) or count % 10000 == 0:
        print(count, resident(), flush=True)
"""


def cold_starts(model: str, weights: Path | None, threads: int, runs: int) -> dict[str, Any]:
    """Time to the first answer and memory, of each program, taking turns.

    Args:
        model: A `.onnx` file or the name of a shipped model.
        weights: A checkpoint of the same network; `None` leaves PyTorch out.
        threads: For each program.
        runs: Processes of each program that count; one more before them does not.

    Raises:
        CatdogError: A program fails.
    """
    file = find_model(model)
    size = read_spec(model).height
    programs: dict[str, tuple[str, str]] = {
        "bare script": (BARE, str(file.path)),
        "catdog_edge": (OURS, str(file.path)),
    }
    if weights is not None:
        programs["PyTorch"] = (TORCH, str(weights))
    found: dict[str, list[tuple[float, int, int]]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.jpg"
        noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        coded, data = cv2.imencode(".jpg", cv2.resize(noise, (640, 480)))
        if not coded:
            raise CatdogError("OpenCV cannot write a JPEG here")
        picture.write_bytes(data.tobytes())
        for run in range(runs + 1):
            for name, (program, file_name) in programs.items():
                arguments = [file_name, str(picture), str(size), str(threads)]
                result = _first_answer(program, arguments)
                if run:  # the first of each fills the file cache and writes byte code
                    found[name].append(result)
    bare = found["bare script"]
    return {
        name: {
            "runs": len(results),
            "first_answer_s": statistics.median(result[0] for result in results),
            "resident_mb": statistics.median(result[1] for result in results) / 1024,
            "peak_mb": statistics.median(result[2] for result in results) / 1024,
            # The ratio of runs of one round; what drifts in between cancels.
            "time_ratio": statistics.median(
                mine[0] / theirs[0] for mine, theirs in zip(results, bare, strict=True)
            ),
            "memory_ratio": statistics.median(
                mine[1] / theirs[1] for mine, theirs in zip(results, bare, strict=True)
            ),
        }
        for name, results in found.items()
    }


def _first_answer(program: str, arguments: list[str]) -> tuple[float, int, int]:
    """Seconds to the first answer, resident and peak memory in KiB."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", program + MEMORY, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        # Not communicate(): it would miss what readline() has read ahead.
        rest, errors = process.stdout.read(), process.stderr.read()
    memory = [text.split()[1:] for text in rest.splitlines() if text.startswith("memory")]
    if not line.startswith("answer") or not memory:
        last = (errors.strip().splitlines() or ["no word why"])[-1]
        raise CatdogError(f"a program of the cold start failed: {last}")
    return seconds, int(memory[0][0]), int(memory[0][1])


def leak(model: str, threads: int, calls: int) -> Mapping[str, int]:
    """Resident memory in KiB by number of calls, in one fresh process.

    Raises:
        CatdogError: The process fails.
    """
    done = subprocess.run(
        [sys.executable, "-c", LEAK, str(find_model(model).path), str(threads), str(calls)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CatdogError(f"the leak check failed: {done.stderr.strip().splitlines()[-1]}")
    return {count: int(size) for count, size in map(str.split, done.stdout.splitlines())}


if __name__ == "__main__":
    print(json.dumps(leak(sys.argv[1], 1, int(sys.argv[2])), indent=1))
