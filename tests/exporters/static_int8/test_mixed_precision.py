"""Which kind of int8, and which layers of it, are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="quantizing needs torch; install [train]")
onnx = pytest.importorskip("onnx", reason="quantizing needs onnx; install [train]")
pytestmark = pytest.mark.train

import onnx_ir as ir
from support.models.tiny_nets import compared, pictures

from catdog_edge.errors import GateError, ModelError
from exporters.checks.acceptance import Verification
from exporters.graph.onnx_file import write_model
from exporters.static_int8 import quantize
from exporters.static_int8.mixed_precision import (
    rank_layers,
    restore_worst_to_float,
    search_schemes,
)
from exporters.static_int8.optimized_graph import integer_layers, optimized_graph


def written(model: ir.Model, calibrated: quantize.Calibrated, path: Path) -> Path:
    write_model(model, path, calibrated.spec)
    return path


def test_the_worst_layers_go_back_to_float_until_the_answers_hold(
    fragile_file: Path, tmp_path: Path
) -> None:
    calibrated = quantize.calibrate(fragile_file, pictures(40, seed=9))
    ranked = []

    def judge(model: ir.Model) -> Verification:
        return compared(fragile_file, written(model, calibrated, tmp_path / "static.onnx"))

    def rank():
        ranked.append(rank_layers(calibrated, fragile_file, pictures(24, seed=9)))
        return ranked[-1]

    found = restore_worst_to_float(calibrated, judge, rank)
    assert not found.steps[0].verification.passed
    assert found.steps[0].in_float == ()
    assert found.passed
    assert set(found.in_float) == {"layers.loud", "layers.deaf"}
    assert found.in_float == tuple(entry.layer for entry in found.ranking[: len(found.in_float)])
    assert len(ranked) == 1
    errors = [entry.error for entry in found.ranking]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 5 * errors[-1]
    path = written(found.model, calibrated, tmp_path / "kept.onnx")
    assert not integer_layers(optimized_graph(path), found.in_float)


def test_giving_back_stops_and_says_that_it_did_not_help(
    fragile_file: Path, tmp_path: Path
) -> None:
    calibrated = quantize.calibrate(fragile_file, pictures(40, seed=9))

    def judge(model: ir.Model) -> Verification:
        return compared(fragile_file, written(model, calibrated, tmp_path / "static.onnx"))

    found = restore_worst_to_float(calibrated, judge, lambda: (), most=0)
    assert not found.passed
    assert len(found.steps) == 1
    assert "the same answer on" in found.steps[0].verification.failures[0]


def test_kinds_of_int8_are_tried_until_one_holds_and_the_best_is_named(
    fp32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated, same = quantize.calibrate(fp32, pictures(4)), compared(fp32, fp32)
    assert same.accuracy is not None
    monkeypatch.setattr("exporters.static_int8.mixed_precision.MOST_IN_FLOAT", 0.0)

    def search(judge: Callable[[], Verification]) -> tuple[str, bool, list[str]]:
        kind, found, attempts = search_schemes(calibrated, fp32, pictures(4), lambda _: judge())
        return kind, found.passed, [attempt["scheme"] for attempt in attempts]

    def worse(change: float) -> Verification:
        accuracy = replace(same.accuracy, change=change)
        return replace(
            same, failures=("off",), comparison=replace(same.comparison, accuracy=accuracy)
        )

    verdicts = iter([worse(-0.1), same])
    assert search(lambda: next(verdicts)) == ("s8s8", True, ["u8s8", "s8s8"])
    verdicts = iter([worse(-0.3), worse(-0.1), worse(-0.2)])
    assert search(lambda: next(verdicts)) == ("s8s8", False, ["u8s8", "s8s8", "u8u8"])

    def refuse() -> Verification:
        raise GateError("no probabilities")

    with pytest.raises(ModelError, match="no kind of int8 loads"):
        search(refuse)
