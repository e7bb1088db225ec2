"""Scales of the logits: the temperature, and the scale of the score `known`."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="inference needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge.training.evaluation.calibration import (
    calibrated,
    fit_known_scale,
    fit_temperature,
    known_logit,
)
from catdog_edge.training.evaluation.inference import known
from catdog_edge.training.evaluation.metrics import softmax
from catdog_edge.training.evaluation.rejection import choose_threshold


def test_known_is_the_sigmoid_of_its_logit() -> None:
    values = np.random.default_rng(2).normal(0, 3, (50, 3)).astype(np.float32)
    assert known(values) == pytest.approx(1 / (1 + np.exp(-known_logit(values))), abs=1e-5)


def test_scores_are_spread_with_one_half_at_the_threshold() -> None:
    draw = np.random.default_rng(3)

    def logits(mean: float) -> np.ndarray:
        values = np.zeros((2000, 3), np.float32)
        values[:, 0] = draw.normal(mean, 12, 2000)
        values[:, 1] = -30
        return values

    # Crowded at 0 and 1 and 20 too high, as scores of an overconfident network are.
    seen, unseen = {"a": logits(45)}, {"b": logits(-5)}
    scale, shift = fit_known_scale(seen, unseen)

    assert scale < 0.5
    answered, others = (known(calibrated(one, scale, shift)) for one in (seen["a"], unseen["b"]))
    assert choose_threshold({"a": answered}, {"b": others}) == pytest.approx(0.5, abs=0.05)
    assert ((answered > 0.1) & (answered < 0.9)).mean() > 0.03


def test_the_scale_is_the_one_that_the_scores_were_drawn_with() -> None:
    draw = np.random.default_rng(4)
    z = draw.uniform(-40, 60, 20_000)
    values = np.stack([z, np.full_like(z, -1e3), np.zeros_like(z)], axis=1).astype(np.float32)
    of_a_class = draw.random(len(z)) < 1 / (1 + np.exp(-0.1 * (z - 10)))
    scale, shift = fit_known_scale({"a": values[of_a_class]}, {"b": values[~of_a_class]})
    assert scale == pytest.approx(0.1, rel=0.1)
    assert shift == pytest.approx(1, abs=0.2)


def test_the_temperature_is_the_one_that_the_logits_were_made_with():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (20_000, 3)).astype(np.float32)
    labels = (softmax(logits).cumsum(1) > rng.random((20_000, 1))).argmax(1)
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.05)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, abs=0.15)
    certain = np.eye(3, dtype=np.float32)[labels] * 9
    assert fit_temperature(certain, labels) == pytest.approx(0.25, rel=1e-3)
    assert fit_temperature(certain, (labels + 1) % 3) == pytest.approx(8, rel=1e-3)


def test_scores_that_nothing_or_all_separates_get_the_outermost_scales() -> None:
    apart, alike = np.zeros((40, 2), np.float32), np.zeros((40, 2), np.float32)
    apart[:, 0], alike[:, 0] = 9, np.tile([-9, 9], 20)
    assert fit_known_scale({"a": apart}, {"b": -apart})[0] == pytest.approx(2, rel=1e-3)
    assert fit_known_scale({"a": alike}, {"b": alike})[0] == pytest.approx(0.02, rel=1e-3)
