"""A fresh process for one row: time to the first answer, memory and processor time.

The parent half starts the process and holds the watch; the child half (`python -m
benchmarks.measure.cold_start`) loads the row, answers one picture, says so, and goes on for a
moment. So the memory of PyTorch is never charged to ONNX Runtime, and a cold start is really
cold: the interpreter and every import are in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from catdog_edge.errors import CatdogError

TIMEOUT = 300.0
"""Seconds after which a child that does not answer is ended."""


@dataclass(frozen=True)
class ColdStart:
    """One row in fresh processes; medians over the runs.

    Attributes:
        runs: How many processes were started.
        first_answer_s: From the start of the process to its first answer, in seconds.
        first_answers_s: The same for each run.
        load_s: Loading the file until it can be asked, imports aside, in seconds.
        rss_bytes: Resident memory after the first answer.
        peak_rss_bytes: The most resident memory that the process ever had.
        cpu_ms: Processor time per answer in a steady loop, all threads added, milliseconds.
        wall_ms: Time per answer in the same loop, milliseconds.
        torch_loaded: Whether PyTorch was in the process.
    """

    runs: int
    first_answer_s: float
    first_answers_s: tuple[float, ...]
    load_s: float
    rss_bytes: int
    peak_rss_bytes: int
    cpu_ms: float
    wall_ms: float
    torch_loaded: bool

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def run_fresh(row: dict[str, Any], picture: Path, seconds: float = 0.5) -> dict[str, Any]:
    """Run one row in a fresh process.

    Args:
        row: `Row.to_dict()`.
        picture: The file that is answered.
        seconds: How long the steady loop goes on.

    Returns:
        What the child measured, and `first_answer_s` by the parent's watch.

    Raises:
        CatdogError: The child failed; the message has its last line.
    """
    # -P: what lies in the current folder is not imported; the modules are those of this process.
    command = [
        sys.executable,
        "-P",
        "-m",
        "benchmarks.measure.cold_start",
        json.dumps(row),
        str(picture),
        str(seconds),
    ]
    paths = os.pathsep.join(path for path in sys.path if path)
    # Into a file: a pipe that nobody reads holds the child up once it is full.
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        start = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True,
            env={**os.environ, "PYTHONPATH": paths},
        ) as child:  # fmt: skip
            assert child.stdout is not None
            late = threading.Event()
            watch = threading.Timer(TIMEOUT, _end, (child, late))
            watch.daemon = True
            watch.start()
            line = child.stdout.readline()
            first = time.perf_counter() - start
            rest = child.stdout.read()
            child.wait()
            watch.cancel()
        said.seek(0)
        complaint = said.read()
    if late.is_set():
        raise CatdogError(
            f"{row['base']}: a fresh process gave no answer for {TIMEOUT:g} s; "
            "leave the row out, or free the machine"
        )
    if child.returncode != 0 or not line or not rest:
        reason = (complaint.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        raise CatdogError(f"{row['base']}: it does not run in a fresh process ({reason})")
    return {**json.loads(rest), "first_answer_s": first}


def _end(child: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    child.kill()


def summarise(runs: list[dict[str, Any]]) -> ColdStart:
    """Medians over the runs of one row."""

    def middle(name: str) -> float:
        return float(median(run[name] for run in runs))

    return ColdStart(
        runs=len(runs),
        first_answer_s=middle("first_answer_s"),
        first_answers_s=tuple(run["first_answer_s"] for run in runs),
        load_s=middle("load_s"),
        rss_bytes=int(middle("rss_bytes")),
        peak_rss_bytes=int(middle("peak_rss_bytes")),
        cpu_ms=middle("cpu_ms"),
        wall_ms=middle("wall_ms"),
        torch_loaded=any(run["torch_loaded"] for run in runs),
    )


def resident(peak: bool = False) -> int:
    """Resident memory of this process in bytes, now or at its peak.

    Read from `/proc` where there is one: `ru_maxrss` of a child starts at what its parent
    had, which would charge every row with the memory of the bench itself.
    """
    key = "VmHWM:" if peak else "VmRSS:"
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def child(row_json: str, picture: str, seconds: str) -> None:
    """The child half: two lines on stdout, one when the first answer is there, one at the end."""
    from benchmarks.rows import Row, open_subject
    from catdog_edge.images.read import read_picture

    row = Row(**json.loads(row_json))
    start = time.perf_counter()
    if row.engine == "pytorch":
        import catdog_edge.training.models.checkpoint  # its time is that of imports, not of loading
    else:
        import onnxruntime  # noqa: F401

        import catdog_edge.runtime.classifier  # noqa: F401
    imported = time.perf_counter()
    subject = open_subject(row)
    loaded = time.perf_counter()
    frame = read_picture(picture)
    answer = subject.probabilities([frame])
    print(json.dumps({"answer": answer.tolist()}), flush=True)
    rss = resident()
    for _ in range(3):
        subject.probabilities([frame])
    calls = 0
    wall, processor = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < float(seconds) or calls < 3:
        subject.probabilities([frame])
        calls += 1
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(
        json.dumps(
            {
                "import_s": imported - start,
                "load_s": loaded - imported,
                "rss_bytes": rss,
                "peak_rss_bytes": resident(peak=True),
                "cpu_ms": processor / calls * 1e3,
                "wall_ms": wall / calls * 1e3,
                "torch_loaded": "torch" in sys.modules,
            }
        )
    )


if __name__ == "__main__":
    child(*sys.argv[1:4])
