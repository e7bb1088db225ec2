"""A bench document of invented figures, for the tests of what is made from one.

The parts are made by the same code as in a real run; `test_bench.py` holds its keys against
those of a real document.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.measure.corruptions import CORRUPTIONS
from benchmarks.measure.gpu import Gpu, GpuActivity
from benchmarks.measure.interleaved import Summary, WarmUp
from benchmarks.measure.parity import SHORT, class_figures, row_figures
from benchmarks.report.document import SCHEMA
from exporters.checks.comparison import compare_answers
from exporters.checks.timing import Latencies, Timing

LABELS = ("cat", "dog")
PICTURES = 600

ROWS = (  # base, engine, variant, provider, precision, p50 in ms, noise of the logits, MB
    ("pytorch", "pytorch", "eager", None, "fp32", 21.0, 0.0, 3.17),
    ("pytorch-channels-last", "pytorch", "channels-last", None, "fp32", 17.0, 1e-6, 3.17),
    ("model", "onnxruntime", None, "cpu", "fp32", 9.4, 1e-6, 3.15),
    ("model.dynamic", "onnxruntime", None, "cpu", "int8-dynamic", 9.2, 0.05, 1.16),
    ("model.half", "onnxruntime", None, "cpu", "fp16", 11.8, 0.01, 1.58),
    ("model.static", "onnxruntime", None, "cpu", "int8-static", 2.9, 0.4, 0.82),
)


GPU_ROWS = (
    *ROWS[:3],
    ("pytorch@cuda", "pytorch", "eager", None, "fp32", 0.95, 1e-4, 3.17),
    ("pytorch-half@cuda", "pytorch", "half", None, "fp32", 0.8, 0.01, 3.17),
    ("model@cuda", "onnxruntime", None, "cuda", "fp32", 0.22, 1e-4, 3.15),
)

GPU = Gpu(
    name="Example H1", memory_bytes=80 * 2**30, driver="580.1", cuda="13.0", cudnn="92400",
    max_clock_mhz=1980, clock_mhz=345, memory_clock_mhz=2619, used_bytes=2**29, busy=0.0,
    processes=1,
)  # fmt: skip
"""As the driver describes a card."""


def document(
    rows=ROWS, seed: int = 0, *, labels=LABELS, pictures: int = PICTURES, **changes: Any
) -> dict[str, Any]:
    """A document; `changes` replace its top-level entries."""
    classes = len(labels)
    rng = np.random.default_rng(seed)
    truth = np.arange(pictures) % classes
    margin = rng.normal(2.6, 1.7, pictures)
    seconds = {}
    wander = rng.normal(1.0, 0.02, 24)
    for base, *_, p50, _, _ in rows:
        calls = p50 / 1e3 * wander[:, None] * rng.gamma(60, 1 / 60, (24, 30))
        slow = rng.random(calls.shape) < 0.03
        seconds[base] = np.where(slow, calls * rng.uniform(1.2, 1.9, calls.shape), calls)
    timing = Timing(
        {
            base: Latencies(calls.ravel(), np.median(calls, axis=1))
            for base, calls in seconds.items()
        },
        rounds=24,
        pause=0.05,
    )
    answers = {
        base: _answers(margin + rng.normal(0, noise, pictures), truth, classes)
        for base, *_, noise, _ in rows
    }
    reference = answers[rows[0][0]]
    found = []
    with_gpu = any("@cuda" in base for base, *_ in rows)
    for base, engine, variant, provider, precision, p50, _, size in rows:
        on_gpu = "@cuda" in base
        to = "pytorch@cuda" if on_gpu else rows[0][0]
        summary = Summary.of(timing.rows[base])
        compared = compare_answers(reference, answers[base], truth)
        cold = {
            "runs": 3,
            "first_answer_s": 2.4 if engine == "pytorch" else 0.4,
            "first_answers_s": (2.3, 2.4, 2.6),
            "load_s": 0.04,
            "rss_bytes": 310_000_000 if engine == "pytorch" else 98_000_000,
            "peak_rss_bytes": 340_000_000 if engine == "pytorch" else 112_000_000,
            "gpu_bytes": 640_000_000 if on_gpu else None,
            "cpu_ms": p50 * 1.9,
            "wall_ms": p50,
            "torch_loaded": engine == "pytorch",
        }
        found.append(
            {
                "name": base,
                "base": base,
                "is_reference": base == rows[0][0],
                "engine": engine,
                "variant": variant,
                "provider": provider,
                "device": "cuda" if on_gpu else "cpu",
                "tf32": True if on_gpu and variant != "half" else None,
                "precision": precision,
                "architecture": "simple_cnn",
                "file": "best.pt" if engine == "pytorch" else f"{base}.onnx",
                "sha256": hashlib.sha256(base.encode()).hexdigest(),
                "size_bytes": int(size * 1e6),
                "threads": 2,
                "batch": 1,
                "ratio": {**asdict(timing.ratio(base, to=to)), "to": to},
                "latency": {
                    **asdict(summary),
                    "pictures_per_second": 1e3 / summary.mean_ms,
                    "warm_up": asdict(WarmUp(12, 0.3, True, p50 / 1e3)),
                },
                "stages_ms": {
                    "decode": 0.6,
                    "resize": 0.1,
                    "session": p50 - 0.15,
                    "rest": 0.05,
                    "answer": p50,
                },
                "cold": cold,
                "answers": row_figures(answers[base], truth, compared),
            }
        )
    results: dict[str, Any] = {}
    for strength, name in enumerate(("clean", *(one.name for one in CORRUPTIONS))):
        few = slice(0, 200)
        spoiled = {
            base: _answers(
                margin[few] - 0.35 * strength + rng.normal(0, noise * (1 + strength), 200),
                truth[few],
                classes,
            )
            for base, *_, noise, _ in rows
        }
        results[name] = {}
        for base, values in spoiled.items():
            compared = compare_answers(spoiled[rows[0][0]], values, truth[few])
            whole = row_figures(values, truth[few], compared)
            results[name][base] = {key: whole[key] for key in SHORT}
    made: dict[str, Any] = {
        "kind": "catdog-edge bench",
        "schema": SCHEMA,
        "tool_version": "0.1.0",
        "git_commit": "",
        "created": "2026-11-22T15:04:05+00:00",
        "command": "catdog-edge bench --seconds 60",
        "run": "cat_dog-simple_cnn-1",
        "model": {
            "architecture": "simple_cnn",
            "labels": list(labels),
            "height": 224,
            "width": 224,
            "temperature": 1.1,
            "trained_on": {"data": "cat_dog.zip"},
        },
        "data": {
            "name": "cat_dog.zip",
            "drawings": False,
            "split": "test",
            "pictures": pictures,
            "counts": {label: int((truth == i).sum()) for i, label in enumerate(labels)},
            "digest": "0123456789abcdef0123456789abcdef",
        },
        "settings": {
            "seconds": 60.0,
            "threads": [2],
            "batches": [1],
            "cold_starts": 3,
            "corruption_pictures": 200,
            "rounds": 24,
            "pass_starts": [0],
            "pause_ms": 50.0,
            "block_ms": 300.0,
        },
        "environment": {
            "processor": "Example 9000 (family 1, model 2)",
            "architecture": "x86_64",
            "flags": ["avx2", "avx512_vnni"],
            "processors_shown": 4,
            "processors_usable": 2,
            "quota": None,
            "threads": 2,
            "threads_source": "the processors that this process may run on",
            "memory_bytes": 8 * 2**30,
            "memory_available_bytes": 6 * 2**30,
            "system": "Linux 6.1, Example 12",
            "hypervisor": False,
            "governor": None,
            "python": "CPython 3.11.7",
            "packages": {"numpy": "2.4.6", "onnxruntime": "1.32.0", "torch": "2.14.1"},
            "variables": {},
            "load_before": [0.1, 0.1, 0.1],
            "gpu": asdict(GPU) if with_gpu else None,
            "providers_asked": ["cpu"],
            "providers_obtained": ["cpu"],
        },
        "quiet": {
            "seconds": 90.0,
            "load_during": [1.6, 2.1],
            "load_after": [1.9, 0.9, 0.4],
            "others_busy": 0.02,
            "stolen": 0.0,
            "throttled_s": 0.0,
            "gpu": asdict(GpuActivity((1755, 1980), 12, {})) if with_gpu else None,
        },
        "noise": [],
        "answers_to": rows[0][0],
        "rows": found,
        "classes": class_figures(answers, truth),
        "left_out": [],
        "no_cold_start": [],
        "corruptions": {
            "pictures": 200,
            "set": [{"name": one.name, "says": one.says} for one in CORRUPTIONS],
            "results": results,
        },
        "originals": None,
        "loadgen": None,
        "flips": {
            "count": 0,
            "by_pictures": {
                name: {"disagreements": 0, "pictures": 0}
                for name in ("test", *(one.name for one in CORRUPTIONS))
            },
            "file": "bench-flips.csv",
        },
        "gates": [],
    }
    return {**made, **changes}


def _answers(margin: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities; the true class wins against the next one where the margin is above 0."""
    sure = 1 / (1 + np.exp(-margin))
    probabilities = np.zeros((len(truth), classes), np.float32)
    probabilities[np.arange(len(truth)), truth] = sure
    probabilities[np.arange(len(truth)), (truth + 1) % classes] = 1 - sure
    return probabilities
