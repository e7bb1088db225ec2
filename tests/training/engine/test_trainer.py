"""The loop itself, on a network of a few weights: figures, files, patience, and a resume."""

from __future__ import annotations

import copy
import csv
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from support.models.tiny_nets import TinyNet, spec_for

from catdog_edge.errors import CatdogError
from catdog_edge.spec import Rejection
from catdog_edge.training.config.recipes import Recipe, Stage
from catdog_edge.training.engine.batches.loader import Batch
from catdog_edge.training.engine.distillation import Teacher
from catdog_edge.training.engine.history import EpochMetrics, StepMetrics
from catdog_edge.training.engine.trainer import Plan, Trainer, TrainingData
from catdog_edge.training.evaluation.inference import logits, to_input
from catdog_edge.training.models.checkpoint import read_checkpoint, save_checkpoint
from catdog_edge.training.models.imagenet_head import (
    build_grouped,
    class_groups,
    head_linear,
    without_groups,
)
from catdog_edge.training.models.registry import CENTRED

RECIPE = Recipe(
    name="tiny", optimizer="sgd", lr=0.01, batch_size=8, epochs=2, augment="none",
    schedule="cosine", warmup=0.2,
)  # fmt: skip
RNG = np.random.default_rng(0)
LABELS = np.arange(24) % 3
PIXELS = np.clip(LABELS[:, None, None, None] * 90 + RNG.normal(30, 9, (24, 32, 32, 3)), 0, 255)
TRAIN = PIXELS.astype(np.uint8), LABELS.astype(np.int64)
VAL = TRAIN[0][::2], TRAIN[1][::2]


def trainer(folder: Path, recipe: Recipe = RECIPE, epochs: int = 2, patience: int = 0) -> Trainer:
    torch.manual_seed(3)
    plan = Plan(recipe, epochs, 8, recipe.lr, 1, patience, "float32", "cpu")
    return Trainer(TinyNet(3), spec_for(), plan, TrainingData(TRAIN, VAL), folder)


def run(one: Trainer, stop_after: int = 1000) -> tuple[bool, list[StepMetrics], list[tuple]]:
    steps: list[StepMetrics] = []
    epochs: list[tuple] = []
    done = one.run(
        lambda: len(steps) >= stop_after - 1, steps.append, lambda *seen: epochs.append(seen)
    )
    return done, steps, epochs


def test_figures_and_files_of_a_run(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    done, steps, epochs = run(one)
    assert done
    assert one.finished
    assert [(s.epoch, s.step, s.steps) for s in steps] == [
        (epoch, step, 3) for epoch in (1, 2) for step in (1, 2, 3)
    ]
    assert all(s.seconds_left >= 0 for s in steps)
    assert steps[-1].seconds_left == 0
    assert steps[0].seconds_left == pytest.approx(5 * one.history[0].seconds / 3, rel=2)
    rows = [metrics for metrics, _, _ in epochs]
    assert rows == one.history
    assert [row.epoch for row in rows] == [1, 2]
    assert [row.lr for row in rows] == pytest.approx([0.01 * RECIPE.rate(i, 6) for i in (2, 5)])
    assert [left for _, _, left in epochs] == [pytest.approx(rows[0].seconds), 0]
    assert rows[0].pictures_per_second == pytest.approx(24 / rows[0].seconds)
    assert steps[2].loss == pytest.approx(rows[0].train_loss)
    assert one._interval == 0, "on a CPU the sums are those of each step"
    assert steps[2].accuracy == pytest.approx(rows[0].train_accuracy)
    # A run that is resumed after an upgrade goes on with the same dropout.
    assert torch.initial_seed() == (1_000_003 + 5) * 1009
    values = logits(one.network, one.spec.normalization, VAL[0])
    assert rows[1].val_accuracy == (values.argmax(1) == VAL[1]).mean()
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(values), torch.from_numpy(VAL[1]))
    assert rows[1].val_loss == pytest.approx(float(loss), rel=1e-4)
    best = one.best_epoch()
    assert [is_best for _, is_best, _ in epochs][-1] is (best is rows[1])
    with (tmp_path / "results.csv").open() as stream:
        written = list(csv.DictReader(stream))
    assert [row["epoch"] for row in written] == ["1", "2"]
    assert [row["val_loss"] for row in written] == [f"{row.val_loss:.6g}" for row in rows]
    training = read_checkpoint(tmp_path / "last.pt")[0]["training"]
    assert (training["epoch"], training["step"], training["seen"]) == (2, 0, 0)
    assert (tmp_path / "best.pt").is_file()


