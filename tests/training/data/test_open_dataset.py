"""Data sets as people have them: layouts, splits, what is skipped, and the cache."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.image_sets import image as picture
from support.image_sets import write, write_zip

from catdog_edge.errors import CatdogError, DataError
from catdog_edge.images.preprocess import preprocess
from catdog_edge.spec import squash
from catdog_edge.training.data import decode_cache as cache_module
from catdog_edge.training.data import folder_or_zip
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.open_dataset import open_dataset, pixels

STEPS = squash(16, 16)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a-cache"
    monkeypatch.setenv("CATDOG_CACHE", str(folder))
    return folder


def named(count: int = 40, prefixes: tuple[str, ...] = ("cat", "dog")) -> dict[str, bytes]:
    """`cat.0.jpg`, `dog.0.jpg`, ...: enough that every split has every class."""
    return {
        f"{prefix}.{number}.jpg": picture(1000 * index + number)
        for index, prefix in enumerate(prefixes)
        for number in range(count)
    }


def table(rows: dict[str, object], columns: str = "image,labels") -> bytes:
    return (columns + "\n" + "".join(f"{k},{v}\n" for k, v in rows.items())).encode()


def places(dataset: Dataset) -> dict[str, str]:
    return {Path(item.file).name: item.split for item in dataset.items}


def names_and_labels(dataset: Dataset) -> dict[str, str]:
    return {Path(item.file).name: dataset.labels[item.label] for item in dataset.items}


# ---- layouts ---------------------------------------------------------------------------


def layouts() -> Iterator[tuple[str, dict[str, bytes]]]:
    files = named()
    yield "prefixes", files
    yield "prefixes one folder down", {f"pets/{name}": data for name, data in files.items()}
    yield (
        "kaggle",
        {
            "pets.csv": table({name: int(name.startswith("dog")) for name in files}),
            **{f"pets/{name}": data for name, data in files.items()},
        },
    )
    yield (
        "kaggle one folder down",
        {
            "all/pets.csv": table({name: int(name.startswith("dog")) for name in files}),
            **{f"all/pets/{name}": data for name, data in files.items()},
        },
    )
    yield "class folders", {f"{name[:3]}/{name}": data for name, data in files.items()}
    yield (
        "class folders, deep",
        {f"all/pets/{n[:3]}/2020/{n}": data for n, data in files.items()},
    )
    yield (
        "class folders with papers beside them",
        {
            "readme.txt": b"two classes",
            "licence.pdf": b"%PDF",
            "__MACOSX/._x": b"junk",
            **{f"PetImages/{name[:3]}/{name}": data for name, data in files.items()},
        },
    )


@pytest.mark.parametrize(("layout", "files"), list(layouts()), ids=[n for n, _ in layouts()])
def test_layouts_from_a_folder_and_from_a_zip(
    layout: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    expected = {name: name[:3] for name in named()}
    folder = open_dataset(write(tmp_path / "folder", files))
    packed = write_zip(tmp_path / "set.zip", files, zipfile.ZIP_DEFLATED)
    zipped = open_dataset(packed)
    for dataset in (folder, zipped):
        assert dataset.labels == ("cat", "dog")
        assert names_and_labels(dataset) == expected
        assert dataset.skipped == ()
        assert not dataset.is_sample
    # The same pictures are on the same side, whatever they are packed in.
    assert places(folder) == places(zipped)
    assert folder.source == str(tmp_path / "folder")
    assert zipped.source == str(packed)


def test_table_columns_are_found_by_name_and_labels_never_guessed(tmp_path: Path) -> None:
    files = named()
    # Names that lie: the table alone says what is what.
    rows = {f"{n},x": "cat" if n.startswith("dog") else "dog" for n in files}
    write(tmp_path, {"list.csv": table(rows, "File Name,size,Class"), **files})
    dataset = open_dataset(tmp_path)
    assert all(label != name[:3] for name, label in names_and_labels(dataset).items())


@pytest.mark.parametrize("values", ["01", "text", "floats"])
def test_zero_and_one_are_cat_and_dog_unless_labels_say_otherwise(
    values: str, tmp_path: Path
) -> None:
    files = named()
    say = {"01": ("0", "1"), "text": ("cat", "dog"), "floats": ("0.0", "1.0")}[values]
    rows = {name: say[name.startswith("dog")] for name in files}
    write(tmp_path, {"x.csv": table(rows), **{f"x/{n}": d for n, d in files.items()}})
    assert open_dataset(tmp_path).labels == ("cat", "dog")
    if values == "text":
        assert open_dataset(tmp_path, labels=("dog", "cat")).labels == ("dog", "cat")
    else:
        dataset = open_dataset(tmp_path, labels=("tabby", "hound"))
        assert dataset.labels == ("tabby", "hound")
        assert names_and_labels(dataset)["dog.0.jpg"] == "hound"


def test_semicolons_byte_order_mark_and_names_without_ending(tmp_path: Path) -> None:
    files = named()
    rows = "".join(f"{Path(n).stem};{n[:3]}\r\n" for n in files)
    write(tmp_path, {"x.csv": b"\xef\xbb\xbfid;label\r\n" + rows.encode(), **files})
    assert len(open_dataset(tmp_path).items) == len(files)


def test_pictures_without_a_row_are_named_and_left_out(tmp_path: Path) -> None:
    files = named()
    rows = {name: int(name.startswith("dog")) for name in files}
    write(tmp_path, {"x.csv": table(rows), **files, "test/1.jpg": picture(1)})
    dataset = open_dataset(tmp_path)
    assert len(dataset.items) == len(files)
    assert any("1 images have no row in x.csv" in line for line in dataset.describe())


def test_a_table_without_the_columns_is_mentioned(tmp_path: Path) -> None:
    write(tmp_path, {"x.csv": table({"a": "b"}, "name,breed"), **named()})
    dataset = open_dataset(tmp_path)
    assert any("x.csv has the columns name, breed" in line for line in dataset.describe())
    bare = write(tmp_path / "bare", {"x.csv": table({"a": "b"}, "name,breed"), "1.jpg": picture(1)})
    with pytest.raises(
        DataError, match=r"x\.csv has the columns name, breed, and names no image that is here"
    ):
        open_dataset(bare)


def test_two_tables_are_refused(tmp_path: Path) -> None:
    rows = table(dict.fromkeys(named(2), 0))
    write(tmp_path, {"a.csv": rows, "b.csv": rows, **named(2)})
    with pytest.raises(DataError, match=r"a\.csv and b\.csv"):
        open_dataset(tmp_path)


def test_split_folders_are_used(tmp_path: Path) -> None:
    files = {}
    for number, (name, data) in enumerate(named(20).items()):
        side = ("train", "train", "validation", "Test")[number % 4]
        files[f"{side}/{name[:3]}/{name}"] = data
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.counts() == {
        "train": {"cat": 10, "dog": 10},
        "val": {"cat": 5, "dog": 5},
        "test": {"cat": 5, "dog": 5},
    }
    for item in dataset.items:
        assert item.file.lower().startswith(item.split)


def test_split_folders_with_prefixed_names_and_a_missing_test(tmp_path: Path) -> None:
    files = named(60)
    write(
        tmp_path,
        {
            f"{'valid' if number % 4 == 0 else 'train'}/{name}": data
            for number, (name, data) in enumerate(files.items())
        },
    )
    dataset = open_dataset(tmp_path)
    by_folder = {"valid": {"val"}, "train": {"train", "test"}}
    for item in dataset.items:
        assert item.split in by_folder[item.file.split("/")[0]]
    assert all(dataset.counts()["test"].values())  # cut out of the training pictures


@pytest.mark.parametrize("above", ["", "train/"])
def test_annotations_beside_the_pictures_do_no_harm(above: str, tmp_path: Path) -> None:
    pictures = {f"{above}{n.split('.')[0]}/{n}": data for n, data in named().items()}
    beside = {f"{name[:-4]}.xml": b"<annotation/>" for name in pictures}
    beside |= {f"{name}.JSON": b"{}" for name in pictures}
    beside[f"{above}cat/notes.txt"] = b"seen in May"
    files = {**pictures, **beside}
    dataset = open_dataset(write(tmp_path, files))
    assert len(dataset.items) == len(pictures)
    assert dataset.skipped == ()
    broken = write(tmp_path, {f"{above}cat/{n}.pdf": b"%PDF" for n in range(9)})
    with pytest.raises(DataError, match="9 of 89 files cannot be used"):
        open_dataset(broken)


def test_a_class_is_called_train_only_where_labels_say_so(tmp_path: Path) -> None:
    files = {f"{n[:3].replace('cat', 'train')}/{n[4:]}": d for n, d in named().items()}
    with pytest.raises(
        DataError, match=r"train: named like a split, .* beside it: dog; .*--labels"
    ):
        open_dataset(write(tmp_path, files))
    dataset = open_dataset(tmp_path, labels=("dog", "train"))
    assert dataset.labels == ("dog", "train")
    assert {item.split for item in dataset.items if item.label == 1} == {"train", "val", "test"}


def test_many_classes_and_labels_that_choose(tmp_path: Path) -> None:
    files = {f"{n.split('.')[0]}/{n}": d for n, d in named(40, ("cat", "dog", "Hen")).items()}
    write(tmp_path, files)
    assert open_dataset(tmp_path).labels == ("cat", "dog", "Hen")
    some = open_dataset(tmp_path, labels=("hen", "cat"))
    assert some.labels == ("hen", "cat")
    assert len(some.items) == 80
    assert "note: left out by --labels: dog" in some.describe()
    with pytest.raises(DataError, match="no class 'cow'"):
        open_dataset(tmp_path, labels=("cow", "cat"))
    with pytest.raises(DataError, match="names a class twice"):
        open_dataset(tmp_path, labels=("cat", "cat"))


def test_breeds_with_underscores(tmp_path: Path) -> None:
    files = named(30)
    renamed = {
        ("american_bulldog_" if n.startswith("dog") else "Birman_") + n.split(".")[1] + ".jpg": d
        for n, d in files.items()
    }
    dataset = open_dataset(write(tmp_path, renamed), split=(70, 15, 15))
    assert dataset.labels == ("american_bulldog", "Birman")


# ---- what cannot be opened --------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no images"),
        ({"notes.txt": b"x"}, "no images"),
        ({"1.jpg": b"x", "2.jpg": b"y"}, "no classes"),
        ({"cat.1.jpg": b"x", "cat.2.jpg": b"y"}, "only the class 'cat'"),
        ({"cat/pic 0.png": b"x", "cat/pic 1.png": b"y"}, "only the class 'cat'"),
        ({"train/cat.1.jpg": b"x", "train/cat.2.jpg": b"y"}, "only the class 'cat'"),
        ({"cat/1.jpg": b"x", "cat/2.jpg": b"y"}, "only the class 'cat'"),
        ({"neither/1.jpg": b"x", "cat/2.jpg": b"y"}, "cannot be called 'neither'"),
        ({"cat/1.jpg": b"", "dog/2.jpg": b"y"}, "cannot be used"),
    ],
)
def test_no_data_set(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    tmp_path.joinpath("set").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(write(tmp_path / "set", files))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder or zip"):
        open_dataset(tmp_path / "none")
    broken = tmp_path / "half.zip"
    whole = write_zip(tmp_path / "whole.zip", named(3)).read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half\.zip is no zip"):
        open_dataset(broken)


def test_environment_names_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_DATA", str(write(tmp_path / "mine", named())))
    assert open_dataset().source == str(tmp_path / "mine")


@pytest.mark.parametrize("split", [(80, 20), (1, 2, -3), (0, 0, 0), (80, 10, float("nan"))])
def test_wrong_shares(split: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="--split takes three shares"):
        open_dataset("sample", split=split)


def test_unreadable_files_are_skipped_with_a_reason_and_counted(tmp_path: Path) -> None:
    files = named(60)
    files["cat.100.jpg"] = b""
    files["cat.101.jpg"] = picture(1)[:-200]
    files["dog.100.jpg"] = b"<html>not found</html>"
    files["dog.101.png"] = picture(7)  # a wrong ending does no harm
    dataset = open_dataset(write(tmp_path / "set", files))
    assert {entry.file for entry in dataset.skipped} == {
        "cat.100.jpg",
        "cat.101.jpg",
        "dog.100.jpg",
    }
    assert "dog.101.png" in names_and_labels(dataset)
    assert any(line.startswith("skipped: 3 files") for line in dataset.describe())
    dataset.write_skipped_csv(tmp_path / "skipped.csv")
    rows = list(csv.DictReader((tmp_path / "skipped.csv").read_text("utf-8").splitlines()))
    assert {row["file"]: row["reason"].split(":")[0] for row in rows} == {
        "cat.100.jpg": "empty file (zero bytes)",
        "cat.101.jpg": "truncated",
        "dog.100.jpg": "not an image",
    }
    # Known from the first time, with the same reasons, without reading them again.
    assert open_dataset(tmp_path / "set").skipped == dataset.skipped


def test_more_than_five_percent_is_an_error(tmp_path: Path) -> None:
    files = named(50)
    for number in range(6):
        files[f"cat.{100 + number}.jpg"] = b"no picture"
    with pytest.raises(DataError, match=r"6 of 106 files cannot be used, more than 5%") as caught:
        open_dataset(write(tmp_path, files))
    assert "cat.100.jpg: not an image" in str(caught.value)
    assert "and 3 more" in str(caught.value)


def test_rows_without_files_count_as_skipped(tmp_path: Path) -> None:
    files = named(40)
    rows: dict[str, object] = {name: int(name.startswith("dog")) for name in files}
    rows["gone.jpg"] = 1
    rows["cat.0.jpg"] = ""
    dataset = open_dataset(write(tmp_path, {"x.csv": table(rows), **files}))
    assert {entry.file: entry.reason for entry in dataset.skipped} == {
        "gone.jpg": "listed in x.csv, but there is no such file",
        "cat.0.jpg": "listed in x.csv without a label",
    }


def test_the_error_names_a_list_of_all_that_cannot_be_used(
    tmp_path: Path, cache_folder: Path
) -> None:
    files = named(50) | {f"cat.{100 + number}.jpg": b"no picture" for number in range(6)}
    with pytest.raises(DataError, match=r"take them out of the data, all are listed in") as caught:
        open_dataset(write(tmp_path / "set", files))
    (listed,) = cache_folder.glob("*/skipped.csv")
    assert str(listed) in str(caught.value)
    assert len(list(csv.DictReader(listed.read_text("utf-8").splitlines()))) == 6


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_pipes_and_devices_with_the_names_of_pictures_are_skipped(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", named())
    os.mkfifo(folder / "cat.100.jpg")
    (folder / "dog.100.jpg").symlink_to("/dev/zero")
    assert len(open_dataset(folder).items) == 80
    skipped = {entry.file: entry.reason for entry in open_dataset(folder).skipped}
    assert set(skipped) == {"cat.100.jpg", "dog.100.jpg"}
    assert all("a pipe, a socket or a device" in reason for reason in skipped.values())


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero here")
def test_a_table_without_an_end_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", named())
    (folder / "labels.csv").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"labels\.csv: not an image file: it is a pipe, a socket"):
        open_dataset(folder)
    (folder / "labels.csv").unlink()
    with pytest.raises(DataError, match="a device"):
        open_dataset(folder, split_csv="/dev/zero")


def test_a_folder_that_cannot_be_opened_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {f"{n[:3]}/{n}": d for n, d in named().items()} | {"dog/old/1.jpg": b"x"})
    scan = os.scandir

    def refuse(path: str) -> object:  # whoever tests as root can open everything
        if Path(path).name == "old":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    dataset = open_dataset(tmp_path)
    assert [(entry.file, entry.reason) for entry in dataset.skipped] == [
        ("dog/old/", "the folder cannot be opened: Permission denied")
    ]


def test_a_damaged_entry_of_a_zip_is_skipped(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", named())
    data = bytearray(path.read_bytes())
    data[data.index(picture(5)) + 200] ^= 255
    path.write_bytes(data)
    dataset = open_dataset(path)
    assert [(entry.file, entry.reason) for entry in dataset.skipped] == [
        ("cat.5.jpg", "damaged inside the zip")
    ]


def test_a_bomb_in_a_zip_is_refused_by_name(tmp_path: Path) -> None:
    files = named()
    path = write_zip(tmp_path / "x.zip", files, zipfile.ZIP_DEFLATED)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("cat.999.jpg", "w") as entry,
    ):
        for _ in range(257):
            entry.write(bytes(2**20))
    assert path.stat().st_size < 600_000
    dataset = open_dataset(path)
    assert dataset.skipped[0].file == "cat.999.jpg"
    assert "too large" in dataset.skipped[0].reason


# ---- splits ----------------------------------------------------------------------------


def test_copies_are_on_one_side_and_order_and_additions_move_nothing(tmp_path: Path) -> None:
    files = named()
    before = places(open_dataset(write(tmp_path / "a", files)))
    more = dict(reversed(files.items()))
    more |= {f"{name[:3]}.5{name[4:]}": data for name, data in files.items()}  # copies
    more |= {f"cat.9{n}.jpg": picture(5000 + n) for n in range(100, 130)}
    dataset = open_dataset(write_zip(tmp_path / "b.zip", more))
    after = places(dataset)
    for name, split in before.items():
        assert after[name] == split
        assert after[f"{name[:3]}.5{name[4:]}"] == split
    assert dataset.copies == len(files)
    assert set(before.values()) == {"train", "val", "test"}


def test_the_hash_is_of_the_pixels_not_of_the_file(tmp_path: Path) -> None:
    files = named()
    for name in list(files):
        # The same pixels in another file format.
        frame = cv2.imdecode(np.frombuffer(files[name], np.uint8), cv2.IMREAD_COLOR)
        files[name.replace(".jpg", "7.png")] = cv2.imencode(".png", frame)[1].tobytes()
    dataset = open_dataset(write(tmp_path, files))
    by_name = places(dataset)
    assert all(by_name[n] == by_name[n.replace(".jpg", "7.png")] for n in named())
    assert dataset.copies == 80


def test_shares_are_met_in_expectation(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path, named(300)), split=(60, 20, 20))
    counts = {split: sum(labels.values()) for split, labels in dataset.counts().items()}
    # Three standard deviations of a binomial count are 36 of 600 and 29 of 600.
    assert abs(counts["train"] - 360) < 36
    assert abs(counts["val"] - 120) < 29
    assert abs(counts["test"] - 120) < 29


def test_a_split_without_a_class_is_an_error_that_names_it(tmp_path: Path) -> None:
    files = named()
    for name in [name for name in files if name.startswith("dog")][2:]:
        del files[name]
    with pytest.raises(DataError, match=r"the (val|test) split has no 'dog' \(2 in all\)"):
        open_dataset(write(tmp_path, files))


def test_all_pictures_may_be_for_the_test(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path, named(4)), split=(0, 0, 1))
    assert len(dataset.items_of("test")) == len(dataset.items) == 8
    empty, labels, items = pixels(dataset, "train", STEPS)
    assert empty.shape == (0, 16, 16, 3)
    assert len(labels) == len(items) == 0


def test_split_csv_wins_and_round_trips(tmp_path: Path) -> None:
    files = named()
    first = open_dataset(write(tmp_path / "set", files))
    first.write_split_csv(tmp_path / "split.csv")
    again = open_dataset(tmp_path / "set", split_csv=tmp_path / "split.csv")
    assert again.items == first.items
    # A person moves every picture of the test split to train and back.
    text = (tmp_path / "split.csv").read_text()
    moved = text.replace(",test", ",x").replace(",val", ",test").replace(",x", ",validation")
    (tmp_path / "split.csv").write_text(moved)
    write(tmp_path / "set", {"cat.777.jpg": picture(777)})  # not in the file: left out
    swapped = open_dataset(tmp_path / "set", split_csv=tmp_path / "split.csv")
    assert swapped.counts()["val"] == first.counts()["test"]
    assert swapped.counts()["test"] == first.counts()["val"]
    assert len(swapped.items) == len(first.items)
    assert any("1 images are not in split.csv" in note for note in swapped.notes)


@pytest.mark.parametrize("name", ["cat.\r.900.jpg", "cat.\r\n.900.jpg", 'cat.",\n .900.jpg'])
def test_any_name_survives_split_csv(name: str, tmp_path: Path) -> None:
    first = open_dataset(write(tmp_path / "set", named() | {name: picture(900)}))
    assert name in names_and_labels(first)
    first.write_split_csv(tmp_path / "split.csv")
    again = open_dataset(tmp_path / "set", split_csv=tmp_path / "split.csv")
    assert again.items == first.items
    assert again.skipped == ()


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_a_split_csv_that_another_program_saved(end: str, tmp_path: Path) -> None:
    first = open_dataset(write(tmp_path / "set", named()))
    first.write_split_csv(tmp_path / "split.csv")
    text = (tmp_path / "split.csv").read_bytes().replace(b"\n", end.encode())
    (tmp_path / "split.csv").write_bytes(text)
    assert open_dataset(tmp_path / "set", split_csv=tmp_path / "split.csv").items == first.items


def test_what_limit_left_out_is_not_told_again(tmp_path: Path) -> None:
    first = open_dataset(write(tmp_path / "set", named()), limit=20)
    first.write_split_csv(tmp_path / "split.csv")
    again = open_dataset(tmp_path / "set", limit=20, split_csv=tmp_path / "split.csv")
    assert again.items == first.items
    assert again.notes == ()


def test_split_csv_keeps_the_labels_of_the_run(tmp_path: Path) -> None:
    first = open_dataset(write(tmp_path / "set", named()), labels=("dog", "cat"))
    first.write_split_csv(tmp_path / "split.csv")
    again = open_dataset(tmp_path / "set", labels=("dog", "cat"), split_csv=tmp_path / "split.csv")
    assert again.labels == ("dog", "cat")
    assert again.items == first.items


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "must have the columns file, label and split"),
        ("file,label,split\ncat.0.jpg,cat,third\n", "use train, val or test"),
        ("file,label,split\ncat.0.jpg,cat,val\ncat.0.jpg,dog,val\n", "listed twice, differently"),
        ("file,label,split\nx.jpg,cat,val\ncat.0.jpg,cat,val\n", "no longer there"),
        ("file,label,split\ncat.0.jpg,cat,val\ndog.0.jpg,dog,val\n", "train split has no 'cat'"),
    ],
)
def test_wrong_split_csv(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(write(tmp_path / "set", named(4)), split_csv=tmp_path / "split.csv")


def test_the_same_picture_in_train_and_test_folders_is_taken_out_of_train(tmp_path: Path) -> None:
    files = {}
    for number, (name, data) in enumerate(named(20).items()):
        files[f"{('train', 'val', 'test')[number % 3]}/{name[:3]}/{name}"] = data
    leak = next(name for name in files if name.startswith("test/cat"))
    files["train/cat/leaked.jpg"] = files[leak]
    dataset = open_dataset(write(tmp_path, files))
    assert [(e.file, e.reason) for e in dataset.skipped] == [
        ("train/cat/leaked.jpg", f"the same image is {leak} in test")
    ]


def test_copies_with_two_labels_are_mentioned(tmp_path: Path) -> None:
    files = named()
    files["dog.99.jpg"] = files["cat.0.jpg"]
    dataset = open_dataset(write(tmp_path, files))
    assert "1 images have two labels, each under another name: " in dataset.notes[0]
    assert "cat.0.jpg (cat) = dog.99.jpg (dog)" in dataset.notes[0]


def test_limit_is_stratified_stable_and_reads_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "set", named(400))
    read = []
    read_bytes = folder_or_zip.read_bytes
    monkeypatch.setattr(
        folder_or_zip, "read_bytes", lambda path: read.append(path) or read_bytes(path)
    )
    some = open_dataset(folder, limit=60)
    assert some.counts() == {
        "train": {"cat": 24, "dog": 24},
        "val": {"cat": 3, "dog": 3},
        "test": {"cat": 3, "dog": 3},
    }
    assert len(read) < 400
    assert open_dataset(folder, limit=60).items == some.items
    whole = places(open_dataset(folder))
    assert all(whole[name] == split for name, split in places(some).items())
    assert open_dataset(folder, limit=60, seed=1).items != some.items
    with pytest.raises(DataError, match="--limit"):
        open_dataset(folder, limit=0)
    # More files in the set leave most of the choice as it was.
    write(folder, {f"cat.{n}.jpg": picture(9000 + n) for n in range(1000, 1040)})
    more = open_dataset(folder, limit=60)
    assert len(set(places(more)) & set(places(some))) > 45


def test_limit_larger_than_the_set_takes_all(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", named(40))
    assert open_dataset(folder, limit=5000).items == open_dataset(folder).items


# ---- pixels and cache ------------------------------------------------------------------


def test_pixels_are_the_preprocessed_pictures(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", named())
    dataset = open_dataset(path, steps=STEPS)
    for split in ("train", "val", "test"):
        frames, labels, items = pixels(dataset, split, STEPS)
        assert isinstance(frames, np.memmap)
        assert frames.dtype == np.uint8
        assert labels.dtype == np.int64
        assert frames.shape == (len(items), 16, 16, 3)
        assert items == dataset.items_of(split)
        for frame, label, item in zip(frames, labels, items, strict=True):
            assert np.array_equal(frame, preprocess(dataset.decode(item), STEPS))
            assert dataset.labels[label] == item.file[:3]


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    original = folder_or_zip.ZipSource.frame

    def frame(self: folder_or_zip.ZipSource, file: str) -> np.ndarray:
        seen.append(file)
        return original(self, file)

    monkeypatch.setattr(folder_or_zip.ZipSource, "frame", frame)
    return seen


def test_every_picture_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "x.zip", named())
    decoded = count_decodes(monkeypatch)
    reports: list[tuple[int, int]] = []
    for _ in range(2):
        dataset = open_dataset(path, steps=STEPS, progress=lambda *at: reports.append(at))
        for split in ("train", "val", "test"):
            pixels(dataset, split, STEPS)
    assert sorted(decoded) == sorted(named())
    assert reports[-1] == (80, 80)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    # Another size decodes once more, and only the split that is asked for.
    pixels(dataset, "val", squash(8, 8))
    assert len(decoded) == 80 + len(dataset.items_of("val"))


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", named())
    before = open_dataset(folder, steps=STEPS)
    for split in ("train", "val", "test"):
        pixels(before, split, STEPS)
    write(folder, {"cat.0.jpg": picture(4321)})
    os.utime(folder / "cat.0.jpg", ns=(1, 1))
    after = open_dataset(folder, steps=STEPS)
    old = next(item for item in before.items if item.file == "cat.0.jpg")
    new = next(item for item in after.items if item.file == "cat.0.jpg")
    assert old.digest != new.digest
    frames, _, items = pixels(after, new.split, STEPS)
    assert np.array_equal(frames[items.index(new)], preprocess(after.decode(new), STEPS))


def test_a_file_that_changes_while_it_is_in_use_is_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", named())
    dataset = open_dataset(folder)
    item = dataset.items_of("val")[0]
    write(folder, {item.file: picture(4321)})
    with pytest.raises(DataError, match="has changed while it was in use"):
        pixels(dataset, "val", STEPS)
    (folder / item.file).unlink()
    with pytest.raises(DataError, match="no such file"):
        dataset.decode(item)


def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache_folder: Path) -> None:
    path = write_zip(tmp_path / "x.zip", named())
    first = open_dataset(path, steps=STEPS)
    expected = np.array(pixels(first, "val", STEPS)[0])
    for file in cache_folder.rglob("*.u8"):
        file.write_bytes(file.read_bytes()[:-1])
    for file in cache_folder.rglob("index.json"):
        file.write_text('{"decoder": 1, "files"')
    again = open_dataset(path)
    assert again.items == first.items
    assert np.array_equal(pixels(again, "val", STEPS)[0], expected)


def test_nothing_is_left_behind_when_reading_fails(tmp_path: Path, cache_folder: Path) -> None:
    files = named()
    path = write_zip(tmp_path / "x.zip", files)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_dataset(path, steps=STEPS, progress=stop)
    assert [f.name for f in cache_folder.rglob("*") if f.is_file() and f.stat().st_size] == []
    assert len(open_dataset(path, steps=STEPS).items) == len(files)


def test_pixels_that_no_run_has_opened_for_long_are_removed(
    tmp_path: Path, cache_folder: Path
) -> None:
    path = write_zip(tmp_path / "x.zip", named())
    pixels(open_dataset(path), "val", STEPS)
    (old,) = cache_folder.rglob("*.u8")
    os.utime(old, (1, 1))
    pixels(open_dataset(path), "train", STEPS)
    assert not old.exists()
    assert len(list(cache_folder.rglob("*.u8"))) == 1


def test_no_room_is_known_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "x.zip", named())
    decoded = count_decodes(monkeypatch)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(DataError, match=r"needs .* GB.*CATDOG_CACHE"):
        open_dataset(path, steps=STEPS)
    assert decoded == []


OPEN = """
import sys
from catdog_edge.errors import CatdogError
from catdog_edge.spec import squash
from catdog_edge.training.data.open_dataset import open_dataset, pixels
steps = squash(16, 16)
try:
    dataset = open_dataset(sys.argv[1], steps=steps)
    print([int(pixels(dataset, split, steps)[0].sum()) for split in ("train", "val", "test")])
