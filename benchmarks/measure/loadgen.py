"""The rows under MLCommons' LoadGen, the load generator of MLPerf Inference.

Knows how LoadGen asks and how a row answers; the extra `[loadgen]` brings the package. What
LoadGen writes is kept as it is; only its summary is read, for the table.

    single-stream   one frame at a time, the next when the last is answered; latency counts
    offline         all frames at once, answered in batches of the row; throughput counts
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.rows import Subject
from catdog_edge.errors import CatdogError, MissingPackageError
from catdog_edge.images.preprocess import Frame

log = logging.getLogger(__name__)

Scenario = Literal["single-stream", "offline"]

FOLDER = "bench-loadgen"
"""Where the logs are kept, a folder per row."""

FIGURES = {
    "p50_ns": r"50\.00 percentile latency \(ns\)",
    "p90_ns": r"90\.00 percentile latency \(ns\)",
    "p95_ns": r"95\.00 percentile latency \(ns\)",
    "p99_ns": r"99\.00 percentile latency \(ns\)",
    "mean_ns": r"Mean latency \(ns\)",
    "early_stopping_p90_ns": r" \* Early stopping 90\.0th percentile estimate",
    "samples_per_second": r"Samples per second",
    "queries_per_second": r"QPS w/o loadgen overhead",
    "seed": r"qsl_rng_seed ",
}
"""What is read of a summary, by the words that stand before it."""


def load() -> Any:
    """The module `mlperf_loadgen`.

    Raises:
        MissingPackageError: The extra is not installed.
    """
    try:
        import mlperf_loadgen
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "--scenario needs the package mlcommons-loadgen, which is not installed; "
            "install it with: pip install 'catdog-edge[loadgen]'"
        ) from error
    return mlperf_loadgen


def run(
    subject: Subject,
    frames: Sequence[Frame],
    scenario: Scenario,
    seconds: float,
    folder: Path,
    expected_per_second: float,
) -> dict[str, Any]:
    """Run one row under LoadGen.

    Args:
        subject: The row.
        frames: `uint8 [H,W,3]` BGR; LoadGen draws from them.
        scenario: See the module.
        seconds: The least duration, LoadGen's `min_duration`.
        folder: Where the logs go; made when it is missing.
        expected_per_second: Pictures a second as measured before; how many queries LoadGen
            plans comes from it.

    Returns:
        `valid`, the figures of `FIGURES` that the summary has, and of an invalid run which of
        LoadGen's conditions were not kept (`unsatisfied`).

    Raises:
        MissingPackageError: The extra is not installed.
        CatdogError: The row failed, or the logs cannot be written.
    """
    module = load()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatdogError(
            f"cannot make {folder} for LoadGen's logs: {error.strerror}; choose another --out"
        ) from error
    settings = module.TestSettings()
    settings.mode = module.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, int(seconds * 1000))
    if scenario == "single-stream":
        settings.scenario = module.TestScenario.SingleStream
        settings.min_query_count = 64  # what LoadGen's own estimate of p90 needs
        # LoadGen plans its queries ahead, and calls a run invalid that is done with them
        # before the time is up; so it is told that answers come twice as fast as measured.
        settings.single_stream_expected_latency_ns = max(1, int(5e8 / expected_per_second))
    else:
        settings.scenario = module.TestScenario.Offline
        # The same: a row that is a tenth faster than measured would be done before the time is up.
        settings.offline_expected_qps = max(1.0, 2 * expected_per_second)
    output = module.LogOutputSettings()
    output.outdir = str(folder)
    output.copy_summary_to_stdout = False
    log = module.LogSettings()
    log.log_output = output
    log.enable_trace = False

    failures: list[BaseException] = []
    under_test = module.ConstructSUT(_answerer(module, subject, frames, failures), lambda: None)
    library = module.ConstructQSL(len(frames), len(frames), lambda _: None, lambda _: None)
    try:
        module.StartTestWithLogSettings(under_test, library, settings, log, "")
    finally:
        module.DestroyQSL(library)
        module.DestroySUT(under_test)
    if failures:
        raise CatdogError(
            f"{subject.row.name} failed under LoadGen ({failures[0]}); its logs are in {folder}"
        ) from failures[0]
    summary = folder / "mlperf_log_summary.txt"
    try:
        return read_summary(summary.read_text(encoding="utf-8"))
    except OSError as error:
        raise CatdogError(
            f"LoadGen left no summary in {folder} ({error.strerror}); make room and try again"
        ) from error


def _answerer(
    module: Any, subject: Subject, frames: Sequence[Frame], failures: list[BaseException]
) -> Callable[[Sequence[Any]], None]:
    size = subject.row.batch

    def answer(queries: Sequence[Any]) -> None:
        for start in range(0, len(queries), size):
            batch = queries[start : start + size]
            # An exception must not leave through LoadGen's own thread: it would end the
            # process. The test goes on with empty answers and is thrown away afterwards.
            try:
                if failures:
                    raise failures[0]
                values = subject.probabilities([frames[query.index] for query in batch])
            except Exception as error:
                if not failures:
                    failures.append(error)
                values = np.zeros((len(batch), len(subject.spec.labels)), np.float32)
            values = np.ascontiguousarray(values)
            step = values.strides[0]
            module.QuerySamplesComplete(
                [
                    module.QuerySampleResponse(query.id, values.ctypes.data + step * place, step)
                    for place, query in enumerate(batch)
                ]
            )

    return answer


def read_summary(text: str) -> dict[str, Any]:
    """The figures of LoadGen's `mlperf_log_summary.txt` by the names of `FIGURES`.

    Raises:
        CatdogError: It is no such summary.
    """
    result = re.search(r"^Result is : (\w+)", text, re.MULTILINE)
    if result is None:
        raise CatdogError("LoadGen's summary has no result; see mlperf_log_detail.txt beside it")
    found: dict[str, Any] = {"valid": result[1] == "VALID"}
    if broken := re.findall(r"^\s*(.+?) satisfied : NO\s*$", text, re.MULTILINE):
        found["unsatisfied"] = [one.lower() for one in broken]
    for name, words in FIGURES.items():
        value = re.search(rf"^{words}\s*: ([0-9.]+)\s*$", text, re.MULTILINE)
        if value:
            found[name] = float(value[1])
    return found


def check_batches(scenario: Scenario, batches: Sequence[int]) -> None:
    """Refuse a scenario that would leave out every row.

    Raises:
        CatdogError: `single-stream` with batches above 1 alone.
    """
    if scenario == "single-stream" and 1 not in batches:
        raise CatdogError(
            "--scenario single-stream asks for one picture at a time, and --batch has no 1; "
            "add it, like --batch 1,8, or take --scenario offline"
        )


def run_rows(
    subjects: Sequence[Subject],
    frames: Sequence[Frame],
    scenario: Scenario,
    seconds: float,
    folder: Path,
    per_second: dict[str, float],
) -> dict[str, Any]:
    """Run every row, one after the other, logs in `folder/bench-loadgen/SCENARIO/ROW`.

    Args:
        subjects: The rows; `single-stream` takes those with batch 1 alone.
        frames: `uint8 [H,W,3]` BGR.
        scenario: See the module.
        seconds: The least duration of each row.
        folder: Where the reports go.
        per_second: Pictures a second by row, as measured before.

    Returns:
        For `bench.json`: `scenario`, `loadgen` (its version), `seconds`, `folder`, `rows`.
    """
    load()
    chosen = [one for one in subjects if scenario == "offline" or one.row.batch == 1]
    if len(chosen) < len(subjects):
        left = ", ".join(one.row.name for one in subjects if one not in chosen)
        log.info(f"bench: LoadGen's {scenario} asks for one picture at a time, without: {left}")
    rows: dict[str, dict[str, Any]] = {}
    taken: set[str] = set()
    for one in chosen:
        name = one.row.name
        plain = re.sub(r"[^\w.@-]", "_", name)
        while plain in taken:
            plain += "_"
        taken.add(plain)
        logs = folder / FOLDER / scenario / plain
        try:
            rows[name] = run(one, frames, scenario, seconds, logs, per_second[name])
        except CatdogError as error:
            # The other rows, and all that was measured before, are not lost for it.
            log.info(f"bench: LoadGen: {name}: {error}")
            rows[name] = {"valid": False, "reason": str(error)}
    return {
        "scenario": scenario,
        "loadgen": importlib.metadata.version("mlcommons-loadgen"),
        "seconds": seconds,
        "folder": f"{FOLDER}/{scenario}",
        "rows": rows,
    }
