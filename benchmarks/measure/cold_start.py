"""Cold start of a row: time to the first answer, memory and processor time in a fresh process.

A process per run keeps PyTorch's memory out of the rows of ONNX Runtime, and the interpreter and
every import in the time. The child is this module, run with `-m`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench_rows import BenchRow, open_row
from benchmarks.measure import gpu
from catdog_edge.errors import CatdogError
from catdog_edge.system.child_process import child_environment, interpreter
from catdog_edge.system.console import track

TIMEOUT = 300.0  # seconds for a row in a fresh process


def cold_starts(
    rows: Sequence[BenchRow], picture: Path, runs: int
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Classify the image file `picture` in `runs` fresh processes of every row, interleaved.

    Returns by row its summarized runs, and by row why it does not run.
    """
    found: dict[str, list[dict[str, Any]]] = {row.name: [] for row in rows}
    failed: dict[str, str] = {}
    for row in track([*rows] * runs, "processes"):
        if row.name in failed:
            continue
        try:
            found[row.name].append(start_row(row, picture))
        except CatdogError as error:
            failed[row.name] = str(error)
    good = {name: summarize_runs(one) for name, one in found.items() if one and name not in failed}
    return good, failed


def summarize_runs(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians over the runs of a row; see `cold` in docs/bench-json.md."""
    names = ("first_answer_s", "load_s", "cpu_ms", "wall_ms")
    sizes = ("rss_bytes", "peak_rss_bytes")
    on_gpu = [run["gpu_bytes"] for run in runs if run["gpu_bytes"] is not None]
    return {
        "runs": len(runs),
        "first_answers_s": [run["first_answer_s"] for run in runs],
        **{name: float(median(run[name] for run in runs)) for name in names},
        **{name: int(median(run[name] for run in runs)) for name in sizes},
        "gpu_bytes": int(median(on_gpu)) if on_gpu else None,
        "torch_loaded": any(run["torch_loaded"] for run in runs),
    }


def start_row(row: BenchRow, picture: Path, seconds: float = 0.5) -> dict[str, Any]:
    """Run one row in a fresh process: the first answer, then a steady loop of some `seconds`."""
    # -P: nothing is imported from the current folder.
    module = ["-P", "-m", "benchmarks.measure.cold_start"]
    return run_fresh(
        [*module, json.dumps(asdict(row)), str(picture), str(seconds)], row.base, TIMEOUT
    )


def run_fresh(
    arguments: Sequence[str], name: str, timeout: float | None = TIMEOUT
) -> dict[str, Any]:
    """Run Python in a fresh process with the import path of this one; `name` is for messages.

    Its last line is a JSON object with `answered_at`, the value of `time.perf_counter()` (a clock
    of the whole system) at the first answer. Returned is the object with `first_answer_s`, from
    the start of the process, in its place. A `CatdogError` has the last line of one that fails.
    """
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [interpreter(), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=child_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CatdogError(
            f"{name}: a fresh process gave no answer for {timeout:g} s; leave the row out, or "
            "free the machine"
        ) from error
    if done.returncode != 0 or not done.stdout:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise CatdogError(f"{name}: it does not run in a fresh process ({reason})")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "first_answer_s": found.pop("answered_at") - start}


def resident_bytes(peak: bool = False) -> int:
    """Return the resident memory of this process in bytes, now or at its peak.

    Read from `/proc` where there is one: `ru_maxrss` of a child starts at its parent's memory,
    and psutil has no peak on Linux.
    """
    key = "VmHWM:" if peak else "VmRSS:"
    try:
        status = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def _child(row_json: str, picture: str, seconds: str) -> None:
    """Load the row, classify the image, then measure a steady loop; print one JSON object."""
    from catdog_edge.images.read import read_picture

    row = BenchRow(**json.loads(row_json))
    if row.engine == "pytorch":  # imported here, so that this is not part of `load_s`
        import catdog_edge.training.models.checkpoint
    else:
        import onnxruntime  # noqa: F401

        import catdog_edge.runtime.classifier  # noqa: F401
    before = gpu.read() if row.device != "cpu" else None
    imported = time.perf_counter()
    runner = open_row(row)
    loaded = time.perf_counter()
    frame = read_picture(picture)
    answer = runner.probabilities([frame])
    answered = time.perf_counter()
    rss = resident_bytes()
    for _ in range(3):
        runner.probabilities([frame])
    calls = 0
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < float(seconds) or calls < 3:
        runner.probabilities([frame])
        calls += 1
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    document = {
        "answer": answer.tolist(),
        "answered_at": answered,
        "load_s": loaded - imported,
        "rss_bytes": rss,
        "peak_rss_bytes": resident_bytes(peak=True),
        "gpu_bytes": gpu.process_bytes(before, before and gpu.read()),
        "cpu_ms": cpu / calls * 1e3,
        "wall_ms": wall / calls * 1e3,
        "torch_loaded": "torch" in sys.modules,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    _child(*sys.argv[1:4])
