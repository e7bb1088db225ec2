from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytest.importorskip("yaml", reason="training needs pyyaml; install [train]")
pytestmark = pytest.mark.train

import yaml
from click.testing import CliRunner

from catdog_edge.cli.main import main
from catdog_edge.cli.options import RECIPES as OFFERED
from catdog_edge.errors import CatdogError
from catdog_edge.training.config.recipes import RECIPES, Recipe, Stage, recipe
from catdog_edge.training.engine.optim import make_optimizer


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


def test_the_rate_rises_in_equal_steps_then_falls_along_a_cosine() -> None:
    waved = replace(recipe("default"), schedule="cosine", warmup=0.25)
    half = 0.5**0.5 / 2
    assert [waved.rate(step, 16) for step in (0, 1, 2, 3)] == [0.25, 0.5, 0.75, 1]
    assert [waved.rate(step, 16) for step in (4, 7, 10, 13)] == pytest.approx(
        [1, 0.5 + half, 0.5, 0.5 - half]
    )
    flat = replace(waved, schedule="constant")
    assert [flat.rate(step, 8) for step in (0, 1, 2, 7)] == [0.5, 1, 1, 1]
    assert replace(waved, warmup=0.01).rate(0, 16) == 1
    assert replace(waved, warmup=0).rate(1, 4) == pytest.approx(0.5 + half)


def test_small_sets_get_more_epochs_within_limits() -> None:
    stretched = replace(recipe("default"), epochs=10, least_steps=1000, most_epochs=50)
    assert stretched.epochs_for(20_000, 64) == 10
    assert stretched.epochs_for(64 * 24, 64) == 42  # 24 steps an epoch
    assert stretched.epochs_for(64 * 24 + 1, 64) == 40
    assert stretched.epochs_for(320, 64) == 50
    assert replace(stretched, least_steps=20, most_epochs=99).epochs_for(0, 64) == 20


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(CatdogError, match="default, classic"):
        recipe("secret")


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_shown_is_what_a_file_may_hold(tmp_path: Path, name: str) -> None:
    shown = CliRunner().invoke(main, ["train", "--recipe", name, "--show-recipe"])
    assert shown.exit_code == 0, shown.output
    (tmp_path / f"{name}.yaml").write_text(shown.stdout)
    assert recipe(str(tmp_path / f"{name}.yaml")) == RECIPES[name]
    assert not (tmp_path / "runs").exists()


def test_options_change_what_is_shown() -> None:
    shown = CliRunner().invoke(
        main, ["train", "--show-recipe", "--batch-size", "32", "--epochs", "3", "--no-pretrained"]
    )
    document = yaml.safe_load(shown.stdout)
    assert (document["batch_size"], document["epochs"], document["pretrained"]) == (32, 3, False)
    assert document["lr"] == pytest.approx(recipe("default").lr / 2)


def test_pretrained_weights_get_a_recipe_that_keeps_them() -> None:
    shown = CliRunner().invoke(main, ["train", "--show-recipe", "--pretrained"])
    assert yaml.safe_load(shown.stdout) == recipe("finetune").to_dict()
    frozen = CliRunner().invoke(main, ["train", "--show-recipe", "--freeze"])  # as it trains
    assert yaml.safe_load(frozen.stdout) == recipe("finetune").to_dict() | {"freeze": True}