except CatdogError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_is_one_line(tmp_path: Path, cache_folder: Path) -> None:
    resource = pytest.importorskip("resource")
    path = write_zip(tmp_path / "x.zip", named())
    # A limit on the size of a file fails a write as a full disk does.
    run = subprocess.run(
        [sys.executable, "-c", OPEN, str(path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith(f"cannot write the cache {cache_folder}")
    assert run.stderr.count("\n") == 1
    assert list(cache_folder.rglob("*.u8")) == list(cache_folder.rglob("*.tmp")) == []


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CatdogError, match="set CATDOG_CACHE to another folder"):
        open_dataset(write_zip(tmp_path / "x.zip", named()))


def test_processes_that_start_together_do_not_disturb_each_other(
    tmp_path: Path, cache_folder: Path
) -> None:
    path = write_zip(tmp_path / "x.zip", named(100))
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    answers = [run.communicate(timeout=120) for run in runs]
    dataset = open_dataset(path)
    expected = [int(pixels(dataset, s, STEPS)[0].sum()) for s in ("train", "val", "test")]
    assert [out.decode().strip() for out, _ in answers] == [str(expected)] * 4
    assert [error for _, error in answers] == [b""] * 4
    assert len(list(cache_folder.rglob("*.u8"))) == 3


def test_a_killed_process_leaves_nothing_that_stays(tmp_path: Path, cache_folder: Path) -> None:
    path = write_zip(tmp_path / "x.zip", named(100))
    program = OPEN.replace(
        "steps=steps", "steps=steps, progress=lambda *_: os.kill(os.getpid(), 9)"
    )
    run = subprocess.run([sys.executable, "-c", "import os" + program, str(path)], check=False)
    assert run.returncode == -9
    assert list(cache_folder.rglob(".pixels-*.tmp"))
    assert len(open_dataset(path, steps=STEPS).items) == 200
    assert list(cache_folder.rglob(".pixels-*.tmp")) == []


def test_a_zip_can_be_read_after_a_fork(tmp_path: Path) -> None:
    dataset = open_dataset(write_zip(tmp_path / "x.zip", named()))
    expected = dataset.decode(dataset.items[0])
    parent, child = os.pipe()
    process = os.fork()
    if process == 0:
        same = np.array_equal(dataset.decode(dataset.items[0]), expected)
        os.write(child, b"same" if same else b"other")
        os._exit(0)
    os.waitpid(process, 0)
    assert os.read(parent, 10) == b"same"
    os.close(parent)
    os.close(child)


def test_names_beyond_ascii(tmp_path: Path) -> None:
    folder = tmp_path / "Фото"
    files = {n.replace("cat", "кот").replace("dog", "犬"): d for n, d in named().items()}
    write(folder, files)
    raw = os.fsencode(folder) + "/кот.9".encode() + b"\xff99.jpg"  # not valid UTF-8
    Path(os.fsdecode(raw)).write_bytes(picture(3))
    dataset = open_dataset(folder)
    dataset.write_split_csv(tmp_path / "split.csv")
    assert open_dataset(folder, split_csv=tmp_path / "split.csv").items == dataset.items
    assert dataset.labels == ("кот", "犬")


def test_desktop_files_and_links_in_circles_do_no_harm(tmp_path: Path) -> None:
    files = {f"{n[:3]}/{n}": d for n, d in named().items()}
    write(tmp_path, files | {"cat/.DS_Store": b"x", "dog/Thumbs.db": b"x", ".git/x.jpg": b"x"})
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    (tmp_path / "dog" / "dog.999.jpg").symlink_to(tmp_path / "nowhere.jpg")
    dataset = open_dataset(tmp_path)
    assert len(dataset.items) == len(files)
    assert [entry.file for entry in dataset.skipped] == ["dog/dog.999.jpg"]


# ---- the real photographs --------------------------------------------------------------


def test_the_originals(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "originals.zip")
    assert len(dataset.items) == 100
    assert dataset.labels == ("cat", "dog")
    assert dataset.skipped == ()
    assert {item.file.split("/")[0] for item in dataset.items} == {"originals"}


@pytest.mark.slow
def test_labels_of_the_kaggle_archive_come_from_its_table(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "cat_dog.zip", limit=100, steps=STEPS)
    with zipfile.ZipFile(shared_data / "cat_dog.zip") as archive:
        text = archive.read("cat_dog.csv").decode()
    truth = {row["image"]: int(row["labels"]) for row in csv.DictReader(io.StringIO(text))}
    assert all(truth[Path(item.file).name] == item.label for item in dataset.items)
    assert dataset.counts()["val"] == {"cat": 5, "dog": 5}
