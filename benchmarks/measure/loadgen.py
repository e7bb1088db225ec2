"""The rows under MLCommons' LoadGen, the load generator of MLPerf Inference (extra `[loadgen]`).

single-stream   one frame at a time, the next when the last is classified; latency counts
offline         all frames at once, classified in batches of the row; throughput counts
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.bench_rows import Runner
from catdog_edge.errors import CatdogError
from catdog_edge.images.preprocess import Image
from catdog_edge.system.packages import import_extra

log = logging.getLogger(__name__)

Scenario = Literal["single-stream", "offline"]

FOLDER = "bench-loadgen"  # where the logs go, a folder per row

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
"""What is read of a summary: patterns of the text before each figure."""


def import_loadgen() -> Any:
    """Import `mlperf_loadgen`; `MissingPackageError` where the extra is not installed."""
    what = "--scenario needs the package mlcommons-loadgen, which is not installed"
    return import_extra("mlperf_loadgen", "loadgen", what)


def check_batches(scenario: Scenario, batches: Sequence[int]) -> None:
    """Refuse a scenario that would leave out every row."""
    if scenario == "single-stream" and 1 not in batches:
        raise CatdogError(
            "--scenario single-stream sends one image at a time, and --batch has no 1; "
            "add it, like --batch 1,8, or take --scenario offline"
        )


def run_rows(
    runners: Sequence[Runner],
    frames: Sequence[Image],
    scenario: Scenario,
    seconds: float,
    folder: Path,
    per_second: dict[str, float],
) -> dict[str, Any]:
    """Run every row, one after the other; logs go to `folder/bench-loadgen/SCENARIO/ROW`.

    Each takes at least `seconds`; `single-stream` takes only rows with batch 1. `per_second` are
    images per second by row, as measured before. Returns what `bench.json` has under `loadgen`.
    """
    import_loadgen()
    chosen = [one for one in runners if scenario == "offline" or one.row.batch == 1]
    if len(chosen) < len(runners):
        left = ", ".join(one.row.name for one in runners if one not in chosen)
        log.info("bench: LoadGen's %s takes one image at a time, without: %s", scenario, left)
    rows: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    for one in chosen:
        name = re.sub(r"[^\w.@-]", "_", one.row.name)
        while name in names:
            name += "_"
        names.add(name)
        logs = folder / FOLDER / scenario / name
        try:
            rows[one.row.name] = run(one, frames, scenario, seconds, logs, per_second[one.row.name])
        except CatdogError as error:  # the other rows are measured all the same
            log.warning("LoadGen: %s: %s", one.row.name, error)
            rows[one.row.name] = {"valid": False, "reason": str(error)}
    return {
        "scenario": scenario,
        "loadgen": importlib.metadata.version("mlcommons-loadgen"),
        "seconds": seconds,
        "folder": f"{FOLDER}/{scenario}",
        "rows": rows,
    }


def run(
    runner: Runner,
    frames: Sequence[Image],
    scenario: Scenario,
    seconds: float,
    folder: Path,
    per_second: float,
) -> dict[str, Any]:
    """Run one row under LoadGen, see `run_rows`; returns what `read_summary` does."""
    module = import_loadgen()
    logs = module.LogSettings()
    logs.log_output = module.LogOutputSettings()
    logs.log_output.outdir = str(folder)
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False
    settings = _settings(module, scenario, seconds, per_second)
    failures: list[Exception] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        system = module.ConstructSUT(_issue_queries(module, runner, frames, failures), lambda: None)
        library = module.ConstructQSL(len(frames), len(frames), lambda _: None, lambda _: None)
        try:
            module.StartTestWithLogSettings(system, library, settings, logs, "")
        finally:
            module.DestroyQSL(library)
            module.DestroySUT(system)
        if not failures:
            return read_summary((folder / "mlperf_log_summary.txt").read_text(encoding="utf-8"))
    except OSError as error:
        raise CatdogError(
            f"cannot keep LoadGen's logs in {folder}: {error.strerror}; choose another --out"
        ) from error
    raise CatdogError(
        f"{runner.row.name} failed under LoadGen ({failures[0]}); its logs are in {folder}"
    ) from failures[0]


def _settings(module: Any, scenario: Scenario, seconds: float, per_second: float) -> Any:
    settings = module.TestSettings()
    settings.mode = module.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, int(seconds * 1000))
    # LoadGen plans its queries ahead, and a run that is done with them before the minimum
    # duration is invalid: so it is given twice the measured speed.
    if scenario == "single-stream":
        settings.scenario = module.TestScenario.SingleStream
        settings.min_query_count = 64  # needed for LoadGen's own estimate of p90
        settings.single_stream_expected_latency_ns = max(1, int(5e8 / per_second))
    else:
        settings.scenario = module.TestScenario.Offline
        settings.offline_expected_qps = max(1.0, 2 * per_second)
    return settings


def _issue_queries(
    module: Any, runner: Runner, frames: Sequence[Image], failures: list[Exception]
) -> Callable[[Sequence[Any]], None]:
    """Return LoadGen's callback, which appends to `failures` what the row raises."""
    size = runner.row.batch

    def issue(queries: Sequence[Any]) -> None:
        for start in range(0, len(queries), size):
            batch = queries[start : start + size]
            # An exception in LoadGen's own thread would end the process: after a failure the
            # test continues without the row, and `run` discards it.
            if not failures:
                try:
                    runner.probabilities([frames[query.index] for query in batch])
                except Exception as error:
                    failures.append(error)
            # Without the answers, which LoadGen does not read where it measures time.
            responses = [module.QuerySampleResponse(query.id, 0, 0) for query in batch]
            module.QuerySamplesComplete(responses)

    return issue


def read_summary(text: str) -> dict[str, Any]:
    """Parse LoadGen's `mlperf_log_summary.txt`; a `CatdogError` says that it is none.

    Returns `valid`, the figures of `FIGURES` that the summary has, and of an invalid run the
    conditions that were not satisfied (`unsatisfied`).
    """
    result = re.search(r"^Result is : (\w+)", text, re.MULTILINE)
    if result is None:
        raise CatdogError("LoadGen's summary has no result; see mlperf_log_detail.txt beside it")
    found: dict[str, Any] = {"valid": result[1] == "VALID"}
    if broken := re.findall(r"^\s*(.+?) satisfied : NO\s*$", text, re.MULTILINE):
        found["unsatisfied"] = [one.lower() for one in broken]
    for name, pattern in FIGURES.items():
        if value := re.search(rf"^{pattern}\s*: ([0-9.]+)\s*$", text, re.MULTILINE):
            found[name] = float(value[1])
    return found
