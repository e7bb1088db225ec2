"""Data sets as strangers lay them out: folders of splits and classes, forms of names."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from support.images.image_sets import image, images, labels, splits, write

from catdog_edge.errors import DataError
from catdog_edge.training.data.folder_or_zip import Skipped, open_source
from catdog_edge.training.data.layouts import find_layout
from catdog_edge.training.data.open_dataset import open_dataset

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.mark.parametrize(
    "folders",
    [
        ("training_set/training_set", "test_set/test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("archive/train_images", "archive/val_images"),
        ("data/Train", "data/Valid", "data/Test"),
        ("train/images", "test/images"),
    ],
)
def test_split_folders_of_any_name_with_classes_below(
    folders: tuple[str, ...], tmp_path: Path
) -> None:
    files = images(*(f"{folder}/{label}" for folder in folders for label in ("cats", "dogs")))
    dataset = open_dataset(write(tmp_path / "set", files))
    assert dataset.labels == ("cats", "dogs")
    for file, split in splits(dataset).items():
        for word, named in (("test", "test"), ("val", "val")):
            assert (split == named) == (word in file.lower()) or not any(
                word in folder.lower() for folder in folders
            )
    assert all(labels(dataset)[file] == file.split("/")[-2] for file in files)


def test_folders_that_all_name_the_same_split_hold_the_classes(tmp_path: Path) -> None:
    tops = ("train-clean", "train-noisy")
    files = images(*(f"{top}/{name}" for top in tops for name in ("cat", "dog")))
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.labels == ("cat", "dog")
    assert dataset.counts()["train"]["cat"] > 20
    assert open_dataset(tmp_path, labels=("dog", "cat")).labels == ("dog", "cat")


@pytest.mark.parametrize(
    "tops", [("phone", "web"), ("entrenamiento", "prueba"), ("original", "augmented"), ("k1", "k2")]
)
def test_two_levels_that_may_both_be_the_classes_need_labels(
    tops: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path, images(*(f"{top}/{name}" for top in tops for name in ("cat", "dog"))))
    first, second = sorted(tops)
    with pytest.raises(DataError, match=f"{first}, {second} each hold the folders cat, dog.*--lab"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, labels=("dog", "cat")).counts()["train"]["dog"] > 20
    assert open_dataset(tmp_path, labels=tops).labels == tops


@pytest.mark.parametrize(
    ("tops", "below"),
    [
        (tuple(f"finch {letter}" for letter in "abcdefghijk"), ("male", "female")),
        (("cat", "dog"), ("2023", "2024")),
        (("cat", "dog"), ("batch 1", "batch 2")),
    ],
)
def test_folders_inside_classes_do_no_harm(
    tops: tuple[str, ...], below: tuple[str, ...], tmp_path: Path
) -> None:
    files = images(*(f"{top}/{name}" for top in tops for name in below), count=4)
    assert open_dataset(write(tmp_path, files)).labels == tops


def test_a_folder_of_classes_beside_a_split_is_no_class(tmp_path: Path) -> None:
    folders = (f"{top}/{name}" for top in ("development", "testing") for name in ("cat", "dog"))
    with pytest.raises(DataError, match="development lies beside the folders cat, dog"):
        open_dataset(write(tmp_path, images(*folders)))


def test_split_folders_below_class_folders(tmp_path: Path) -> None:
    files = images("cats/train", "cats/test", "dogs/train", "dogs/test")
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.labels == ("cats", "dogs")
    assert all((split == "test") == ("/test/" in file) for file, split in splits(dataset).items())
    assert all(label == file.split("/")[0] for file, label in labels(dataset).items())


def test_a_test_folder_beside_class_folders(tmp_path: Path) -> None:
    files = images("cats", "dogs", "test/cats", "test/dogs", count=30)
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.labels == ("cats", "dogs")
    for file, split in splits(dataset).items():
        assert (split == "test") == file.startswith("test/")
    assert dataset.counts()["val"]["cats"] > 0


@pytest.mark.parametrize(
    ("folders", "seen"),
    [
        (("train", "test"), "test, train: named like"),
        (("seg_train/seg_train", "seg_test/seg_test"), "seg_test, seg_train: named like"),
        (("train_images", "val_images"), "train_images, val_images: named like"),
        (("cats", "dogs", "test"), "test: named like a split, .* beside it: cats, dogs"),
        (("cat_train", "cat_test", "dog_train", "dog_test"), "cat_test, cat_train, dog_test"),
        (("train/cats", "train/dogs", "test"), "test: named like"),
    ],
)
def test_split_folders_without_classes_are_refused(
    folders: tuple[str, ...], seen: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=seen) as caught:
        open_dataset(write(tmp_path, images(*folders)))
    assert "expected a folder per class" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_files_that_mean_splits_are_no_classes(tmp_path: Path) -> None:
    files = {f"{name}_{n}.jpg": image(n) for name in ("train", "test") for n in range(9)}
    with pytest.raises(DataError, match="no classes"):
        open_dataset(write(tmp_path / "a", files))
    files = {f"{name}_{n}.jpg": image(n) for name in ("IMG", "DSC") for n in range(9)}
    with pytest.raises(DataError, match="no classes"):
        open_dataset(write(tmp_path / "b", files))


@pytest.mark.parametrize(
    "folders",
    [("fold1", "fold2"), ("images", "masks"), ("part_1", "part_2"), ("cat", "dog", "unlabeled")],
)
def test_names_that_do_not_say_what_images_show(folders: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, images(*folders))
    with pytest.raises(DataError, match="does not say what images show"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, labels=folders).labels == folders


@pytest.mark.parametrize("folders", [("class 00", "class 01"), ("class_1", "class_2")])
def test_numbered_classes_are_classes(folders: tuple[str, ...], tmp_path: Path) -> None:
    assert open_dataset(write(tmp_path, images(*folders))).labels == folders


def test_a_class_called_train_inside_split_folders(tmp_path: Path) -> None:
    files = images("train/bus", "train/train", "test/bus", "test/train")
    with pytest.raises(DataError):
        open_dataset(write(tmp_path, files))
    dataset = open_dataset(tmp_path, labels=("bus", "train"))
    assert labels(dataset)["test/train/0.jpg"] == "train"
    assert splits(dataset)["test/train/0.jpg"] == "test"


def test_a_file_in_two_splits_is_refused(tmp_path: Path) -> None:
    files = images("train/cat", "train/dog", "test/cat", "test/dog", "train/cat/test")
    with pytest.raises(DataError, match=r"train/cat/test/\d+.jpg lies in folders of two splits"):
        open_dataset(write(tmp_path, files))


def test_folders_beside_the_splits_are_left_out_with_a_note(tmp_path: Path) -> None:
    files = images("train/cat", "train/dog", "test/cat", "test/dog", "predict")
    dataset = open_dataset(write(tmp_path, files))
    assert "the folder predict is no split and is left out" in dataset.notes
    assert len(dataset.items) == 80


# ---- classes that would vanish ----------------------------------------------------------


def test_a_class_that_cannot_be_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, images("fox", "wolf", "dog"))
    scan = os.scandir

    def refuse(path: str) -> object:  # whoever tests as root can open everything
        if Path(path).name == "fox":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"fox/: the folder cannot be opened: Perm.* be a class"):
        open_dataset(tmp_path)


def test_folders_without_images_are_noted(tmp_path: Path) -> None:
    write(tmp_path, {**images("fox", "wolf"), "lynx/1.dat": b"x", "lynx/2.dat": b"y"})
    (tmp_path / "bear").mkdir()
    dataset = open_dataset(tmp_path)
    assert dataset.labels == ("fox", "wolf")
    assert dataset.notes == (
        "the folder bear is empty",
        "the folder lynx has no images in it and is left out",
    )


# ---- encodings and forms of names ------------------------------------------------------


def form(name: str, which: str) -> str:
    return unicodedata.normalize(which, name)


def test_one_class_in_two_normal_forms(tmp_path: Path) -> None:
    café, cafés = form("café", "NFC"), form("café", "NFD")
    assert café != cafés
    files = images(f"train/{café}", "train/bar", f"val/{cafés}", "val/bar")
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.labels == ("bar", café)
    assert dataset.counts()["val"] == {"bar": 20, café: 20}
    assert open_dataset(tmp_path, labels=(cafés, "bar")).labels == (café, "bar")


def test_a_table_names_files_in_another_normal_form(tmp_path: Path) -> None:
    names = [form(f"née {number}.jpg", "NFD") for number in range(40)]
    files = {name: image(number) for number, name in enumerate(names)}
    rows = "".join(f"{form(n, 'NFC')},{'ab'[i % 2]}\n" for i, n in enumerate(names))
    dataset = open_dataset(write(tmp_path, {**files, "x.csv": f"file,label\n{rows}".encode()}))
    assert len(dataset.items) == 40
    assert dataset.skipped == ()


def test_a_split_csv_names_files_in_another_normal_form(tmp_path: Path) -> None:
    files = images(form("née", "NFD"), "x")
    first = open_dataset(write(tmp_path / "set", files))
    first.write_split_csv(tmp_path / "split.csv")
    text = (tmp_path / "split.csv").read_text(encoding="utf-8")
    (tmp_path / "split.csv").write_text(form(text, "NFC"), encoding="utf-8")
    assert open_dataset(tmp_path / "set", split_csv=tmp_path / "split.csv").items == first.items


def test_a_folder_that_is_not_utf8_is_refused_as_a_class(tmp_path: Path) -> None:
    write(tmp_path, images("caf\udce9", "bar"))
    with pytest.raises(DataError, match=r"the class 'caf\\udce9' is not valid UTF-8") as caught:
        open_dataset(tmp_path)
    str(caught.value).encode()


def test_messages_name_the_first_of_many(tmp_path: Path) -> None:
    folders = {f"images_{n:02}/{n}.jpg": b"" for n in range(11)}
    with pytest.raises(DataError, match=r": images_00, .*, images_08 \(a folder per class\) does"):
        find_layout(open_source(write(tmp_path / "folders", folders)))
    tables = {f"of_{name}.csv": f"image,label\n{name}.jpg,{name}\n".encode() for name in "abcd"}
    pictures = {f"{name}.jpg": b"" for name in "abcd"}
    found = find_layout(open_source(write(tmp_path / "tables", tables | pictures)))
    assert found.kind == "labels from of_a.csv and of_b.csv and of_c.csv"
    assert found.labels == ("a", "b", "c", "d")


@pytest.mark.parametrize(("sources", "both"), [(10, True), (11, False)])
def test_of_more_than_ten_folders_with_the_same_ones_the_upper_are_the_classes(
    tmp_path: Path, sources: int, both: bool
) -> None:
    names = [f"s{n}/{kind}/{n}.jpg" for n in range(sources) for kind in ("left", "right")]
    source = open_source(write(tmp_path, dict.fromkeys(names, b"")))
    if both:
        with pytest.raises(DataError, match="either may be the classes"):
            find_layout(source)
    else:
        assert len(find_layout(source).labels) == sources
    assert find_layout(source, ["left", "right"]).labels == ("left", "right")


def test_images_beside_the_class_folders_are_noted_or_skipped(tmp_path: Path) -> None:
    names = ["cat/1.jpg", "dog/1.jpg", "dog/2.dat", "owl/1.dat", "1.jpg", "2.jpg"]
    plain = find_layout(open_source(write(tmp_path / "plain", dict.fromkeys(names, b""))))
    assert plain.kind == "a folder per class"
    assert [one.file for one in plain.candidates] == ["cat/1.jpg", "dog/1.jpg", "dog/2.dat"]
    assert plain.notes == (
        "2 images lie beside the class folders and are left out",
        "the folder owl has no images in it and is left out",
    )
    assert plain.skipped == ()
    names = [f"{split}/{kind}/1.jpg" for split in ("train", "test") for kind in ("cat", "dog")]
    names += ["train/1.jpg", "notes/1.jpg"]
    split = find_layout(open_source(write(tmp_path / "split", dict.fromkeys(names, b""))))
    assert split.kind == "split folders with classes in them"
    assert [(one.file, one.reason) for one in split.skipped] == [
        ("train/1.jpg", "neither its folder nor its name says its class")
    ]
    assert split.notes == ("the folder notes is no split and is left out",)
    assert [one.split for one in split.candidates] == ["test", "test", "train", "train"]
    names = ["data/train/cat/1.jpg", "data/train/dog/1.jpg", "data/notes/1.jpg"]
    below = find_layout(open_source(write(tmp_path / "below", dict.fromkeys(names, b""))))
    assert below.notes == ("the folder data/notes is no split and is left out",)
    assert below.labels == ("cat", "dog")


def test_the_first_reason_is_named(tmp_path: Path) -> None:
    files = {"cat/1.jpg": b"", "a.csv": b"x,y\n8,9\n", "b.csv": b"x,z\n8,9\n"}
    with pytest.raises(DataError, match=r"only the class 'cat'.*; a\.csv has the col") as caught:
        find_layout(open_source(write(tmp_path / "one", files)))
    assert "b.csv" not in str(caught.value)
    empty = open_source(write(tmp_path / "none", {"1.txt": b""}))
    empty.closed = (Skipped("a/", "closed"), Skipped("b/", "closed"))
    with pytest.raises(
        DataError, match=r"has no images in it \(\.jpg, \.png, \.\.\.\); a/: closed$"
    ):
        find_layout(empty)
    rows = {"1.jpg": b"", "t.csv": b"image,label\n1.jpg,\ngone.jpg,cat\n"}
    with pytest.raises(DataError, match=r"no row of t\.csv can be used \(gone\.jpg: listed in t"):
        find_layout(open_source(write(tmp_path / "rows", rows)))
