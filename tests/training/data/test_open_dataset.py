"""Data sets as people have them: layouts, splits, and what is skipped."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.images.image_sets import image, images, named, write, write_zip

from catdog_edge.errors import DataError
from catdog_edge.spec import squash
from catdog_edge.training.data import folder_or_zip
from catdog_edge.training.data.csv_labels import from_split_csv
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.folder_or_zip import open_source
from catdog_edge.training.data.layouts import find_layout
from catdog_edge.training.data.open_dataset import (
    _check_skipped,
    count_training,
    open_dataset,
    open_datasets,
    pixels,
)

STEPS = squash(16, 16)
pytestmark = pytest.mark.usefixtures("cache_folder")


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
    write(tmp_path, {"x.csv": table(rows), **files, "test/1.jpg": image(1)})
    dataset = open_dataset(tmp_path)
    assert len(dataset.items) == len(files)
    assert any("1 images have no row in x.csv" in line for line in dataset.describe())


def test_a_table_without_the_columns_is_mentioned(tmp_path: Path) -> None:
    write(tmp_path, {"x.csv": table({"a": "b"}, "name,breed"), **named()})
    dataset = open_dataset(tmp_path)
    assert any("x.csv has the columns name, breed" in line for line in dataset.describe())
    bare = write(tmp_path / "bare", {"x.csv": table({"a": "b"}, "name,breed"), "1.jpg": image(1)})
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
    assert all(dataset.counts()["test"].values())  # cut out of the training images


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


@pytest.mark.parametrize("split", [(80, 20), (1, 2, -3), (0, 0, 0), (80, 10, float("nan"))])
def test_wrong_shares(split: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="--split takes three shares"):
        open_dataset("sample", split=split)


def test_unreadable_files_are_skipped_with_a_reason_and_counted(tmp_path: Path) -> None:
    files = named(60)
    files["cat.100.jpg"] = b""
    files["cat.101.jpg"] = image(1)[:-200]
    files["dog.100.jpg"] = b"<html>not found</html>"
    files["dog.101.png"] = image(7)  # a wrong ending does no harm
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


@pytest.mark.parametrize(
    ("bad", "of", "more"), [(1, 19, "b0"), (3, 59, "b2: x)"), (4, 79, "b2: x; and 1 more)")]
)
def test_one_file_of_twenty_may_be_unreadable(bad: int, of: int, more: str, tmp_path: Path) -> None:
    skipped = [folder_or_zip.Skipped(f"b{n}", "x") for n in range(bad)]
    _check_skipped("set", skipped, of - bad + 1, tmp_path)
    with pytest.raises(DataError, match=f"{bad} of {of} files cannot be used") as caught:
        _check_skipped("set", skipped, of - bad, tmp_path)
    assert f"{more}" in str(caught.value)


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


# ---- splits ----------------------------------------------------------------------------


def test_copies_are_on_one_side_and_order_and_additions_move_nothing(tmp_path: Path) -> None:
    files = named()
    before = places(open_dataset(write(tmp_path / "a", files)))
    more = dict(reversed(files.items()))
    more |= {f"{name[:3]}.5{name[4:]}": data for name, data in files.items()}  # copies
    more |= {f"cat.9{n}.jpg": image(5000 + n) for n in range(100, 130)}
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


def test_a_split_csv_of_other_classes_decides_unless_labels_are_named(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "set", named(4)))
    layout = find_layout(source)
    rows = [f"cat.{n}.jpg,lynx,{('train', 'val')[n % 2]}" for n in range(4)]
    (tmp_path / "split.csv").write_text(
        "\n".join(["file,label,split", *rows, "dog.0.jpg,dog,test"])
    )
    found = from_split_csv(tmp_path / "split.csv", source, layout, None, None)
    assert found.labels == ("dog", "lynx")
    assert found.kind == "splits from split.csv"
    assert found.notes == ("3 images are not in split.csv and are left out",)
    assert from_split_csv(tmp_path / "split.csv", source, layout, None, 5).notes == ()
    with pytest.raises(DataError, match=r"split\.csv has the class 'lynx', --labels does not"):
        from_split_csv(tmp_path / "split.csv", source, layout, ["cat", "dog"], None)


def test_the_same_picture_in_train_and_test_folders_is_taken_out_of_train(tmp_path: Path) -> None:
    files = {}
    for number, (name, data) in enumerate(named(20).items()):
        files[f"{('train', 'val', 'test')[number % 3]}/{name[:3]}/{name}"] = data
    leak = next(name for name in files if name.startswith("test/cat"))
    files["train/cat/leaked.jpg"] = files[leak]
    dataset = open_dataset(write(tmp_path, files))
    assert [(e.file, e.reason) for e in dataset.skipped] == [
        ("train/cat/leaked.jpg", f"the same image is in test: {leak}")
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
    open_dataset(folder, limit=20)
    assert len(read) == 64
    some = open_dataset(folder, limit=60)
    assert some.counts() == {
        "train": {"cat": 24, "dog": 24},
        "val": {"cat": 3, "dog": 3},
        "test": {"cat": 3, "dog": 3},
    }
    assert len(read) == 128
    assert open_dataset(folder, limit=60).items == some.items
    whole = places(open_dataset(folder))
    assert all(whole[name] == split for name, split in places(some).items())
    assert open_dataset(folder, limit=60, seed=1).items != some.items
    with pytest.raises(DataError, match="--limit"):
        open_dataset(folder, limit=0)
    # More files in the set leave most of the choice as it was.
    write(folder, {f"cat.{n}.jpg": image(9000 + n) for n in range(1000, 1040)})
    more = open_dataset(folder, limit=60)
    assert len(set(places(more)) & set(places(some))) > 45


@pytest.mark.parametrize("limit", [None, 40, 100])
@pytest.mark.parametrize("folders", [("",), ("train/", "val/")])
def test_the_training_images_are_counted_as_they_will_be_used(
    tmp_path: Path, folders: tuple[str, ...], limit: int | None
) -> None:
    names = [f"{folder}{label}" for folder in folders for label in ("cat", "dog")]
    small, large = (
        str(write(tmp_path / f"{count}", images(*names, count=count))) for count in (10, 60)
    )
    sources, split = [large, small], (80, 10, 10)
    used = sum(
        len(one.items_of("train")) for one in open_datasets(sources, split=split, limit=limit)
    )
    assert count_training(sources, None, split, limit) == pytest.approx(used, rel=0.15)


def test_limit_larger_than_the_set_takes_all(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", named(40))
    assert open_dataset(folder, limit=5000).items == open_dataset(folder).items


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
