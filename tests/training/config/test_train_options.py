"""The recipe that the options of `train` result in, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import spec_for

from catdog_edge.errors import CatdogError
from catdog_edge.training.config.recipes import RECIPES, Stage
from catdog_edge.training.config.train_options import (
    TrainOptions,
    check_batch,
    check_count,
    check_scales,
    settled_recipe,
    wants_pretrained,
)

OPTIONS = TrainOptions(
    data=(), labels=None, split=(80, 10, 10), limit=None, arch=None, recipe=None,
    epochs=None, batch_size=None, lr=None, size=None, pretrained=None, freeze=None, teacher=None,
    other=(), name=None, seed=0, patience=0, device="cpu", precision="float32",
)  # fmt: skip


def test_whether_imagenet_weights_are_asked_for() -> None:
    assert wants_pretrained(OPTIONS) is None
    assert wants_pretrained(replace(OPTIONS, freeze=False)) is None
    assert wants_pretrained(replace(OPTIONS, freeze=True)) is True
    assert wants_pretrained(replace(OPTIONS, freeze=True, teacher=Path("t.pt"))) is False
    assert wants_pretrained(replace(OPTIONS, recipe="finetune", teacher=Path("t.pt"))) is True
    assert wants_pretrained(replace(OPTIONS, recipe="default")) is False
    assert wants_pretrained(replace(OPTIONS, recipe="finetune", pretrained=False)) is False


def test_options_win_over_the_recipe() -> None:
    usual = RECIPES["default"]
    assert settled_recipe(OPTIONS, "default") == usual
    assert settled_recipe(replace(OPTIONS, pretrained=True), "default").name == "finetune"
    assert settled_recipe(replace(OPTIONS, recipe="classic"), "default").name == "classic"
    half = settled_recipe(replace(OPTIONS, batch_size=usual.batch_size // 2), "default")
    assert half.lr == pytest.approx(usual.lr / 2)
    twice = settled_recipe(replace(OPTIONS, batch_size=usual.batch_size * 2), "default")
    assert (twice.lr, twice.batch_size) == (usual.lr, usual.batch_size * 2)
    told = settled_recipe(replace(OPTIONS, epochs=7, lr=0.5, freeze=True), "default")
    assert (told.epochs, told.lr, told.freeze, told.least_steps) == (7, 0.5, True, 0)
    assert half.least_steps == usual.least_steps > 0


def test_two_images_for_each_process() -> None:
    check_batch(4, 2)
    check_count(4, 2)
    with pytest.raises(CatdogError, match="give --batch-size 4 or more"):
        check_batch(3, 2)
    with pytest.raises(CatdogError, match="3 training images are too few for 2 processes"):
        check_count(3, 2)


def test_a_size_at_which_nothing_is_left_is_refused() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 9), torch.nn.MaxPool2d(2))
    check_scales(network, spec_for(size=10), RECIPES["classic"])
    assert network.training
    with pytest.raises(CatdogError, match=r"cannot take images of 9 x 9.*give a larger --size"):
        check_scales(network, spec_for(size=9), RECIPES["classic"])
    with pytest.raises(CatdogError, match=r"cannot take images of 1 x 1: .*scale 0\.1"):
        check_scales(
            network, spec_for(size=4), replace(RECIPES["default"], stages=(Stage(1, (0.1,)),))
        )
    staged = replace(RECIPES["default"], stages=(Stage(0.5, (0.9, 1)), Stage(1, (1,))))
    with pytest.raises(CatdogError, match=r"9 x 9.*larger scale 0\.9 of recipe default"):
        check_scales(network, spec_for(size=10), staged)
