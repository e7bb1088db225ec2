"""Which run a command takes: finished or not, locked or not, the newest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from catdog_edge.errors import CatdogError, ModelError
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.data.source_groups import kept_apart, sources_of
from catdog_edge.training.runs.run_folder import (
    Run,
    check_name,
    find_checkpoint,
    new_run,
    newest_run,
    newest_unfinished,
    run_of,
)


def make(root: Path, name: str, **times: int) -> Run:
    """A run folder whose files were modified at these seconds; underscores are dots."""
    folder = root / name
    folder.mkdir(parents=True)
    for file, seconds in times.items():
        path = folder / file.replace("_", ".")
        path.touch()
        os.utime(path, (seconds, seconds))
    return Run(folder)


def test_a_run_is_finished_once_its_summary_is_newer_than_its_weights(tmp_path: Path) -> None:
    assert make(tmp_path, "a", args_yaml=1, last_pt=5, summary_json=5).finished
    assert make(tmp_path, "b", args_yaml=1, summary_json=5).finished
    again = make(tmp_path, "c", args_yaml=1, last_pt=6, summary_json=5)
    assert not again.finished
    assert again.resumable
    assert not make(tmp_path, "d", args_yaml=1, last_pt=6, summary_json=7).resumable
    assert not make(tmp_path, "e", args_yaml=1).resumable
    assert not make(tmp_path, "f", last_pt=6).resumable


def test_the_run_saved_last_is_resumed(tmp_path: Path) -> None:
    make(tmp_path, "old", args_yaml=30, last_pt=40)
    make(tmp_path, "new", args_yaml=10, last_pt=90)
    make(tmp_path, "done", args_yaml=1, last_pt=95, summary_json=99)
    assert newest_unfinished(tmp_path).name == "new"
    with Run(tmp_path / "new").lock():
        assert newest_unfinished(tmp_path).name == "old"
        with Run(tmp_path / "old").lock(), pytest.raises(ModelError, match="new is being trained"):
            newest_unfinished(tmp_path)


def test_it_is_told_why_no_run_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no run under"):
        newest_unfinished(tmp_path)
    make(tmp_path, "done", args_yaml=1, last_pt=5, summary_json=6)
    with pytest.raises(ModelError, match=r"every run under .* is finished, the newest is done"):
        newest_unfinished(tmp_path)
    make(tmp_path, "early", args_yaml=9)
    with pytest.raises(ModelError, match=r"no run under .* early has no last\.pt"):
        newest_unfinished(tmp_path)


def test_the_newest_weights_are_taken(tmp_path: Path) -> None:
    make(tmp_path, "one", args_yaml=9, best_pt=3)
    two = make(tmp_path, "two", args_yaml=1, best_pt=5)
    make(tmp_path, "not_a_run", best_pt=99)
    assert newest_run(tmp_path).name == "two"
    assert run_of(two.weights) is not None
    assert run_of(tmp_path / "not_a_run" / "best.pt") is None
    with pytest.raises(ModelError, match="no trained model"):
        newest_run(tmp_path / "empty")


def test_names_are_counted_up_and_never_taken_twice(tmp_path: Path) -> None:
    assert [new_run(None, "pets", tmp_path).name for _ in range(3)] == [
        "pets-1",
        "pets-2",
        "pets-3",
    ]
    new_run("mine", "pets", tmp_path)
    for again in (lambda: new_run("mine", "pets", tmp_path), lambda: check_name("mine", tmp_path)):
        with pytest.raises(CatdogError, match=r"mine exists .* --name \(nothing in it can be resu"):
            again()
    make(tmp_path, "half", args_yaml=1, last_pt=1)
    with pytest.raises(CatdogError, match=r"half exists .*or resume it: .* --resume --name half"):
        check_name("half", tmp_path)
    with (
        Run(tmp_path / "half").lock(),
        pytest.raises(CatdogError, match=r"--name \(another process is training it\)"),
    ):
        check_name("half", tmp_path)
    assert new_run(None, "pets", tmp_path / "a" / "b").folder.is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(CatdogError, match=r"cannot make the run folder .*file/pets-1: Not a dir"):
        new_run(None, "pets", tmp_path / "file")
    check_name("yours", tmp_path)
    check_name(None, tmp_path)


def test_one_that_only_looks_leaves_no_lock_behind(tmp_path: Path) -> None:
    run = make(tmp_path, "a", args_yaml=1)
    assert not run.locked
    assert [file.name for file in run.folder.iterdir()] == ["args.yaml"]
    with run.lock():
        assert run.locked
        with pytest.raises(CatdogError, match="is being trained by another process"), run.lock():
            pass
    assert not run.locked


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", ["a", "a"]), ("labels", ["a"]), ("labels", "ab"), ("split", [80, 20]),
        ("split", [80, 10, 11]), ("teacher", {"file": "x"}), ("lr", 0), ("threads", 0),
        ("limit", 0), ("other", 3), ("precision", "half"), ("recipe", None), ("seed", True),
    ],
)  # fmt: skip
def test_a_value_of_args_yaml_that_cannot_be_is_named(
    tmp_path: Path, key: str, value: object
) -> None:
    run = make(tmp_path, "a", args_yaml=1)
    run.write_args({"data": "sample", key: value})
    with pytest.raises(CatdogError, match=rf"args\.yaml: {key} is .*put back what was there"):
        run.args()


def test_what_a_run_may_leave_open_is_read(tmp_path: Path) -> None:
    run = make(tmp_path, "a", args_yaml=1)
    run.write_args({"data": "sample", "labels": ["a", "b"], "limit": None, "teacher": None})
    assert (run.args()["labels"], run.negatives, run.left_out) == (("a", "b"), [], [])
    run.write_args({"data": "sample", "other": "drawn", "split": [80, 10, 10]})
    assert (run.args()["split"], run.negatives) == ((80, 10, 10), ["drawn"])
    with pytest.raises(CatdogError, match="labels is missing"):
        run.settings()


def test_a_run_folder_stands_for_its_weights(tmp_path: Path) -> None:
    run = make(tmp_path, "a", args_yaml=1)
    with pytest.raises(ModelError, match=r"a is a folder without a best\.pt; name the best"):
        find_checkpoint(run.folder)
    with pytest.raises(ModelError, match=r"there is no checkpoint .*best\.pt; name the best"):
        find_checkpoint(run.weights)
    run.weights.touch()
    assert find_checkpoint(run.folder) == find_checkpoint(run.weights) == run.weights


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("limit", 1, 2**64 - 1), ("epochs", 1, 10**6), ("batch_size", 2, 10**6),
        ("lr", 1e-9, 1000.0), ("seed", 0, 2**64 - 1), ("patience", 0, 2**64 - 1),
        ("threads", 1, 256),
    ],
)  # fmt: skip
def test_numbers_of_args_yaml_have_limits(tmp_path: Path, key: str, least: Any, most: Any) -> None:
    run = Run(tmp_path)
    for value in (least, most):
        run.write_args({"data": "sample", key: value})
        assert run.args() == {"data": "sample", key: value}
    for value in (least / 2 if key == "lr" else least - 1, most + 1):
        run.write_args({"data": "sample", key: value})
        with pytest.raises(CatdogError, match=f"{key} is "):
            run.args()


def test_the_data_of_args_yaml_is_opened_as_it_was(
    tmp_path: Path, easy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    run = Run(tmp_path)
    run.write_args({"data": str(easy_set), "limit": 20, "split": [50, 30, 20]})
    opened = [open_dataset(easy_set, limit=20, seed=n, split=(50, 30, 20)) for n in (0, 1)]
    assert run.datasets()[0].items == opened[0].items != opened[1].items
    run.write_args({"data": str(easy_set), "more_data": [str(easy_set)], "seed": 1, "limit": 20})
    assert [len(one.items) for one in run.datasets()] == [20, 20]
    assert run.datasets()[0].items == open_dataset(easy_set, limit=20, seed=1).items


def test_sources_keep_their_names_when_a_run_with_one_left_out_is_opened_again(
    tmp_path: Path, easy_set: Path
) -> None:
    for number, file in enumerate(sorted(easy_set.rglob("*.png"))):
        camera, word = (
            ("cam1", "web" if number % 4 == 1 else "IMG") if number % 2 else ("cam2", "IMG")
        )
        copy = tmp_path / camera / file.parent.name / f"{word}-{number}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    run = Run(tmp_path)
    sets = [str(tmp_path / camera) for camera in ("cam1", "cam2")]
    run.write_args({"data": sets[0], "more_data": sets[1:], "leave_out": ["web"]})
    first = run.datasets()[0]
    first.write_split_csv(run.split_csv)
    assert run.datasets()[0].items == first.items
    assert {name for one in run.datasets() for name in sources_of(one, "train")} == {"IMG"}
    # The recorded split holds, whatever has come into the folder since.
    val = first.items_of("val")[0]
    moved = [replace(one, split="train") if one == val else one for one in first.items]
    replace(first, items=tuple(moved)).write_split_csv(run.split_csv)
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"cam1/bright/IMG-9{number}.png"), np.full((9, 9), 80 * number))
    assert run.datasets()[0].items == tuple(moved)


@pytest.mark.parametrize("left_out", [[], ["phone"]])
def test_the_recorded_split_of_each_set_holds(
    tmp_path: Path, easy_set: Path, left_out: list[str]
) -> None:
    for number, file in enumerate(sorted(easy_set.rglob("*.png"))[::4]):
        word = ("web", "phone")[number % 2]
        copy = tmp_path / "more" / file.parent.name / f"{word}-{number}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(copy), cv2.flip(cv2.imread(str(file)), 1))
    run = Run(tmp_path)
    sets = [str(easy_set), str(tmp_path / "more")]
    run.write_args({"data": sets[0], "more_data": sets[1:], "leave_out": left_out})
    opened = run.datasets()
    train, rest = opened[1].items_of("train"), opened[1].items_of("test")
    out = train[0]
    moved = [replace(one, split="test") if one == out else one for one in (*train, *rest)]
    replace(opened[1], items=tuple(moved)).write_split_csv(run.split_file(1))
    cv2.imwrite(str(tmp_path / "more/bright/web-new.png"), np.full((9, 9), 99))
    again = run.datasets()
    assert again[0].items == opened[0].items
    assert set(again[1].items) == set(moved)
    tested = {item.file for item in run.opened()[1].items} - {item.file for item in moved}
    assert {Path(file).name.split("-")[0] for file in tested} == set(left_out)


def test_copies_of_what_a_limited_run_was_trained_on_are_no_test(
    tmp_path: Path, easy_set: Path
) -> None:
    for number, file in enumerate(sorted(easy_set.rglob("*.png"))):
        for word in ("web", "phone")[: 1 + number % 2]:
            copy = tmp_path / "set" / file.parent.name / f"{word}-{number}.png"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    run = Run(tmp_path)
    run.write_args({"data": str(tmp_path / "set"), "leave_out": ["phone"], "limit": 20})
    limited = open_dataset(tmp_path / "set", limit=20)
    (trained,) = kept_apart([limited], ["phone"])
    trained.write_split_csv(run.split_csv)
    (again,) = run.datasets()
    assert set(again.items) == set(trained.items)  # nothing is dropped at a resume
    assert len(again.whole.items) <= 20  # nor read beyond the limit
    known = {item.digest for item in trained.items if item.split != "test"}
    tested = [item for item in run.opened()[0].items if "/phone-" in item.file]
    assert len(tested) > sum("/phone-" in item.file for item in limited.items)
    assert not known & {item.digest for item in tested}


def test_the_first_set_may_have_lost_a_class_of_val_to_copies(
    tmp_path: Path, easy_set: Path
) -> None:
    sets = [str(easy_set), str(tmp_path / "more")]
    first = open_dataset(easy_set)
    val = [item for item in first.items_of("val") if item.file.startswith("bright/")]
    for item in (*first.items_of("train"), *val):
        copy = tmp_path / "more" / ("test" if item in val else "train") / item.file
        copy.parent.mkdir(parents=True, exist_ok=True)
        picture = cv2.imread(str(easy_set / item.file))
        cv2.imwrite(str(copy), picture if item in val else cv2.flip(picture, 1))
    run = Run(tmp_path)
    run.write_args({"data": sets[0], "more_data": sets[1:]})
    left = tuple(item for item in first.items if item not in val)
    replace(first, items=left).write_split_csv(run.split_csv)
    assert set(run.datasets()[0].items) == set(left)


def test_a_word_to_leave_out_is_left_out_of_every_set(tmp_path: Path, easy_set: Path) -> None:
    for number, file in enumerate(sorted(easy_set.rglob("*.png"))):
        copy = tmp_path / f"cam{number % 3}" / file.parent.name / f"web-{number}.png"
        if number % 3 == 2:
            copy = copy.with_name(f"phone-{number}.png")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    run = Run(tmp_path)
    sets = [str(tmp_path / f"cam{number}") for number in range(3)]
    run.write_args({"data": sets[0], "more_data": sets[1:], "leave_out": ["web"]})
    assert {name for one in run.datasets() for name in sources_of(one, "train")} == {"phone"}
    run.write_args({"data": sets[0], "more_data": sets[1:], "leave_out": ["cam1"]})
    assert {name for one in run.datasets() for name in sources_of(one, "train")} == {
        "cam0",
        "phone",
    }