def test_a_resumed_run_has_the_weights_of_a_whole_one(tmp_path: Path) -> None:
    recipe = replace(RECIPE, ema=0.9, optimizer="muon", label_smoothing=0.1)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, cut = trainer(tmp_path / "a", recipe), trainer(tmp_path / "b", recipe)
    run(whole)
    done, steps, _ = run(cut, stop_after=5)
    assert not done
    assert (len(steps), cut.epoch, cut.step, cut.seen) == (5, 1, 2, 16)
    again = trainer(tmp_path / "b", recipe)
    again.restore(tmp_path / "b" / "last.pt")
    assert run(again)[0]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
    assert whole.averaged is not None
    assert again.averaged is not None
    for name, value in whole.averaged.state_dict().items():
        assert torch.equal(value, again.averaged.state_dict()[name]), name
    with pytest.raises(CatdogError, match=r"best\.pt holds no training state; only last\.pt can"):
        again.restore(tmp_path / "b" / "best.pt")
    plain = trainer(tmp_path / "b", replace(recipe, ema=0.0))
    plain.restore(tmp_path / "b" / "last.pt")
    assert plain.finished
    (tmp_path / "c").mkdir()
    run(trainer(tmp_path / "c", replace(recipe, ema=0.0)))
    with pytest.raises(CatdogError, match=r"does not fit the recipe in args\.yaml beside it; put"):
        again.restore(tmp_path / "c" / "last.pt")  # without an average
    other = trainer(tmp_path / "b", replace(recipe, momentum=0.5))
    with pytest.raises(CatdogError, match=r"does not fit the recipe.*momentum was 0\.9"):
        other.restore(tmp_path / "b" / "last.pt")


def test_the_average_follows_quickly_at_first(tmp_path: Path) -> None:
    one = trainer(tmp_path, replace(RECIPE, ema=0.9))
    expected, weights = one.network.head.weight.detach().clone(), one.network.head.weight
    for decay in (1 / 10, 2 / 11):
        for batch in [*one._loader.epoch(0)][one.step : one.step + 1]:
            one._train_step(batch, False)
        expected = decay * expected + (1 - decay) * weights.detach()
    torch.testing.assert_close(one.averaged.head.weight, expected)
    one.epoch = 40  # from where on it is the recipe's
    one._train_step(batch, False)
    expected = 0.9 * expected + 0.1 * weights.detach()
    torch.testing.assert_close(one.averaged.head.weight, expected)


