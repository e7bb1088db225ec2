from __future__ import annotations

import pytest

from catdog_edge.cli import RECIPES as OFFERED
from catdog_edge.errors import CatdogError
from catdog_edge.training.recipes import RECIPES, recipe


def test_the_command_line_offers_the_recipes_that_there_are() -> None:
    assert tuple(RECIPES) == OFFERED


def test_classic_is_the_known_systems_recipe() -> None:
    classic = recipe("classic")
    assert (classic.optimizer, classic.lr, classic.batch_size, classic.epochs) == (
        "adam", 1e-3, 20, 40,
    )  # fmt: skip
    assert classic.weight_decay == classic.label_smoothing == classic.ema == 0
    assert {classic.rate(step, 100) for step in range(100)} == {1.0}
    assert classic.epochs_for(100, 20) == classic.epochs_for(100_000, 20) == 40


def test_default_rises_then_falls_to_zero() -> None:
    default = recipe("default")
    rates = [default.rate(step, 1000) for step in range(1000)]
    top = rates.index(max(rates))
    assert rates[0] > 0
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.01


def test_small_sets_get_more_epochs_within_limits() -> None:
    default = recipe("default")
    small, large = default.epochs_for(320, 64), default.epochs_for(20_000, 64)
    assert large == default.epochs
    assert small >= large
    assert default.epochs_for(2, 64) <= max(default.most_epochs, default.epochs)


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(CatdogError, match="default, classic"):
        recipe("secret")