def test_a_file_needs_only_what_has_no_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "optimizer: sgd\nlr: 1e-3\nbatch_size: 8\nepochs: 5\naugment: none\n"
        "stages: [{until: 0.5, scales: [0.5, 0.75]}, {until: 1, scales: [1]}]\n"
    )
    mine = recipe(str(file))
    assert {name: one for name, one in mine.to_dict().items() if name != "stages"} == {
        "name": "mine", "optimizer": "sgd", "lr": 1e-3, "batch_size": 8, "epochs": 5,
        "augment": "none", "schedule": "constant", "warmup": 0, "weight_decay": 0, "momentum": 0.9,
        "label_smoothing": 0, "ema": 0, "least_steps": 0, "most_epochs": 0, "pretrained": False,
        "freeze": False, "norms": "built", "detail": 1, "views": 0, "balance": "auto",
        "source_balance": 0.4, "head": "new", "keep_imagenet": 0,
        "group_temperature": 1, "start_share": 0,
        "negatives": 0.15, "backgrounds": 0, "drawn": 0.4, "distillation": 0.5,
        "distillation_temperature": 2, "distillation_mirrored": True,
    }  # fmt: skip
    assert [mine.scales(epoch, 5) for epoch in range(5)] == [(0.5, 0.75)] * 2 + [(1.0,)] * 3
    assert recipe("default").scales(3, 16) == (1.0,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("optimizer: [", "is not YAML"),
        ("just words", "is not a recipe"),
        ("optimiser: sgd", "a recipe has no 'optimiser'; it has: name, optimizer"),
        ("optimizer: sgd", "lacks lr, batch_size, epochs, augment"),
        ("lr: fast", "lr is 'fast'; expected a finite number"),
        ("lr: .nan", "lr is nan; expected a finite number"),
        ("lr: .inf", "lr is inf; expected a finite number"),
        ("lr: -1", "lr is -1.0; give 1e-09 to 1000"),
        ("epochs: 2.5", "epochs is 2.5; expected a whole number"),
        ("epochs: true", "epochs is True; expected a whole number"),
        ("augment: strong", "augment is 'strong'; choose one of: default, camera, classic, none"),
        ("freeze: maybe", "freeze is 'maybe'; expected true or false"),
        ("stages: [{until: 0.5, scales: [1]}]", "the stages of the recipe bad end at [0.5]"),
        ("stages: [{until: 1}]", "the stage lacks scales"),
        ("stages: [{until: 1, scales: [9]}]", "scales is 9.0; give 0.1 to 2"),
        ("stages: [{until: 1, scales: []}]", "a stage has no scales"),
        ("stages: 3", "stages is 3; expected a list"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "bad.yaml"
    whole = {"optimizer": "sgd", "lr": 0.1, "batch_size": 8, "epochs": 5, "augment": "none"}
    fragment = text if text in ("optimizer: [", "just words", "optimizer: sgd") else None
    if fragment is None:
        file.write_text(yaml.safe_dump({**whole, **yaml.safe_load(text)}))
    else:
        file.write_text(fragment)
    answer = CliRunner().invoke(main, ["train", "--recipe", str(file)])
    assert answer.exit_code == 1
    assert reason in answer.stderr
    assert "bad" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [
        "2024-13-45", "!!int abc", "!!bool abc", "!!timestamp abc", "!!float ''",
        pytest.param("7" * 401, id="401 digits"), pytest.param("7" * 5001, id="5001 digits"),
        pytest.param("0x" + "f" * 5000, id="5000 hexadecimal digits"),
        pytest.param("[0x" + "f" * 5000 + "]", id="a list of them"),
        pytest.param("[" * 3000, id="3000 brackets"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["lr", "stages"])
def test_nonsense_of_any_kind_is_one_line(tmp_path: Path, name: str, value: str) -> None:
    document = {
        "optimizer": "sgd",
        "lr": "0.1",
        "batch_size": "8",
        "epochs": "5",
        "augment": "none",
    }
    document[name] = value
    file = tmp_path / "bad.yaml"
    file.write_text("".join(f"{key}: {text}\n" for key, text in document.items()))
    with pytest.raises(CatdogError, match=r"bad\.yaml") as caught:
        recipe(str(file))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(file)) + 300


@pytest.mark.parametrize(("name", "most"), [("views", 1_000_000), ("start_share", 1)])
def test_counts_and_fractions_begin_at_zero(name: str, most: int) -> None:
    for value in (0, most):
        assert getattr(replace(RECIPES["default"], **{name: value}), name) == value
    for value in (-1, most + 1):
        with pytest.raises(CatdogError, match=f"{name} is {value}"):
            replace(RECIPES["default"], **{name: value})


def test_the_reason_why_a_file_is_not_yaml_is_short(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(f"lr: [{'x' * 200}: {'y' * 200}: 1]\n- 3")
    with pytest.raises(CatdogError, match=r"bad\.yaml is not YAML \(.{120}\); correct it"):
        recipe(str(tmp_path / "bad.yaml"))


def test_sgd_without_momentum_is_an_optimizer() -> None:
    plain = replace(recipe("finetune"), momentum=0.0)
    assert make_optimizer(torch.nn.Linear(2, 2), plain, 0.1).defaults["nesterov"] is False


def test_an_absent_file_and_an_unknown_name(tmp_path: Path) -> None:
    absent = CliRunner().invoke(main, ["train", "--recipe", str(tmp_path / "absent.yaml")])
    assert absent.exit_code == 1
    assert "--show-recipe > absent.yaml" in absent.stderr
    unknown = CliRunner().invoke(main, ["train", "--recipe", "secret"])
    assert unknown.exit_code == 2
    assert "not one of default, classic, finetune, accurate, distil, fast" in unknown.stderr


def test_a_recipe_is_shown_in_the_order_of_its_attributes() -> None:
    lines = RECIPES["classic"].to_yaml().splitlines()
    names = [line.split(":")[0] for line in lines if not line.startswith((" ", "-"))]
    assert names == [field.name for field in fields(Recipe)]
    stages = (Stage(0.5, (0.5,)), Stage(1, (1.0, 0.75)))
    staged = replace(RECIPES["default"], stages=stages)
    assert [staged.scales(epoch, 4) for epoch in range(5)] == [
        *[(0.5,)] * 2,
        *[(1.0, 0.75)] * 3,
    ]
    assert replace(staged, stages=()).scales(3, 4) == (1.0,)