def test_a_run_stopped_at_the_end_of_an_epoch_is_not_finished(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    done, steps, epochs = run(one, stop_after=3)
    assert (done, len(steps), len(epochs), one.epoch, one.step) == (False, 3, 1, 1, 0)
    assert run(one)[0]
    assert run(trainer(tmp_path), stop_after=6)[0], "stopped after its last step"


@pytest.mark.parametrize(("norms", "freeze"), [("frozen", False), ("built", True)])
def test_statistics_of_batch_norms_can_be_kept(tmp_path: Path, norms: str, freeze: bool) -> None:
    one = trainer(tmp_path, replace(RECIPE, norms=norms, freeze=freeze))
    before = {name: value.clone() for name, value in one.network.state_dict().items()}
    run(one)
    changed = {
        n for n, value in one.network.state_dict().items() if not torch.equal(value, before[n])
    }
    assert not [name for name in changed if "running" in name]
    assert ("first.weight" in changed) is not freeze
    assert "head.weight" in changed


def test_batch_norms_that_a_recipe_adds_are_folded_into_what_is_kept(tmp_path: Path) -> None:
    one = trainer(tmp_path, replace(RECIPE, norms="folded"))
    run(one)
    assert "second.norm.weight" in one.network.state_dict()
    kept = TinyNet(3)
    kept.load_state_dict(one._weights_to_keep())
    ours, theirs = (logits(net, one.spec.normalization, VAL[0]) for net in (one.network, kept))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_sums_that_are_seldom_read_end_as_those_of_each_step(tmp_path: Path) -> None:
    often, seldom = trainer(tmp_path), trainer(tmp_path)
    seldom._interval = 1e9  # as on a GPU, which is rarely asked for them
    _, steps, _ = run(often)
    _, fewer, _ = run(seldom)
    for one, other in zip(often.history, seldom.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-12)
        assert other.train_accuracy == one.train_accuracy
    assert [one.loss == fewer[0].loss for one in fewer[:3]] == [True, True, False]
    assert fewer[0].loss == steps[0].loss
    cut = trainer(tmp_path)
    cut._interval = 1e9
    run(cut, stop_after=2)
    training = read_checkpoint(tmp_path / "last.pt")[0]["training"]
    assert training["loss_sum"] / 16 == pytest.approx(steps[1].loss, rel=1e-12)


def test_a_view_is_an_epoch_that_repeats(tmp_path: Path) -> None:
    one, plain = trainer(tmp_path, replace(RECIPE, views=3), epochs=9), trainer(tmp_path, epochs=9)
    for epoch, view in ((0, 0), (2, 2), (3, 0), (8, 2)):
        one.epoch = plain.epoch = epoch
        assert (one._view, plain._view) == (view, epoch)


@pytest.mark.parametrize(("ago", "saved"), [(110, False), (121, True)])
def test_an_epoch_is_saved_every_two_minutes(tmp_path: Path, ago: float, saved: bool) -> None:
    one, there = trainer(tmp_path), []
    one._saved -= ago
    one.run(lambda: False, lambda _: there.append((tmp_path / "last.pt").exists()), lambda *_: None)
    assert there[:3] == [False, saved, saved]


def test_imbalanced_classes_are_weighted_unless_the_recipe_says_no(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "catdog_edge")
    labels = np.repeat([0, 1, 2], [12, 9, 3]).astype(np.int64)
    for recipe in (RECIPE, replace(RECIPE, balance="none")):
        plan = Plan(recipe, 1, 8, 0.01, 1, 0, "float32", "cpu")
        data = TrainingData((TRAIN[0], labels), VAL)
        one = Trainer(TinyNet(3), spec_for(), plan, data, tmp_path)
        assert (one.criterion._weights is None) is (recipe is not RECIPE)
    assert caplog.text.count("the largest class has 4.0 times the images of the smallest") == 1


def test_a_kill_after_the_last_save_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trainer(tmp_path, epochs=1)
    save = one.save

    def save_and_die() -> None:
        save()
        raise KeyboardInterrupt

    monkeypatch.setattr(one, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        run(one)
    again = trainer(tmp_path, epochs=1)
    again.restore(tmp_path / "last.pt")
    assert again.finished, "nothing is left that would write the row"
    with (tmp_path / "results.csv").open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1"]


def test_patience_and_the_last_epoch_end_a_run(tmp_path: Path) -> None:
    one = trainer(tmp_path, epochs=9, patience=2)
    one.history = [EpochMetrics(n, 0, 0, 0, 1 + n, 1.0, 1, 1) for n in (1, 2)]
    one.epoch = 2
    assert not one.finished
    one.epoch = 3
    assert one.finished
    assert trainer(tmp_path, epochs=0).finished


def test_kept_weights_are_mixed_with_those_of_the_start(tmp_path: Path) -> None:
    one = trainer(tmp_path, replace(RECIPE, start_share=0.25))
    start = one.network.head.weight.detach().clone()
    with torch.no_grad():
        one.network.head.weight.add_(1.0)
    torch.testing.assert_close(one._weights_to_keep()["head.weight"], start + 0.75)


def test_the_time_left_counts_the_sizes_of_the_stages(tmp_path: Path) -> None:
    stages = (Stage(0.5, (0.5,)), Stage(1, (1.0, 0.5)))
    one = trainer(tmp_path, replace(RECIPE, stages=stages), epochs=4)
    assert one._seconds_after(0, 1.0) == pytest.approx((0.25 + 2 * 0.625) / 0.25)
    assert one._seconds_after(3, 1.0) == 0


def test_the_loss_adds_those_of_the_teacher_and_of_the_pretrained_weights(tmp_path: Path) -> None:
    name = "efficientnet_lite0_short"
    recipe = replace(
        RECIPE, pretrained=True, keep_imagenet=0.5, distillation=0.25, distillation_temperature=3.0,
        distillation_mirrored=False,
    )  # fmt: skip
    spec = spec_for(CENTRED, ("a", "b"), name=name).replace(rejection=Rejection("known", 0.5))
    torch.manual_seed(5)
    network, other = build_grouped(name, (2, 3, 4)), build_grouped(name, (2, 3, 4))
    save_checkpoint(tmp_path / "teacher.pt", other.state_dict(), spec)
    teacher = Teacher(tmp_path / "teacher.pt", spec.labels, torch.device("cpu"), "float32")
    plan = Plan(recipe, 2, 8, recipe.lr, 1, 0, "float32", "cpu")
    one = Trainer(network, spec, plan, TrainingData(TRAIN, VAL), tmp_path, teacher)
    without = replace(plan, recipe=replace(recipe, keep_imagenet=0.0))
    assert Trainer(network, spec, without, TrainingData(TRAIN, VAL), tmp_path)._reference is None
    pixels, labels = torch.from_numpy(TRAIN[0][:6]), torch.tensor([0, 1, 2, 2, 1, 0])
    targets = teacher.targets(Batch(pixels, labels, pixels), recipe, (0, 0))

    log_softmax, members = torch.nn.functional.log_softmax, [[0, 1], [2, 3, 4], [5, 6, 7, 8]]
    inputs, copied = to_input(pixels, CENTRED), copy.deepcopy(one.network)
    frozen = without_groups(copy.deepcopy(one.network)).eval()(inputs).detach()
    torch.manual_seed(9)  # of dropout
    outputs = copied.train()(inputs)
    wanted = torch.nn.functional.cross_entropy(outputs, labels)
    categories = class_groups(copied).take_categories()
    for row, label in enumerate(labels):
        own, start = (log_softmax(x[row, members[label]], 0) for x in (categories, frozen))
        wanted = wanted + 0.5 * (start.exp() * (start - own)).sum() / 6
    own, said = (log_softmax(x / 3, 1) for x in (categories, targets))
    wanted = 0.75 * wanted + 0.25 * 9 * (said.exp() * (said - own)).sum(1).mean()
    (0.5 * wanted).backward()

    one.network.train()
    torch.manual_seed(9)
    summed, right = one._backward(pixels, labels, targets, weight=0.5).tolist()
    assert summed == pytest.approx(6 * wanted.item(), rel=1e-4)
    assert right == (outputs.argmax(1) == labels).sum()
    head, theirs = (head_linear(net).weight.grad for net in (one.network, copied))
    torch.testing.assert_close(head, theirs, rtol=1e-3, atol=1e-6)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    with torch.no_grad():
        one.network.head.weight.fill_(float("inf"))
    with pytest.raises(CatdogError, match="the loss is not finite in epoch 1, step 1"):
        run(one)


def test_a_failed_step_ends_the_thread_that_prepares_batches(tmp_path: Path) -> None:
    one, before = trainer(tmp_path), set(threading.enumerate())
    one.criterion = torch.nn.CrossEntropyLoss(torch.full((3,), float("nan")))
    with pytest.raises(CatdogError, match="not finite") as caught:  # its traceback is kept
        run(one)
    started = set(threading.enumerate()) - before
    assert not [thread for thread in started if thread.name.startswith("batches")]
    assert caught.tb is not None
