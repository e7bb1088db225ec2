"""Labels and splits from tables."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.images.image_sets import image, images, labels, splits, write

from catdog_edge.errors import DataError
from catdog_edge.training.data.csv_labels import Table, read_tables
from catdog_edge.training.data.dataset import SPLITS
from catdog_edge.training.data.folder_or_zip import open_source
from catdog_edge.training.data.open_dataset import open_dataset

pytestmark = pytest.mark.usefixtures("cache_folder")


def flat(count: int = 40) -> dict[str, bytes]:
    return {f"{number}.jpg": image(number) for number in range(count)}


def table(header: str, *rows: object) -> bytes:
    return "\n".join([header, *map(str, rows), ""]).encode()


def read(folder: Path, text: bytes, names: list[str] | None = None) -> Table:
    """The only table beside ten images, `0.jpg` to `9.jpg`."""
    files = {f"{number}.jpg": b"" for number in range(10)}
    (found,) = read_tables(open_source(write(folder, files | {"t.csv": text})), names)
    return found


@pytest.mark.parametrize(
    ("header", "here", "names_images"),
    [("strange", 5, True), ("strange", 4, False), ("image", 1, True), ("image", 0, False)],
)
def test_images_are_named_by_half_of_the_cells_or_by_one_below_a_known_header(
    tmp_path: Path, header: str, here: int, names_images: bool
) -> None:
    cells = [f"{n}.jpg,cat" if n < here else f"gone{n}.jpg,cat" for n in range(10)]
    assert read(tmp_path, table(f"{header},label", *cells)).names_images is names_images


@pytest.mark.parametrize(
    ("marked", "columns", "has_labels"),
    [(5, "a,b", True), (4, "a,b", False), (10, "a,note", False), (10, "note,a", False)],
)
def test_one_column_per_class_has_one_mark_in_half_of_the_rows(
    tmp_path: Path, marked: int, columns: str, has_labels: bool
) -> None:
    other = ["x", "y"] if "note" in columns else ["0", "0"]
    rows = [f"{n}.jpg,1,{other[n % 2]}" if n < marked else f"{n}.jpg,1,1" for n in range(10)]
    if columns == "note,a":
        rows = [",".join([cells[0], *cells[:0:-1]]) for cells in (row.split(",") for row in rows)]
    assert read(tmp_path, table(f"image,{columns}", *rows)).has_labels is has_labels


@pytest.mark.parametrize(("columns", "more"), [(12, ""), (13, " and 1 more")])
def test_of_many_columns_twelve_are_named(tmp_path: Path, columns: int, more: str) -> None:
    names = [f"c{n}" for n in range(columns)]
    assert read(tmp_path, table(",".join(names))).columns == ", ".join(names[:12]) + more
    assert read(tmp_path, b"").columns == "(none)"


def test_a_name_that_is_no_utf8_is_told_in_short(tmp_path: Path) -> None:
    text = table("image,label", "0.jpg,f\xea" + "x" * 90, "1.jpg,b").decode().encode("latin-1")
    with pytest.raises(DataError, match=r"is not UTF-8 \(f\\udceax{52}\.\.\.\): names would be"):
        read(tmp_path, text)


def test_tables_without_rows_name_nothing(tmp_path: Path) -> None:
    assert not read(tmp_path, b"image,label\n").names_images
    files = {"0.jpg": b"", "train.txt": b"", "test.txt": b"0.jpg\n", "val.txt": b"hello\nyou\n"}
    (listed,) = read_tables(open_source(write(tmp_path / "lists", files)), None)
    assert (listed.name, listed.splits, listed.is_list) == ("test.txt", {"0.jpg": "test"}, True)


def test_the_name_of_a_table_of_labels_is_no_split_by_itself(tmp_path: Path) -> None:
    rows = table("image,label", "0.jpg,cat", "1.jpg,dog")
    files = {"0.jpg": b"", "1.jpg": b"", "train.csv": rows, "all.csv": b"image\n0.jpg\n"}
    listed, labelled = read_tables(open_source(write(tmp_path, files)), None)
    assert (listed.is_list, listed.splits, listed.files) == (True, {}, ("0.jpg",))
    assert (labelled.is_list, labelled.splits) == (False, {})


def test_a_column_of_splits_is_none_of_labels_whatever_its_name(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{('train', 'test')[n % 2]},{('cat', 'dog')[n // 5]}" for n in range(10)]
    found = read(tmp_path, table("image,category,species", *rows))
    assert found.labels == {f"{n}.jpg": ("cat", "dog")[n // 5] for n in range(10)}
    assert found.splits == {f"{n}.jpg": ("train", "test")[n % 2] for n in range(10)}


def test_numbers_need_a_name_each(tmp_path: Path) -> None:
    rows = table("image,label", *(f"{n}.jpg,{n % 3}" for n in range(10)))
    found = read(tmp_path, rows, ["a", "b", "c"])
    assert [found.labels[f"{n}.jpg"] for n in range(4)] == ["a", "b", "c", "a"]
    message = "has the classes 0, 1, 2, --labels names only 2: a, b"
    with pytest.raises(DataError, match=message):
        read(tmp_path, rows, ["a", "b"])
    many = table("image,label", *(f"{n}.jpg,{n + 10}" for n in range(25)))
    with pytest.raises(DataError, match=r"has the classes 10, 11, .*, 28, 29, --labels names only"):
        read(tmp_path, many, ["a", "b"])


# ---- what is not understood is an error ------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [
        {**flat(), "meta.csv": table("id,colour", *(f"{n},red" for n in range(40)))},
        {
            **images("train", "test"),
            "labels.csv": table("id,colour", *(f"train/{n},red" for n in range(20))),
        },
        {
            **images("cat", "dog"),
            "meta.csv": table("filename,width", *(f"cat/{n}.jpg,{n}" for n in range(20))),
        },
        # Attributes of which several apply are no classes.
        {**flat(), "meta.csv": table("name,furry,small", *(f"{n}.jpg,1,1" for n in range(40)))},
    ],
)
def test_a_table_that_names_images_and_is_not_understood(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"(meta|labels)\.csv names images, but none") as caught:
        open_dataset(write(tmp_path, files))
    header = next(data for name, data in files.items() if name.endswith(".csv")).split(b"\n")[0]
    assert header.decode().replace(",", ", ") in str(caught.value)
    assert "one called label, class" in str(caught.value)


def test_class_folders_beside_a_strange_table_need_labels(tmp_path: Path) -> None:
    rows = (f"cat/{n}.jpg,{n}" for n in range(20))
    write(tmp_path, {**images("cat", "dog"), "meta.csv": table("filename,width", *rows)})
    dataset = open_dataset(tmp_path, labels=("cat", "dog"))
    assert labels(dataset)["dog/0.jpg"] == "dog"
    assert "meta.csv has the columns filename, width, none is known: not used" in dataset.notes


def test_breeds_beside_split_folders(tmp_path: Path) -> None:
    files = {f"{s}/{s}{n}.jpg": image(n + 99 * (s == "test")) for s in ("train", "test")
             for n in range(40)}  # fmt: skip
    rows = (f"train{n},{'ab'[n % 2]}" for n in range(40))
    dataset = open_dataset(write(tmp_path, {**files, "labels.csv": table("id,breed", *rows)}))
    assert dataset.labels == ("a", "b")
    assert all(file.startswith("train/") for file in splits(dataset))
    assert "40 images have no row in labels.csv and are left out" in dataset.notes


def test_lists_and_submissions_beside_a_table_do_no_harm(tmp_path: Path) -> None:
    rows = (f"{n},{'ab'[n % 2]}" for n in range(40))
    files = {
        **flat(60),
        "train.csv": table("id,label", *rows),
        "test.csv": table("id", *range(40, 60)),
        "sample_submission.csv": table("id,a,b", *(f"{n},0.5,0.5" for n in range(40, 60))),
    }
    assert len(open_dataset(write(tmp_path, files)).items) == 40


def test_annotations_of_single_images_are_no_tables(tmp_path: Path) -> None:
    files = images("cat", "dog")
    boxes = {f"{name[:-4]}.csv": table("file,x", f"{name},3") for name in files}
    assert len(open_dataset(write(tmp_path, files | boxes)).items) == 40


# ---- one column per class --------------------------------------------------------------


def test_a_one_hot_table_in_each_split_folder(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for place, split in enumerate(("train", "valid", "test")):
        names = [f"{n}_jpg.rf.{place}{n}.jpg" for n in range(10)]
        files |= {f"{split}/{name}": image(100 * place + n) for n, name in enumerate(names)}
        marks = (f"{name}, {n % 2}, {1 - n % 2}" for n, name in enumerate(names))
        files[f"{split}/_classes.csv"] = table("filename, hare, rabbit", *marks)
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.labels == ("hare", "rabbit")
    assert dataset.counts()["val"] == {"hare": 5, "rabbit": 5}
    assert labels(dataset)["test/1_jpg.rf.21.jpg"] == "hare"
    assert splits(dataset)["test/1_jpg.rf.21.jpg"] == "test"


def test_rows_with_no_class_or_two_are_skipped(tmp_path: Path) -> None:
    marks = [f"{n}.jpg,{n % 2}.0,{1 - n % 2}.0" for n in range(60)]
    marks[0], marks[1] = "0.jpg,0.0,0.0", "1.jpg,1.0,1.0"
    dataset = open_dataset(write(tmp_path, {**flat(60), "t.csv": table("image,a,b", *marks)}))
    assert {entry.file for entry in dataset.skipped} == {"0.jpg", "1.jpg"}
    assert len(dataset.items) == 58


def test_empty_cells_at_the_end_of_a_row_may_be_left_out(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{'ab'[n % 2]}{',blurred' * (n % 4 == 0)}" for n in range(60)]
    dataset = open_dataset(
        write(tmp_path, {**flat(60), "t.csv": table("image,label,remark", *rows)})
    )
    assert len(dataset.items) == 60
    assert dataset.notes == ()


def test_remarks_and_blank_lines_of_a_table_are_no_files(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{'ab'[n % 2]}" for n in range(60)]
    rows = ["# made by a program", *rows, *["# checked"] * 4, "  ", " , "]
    dataset = open_dataset(write(tmp_path, {**flat(60), "t.csv": table("image,label", *rows)}))
    assert len(dataset.items) == 60
    assert dataset.skipped == ()


@pytest.mark.parametrize(
    ("header", "row", "test"),
    [
        ("image,label,is_test", lambda n: f"{n}.jpg,{'ab'[n % 2]},{int(n >= 45)}", 15),
        ("image,a,b", lambda n: f"{n}.jpg,{n % 2},{1 - n % 2}", 5),
        ("image,split,label", lambda n: f"{n}.jpg,{SPLITS[n % 3]},{'ab'[n // 30]}", 20),
    ],
)
def test_a_total_and_a_remark_do_not_change_what_columns_mean(
    tmp_path: Path, header: str, row: Callable[[int], str], test: int
) -> None:
    rows = [row(n) for n in range(60)]
    plain = open_dataset(write(tmp_path / "plain", {**flat(60), "t.csv": table(header, *rows)}))
    rows = ["# made in 2026, by hand", *rows, "Total,60"]
    noted = open_dataset(write(tmp_path / "noted", {**flat(60), "t.csv": table(header, *rows)}))
    assert noted.items == plain.items
    rows = [*rows[1:-1], "Total,60,15"]
    total = open_dataset(write(tmp_path / "total", {**flat(60), "t.csv": table(header, *rows)}))
    assert total.items == plain.items
    assert len(plain.items_of("test")) == test


def test_a_mark_that_is_left_out_is_a_no(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{'ab'[n % 2]}{',1' * (n >= 45)}" for n in range(60)]
    dataset = open_dataset(
        write(tmp_path, {**flat(60), "t.csv": table("image,label,is_test", *rows)})
    )
    assert {item.file for item in dataset.items_of("test")} == {f"{n}.jpg" for n in range(45, 60)}


# ---- what is laid down -----------------------------------------------------------------


def manifest(files: dict[str, bytes], split: str = "{split}", header: str = "split") -> bytes:
    rows = [
        f"{name},{name.split('/')[1]},{split.format(split=name.split('/')[0])}" for name in files
    ]
    return table(f"filepath,label,{header}", *rows)


FOUR = images("train/cat", "train/dog", "test/cat", "test/dog")


@pytest.mark.parametrize("header", ["split", "data set", "usage"])
def test_folders_and_a_column_that_agree(header: str, tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path, {**FOUR, "manifest.csv": manifest(FOUR, header=header)}))
    for file, split in splits(dataset).items():
        assert (split == "test") == file.startswith("test/")
    assert dataset.labels == ("cat", "dog")


def test_folders_are_obeyed_where_the_table_has_no_splits(tmp_path: Path) -> None:
    rows = (f"{name},{name.split('/')[1]}" for name in FOUR)
    dataset = open_dataset(write(tmp_path, {**FOUR, "manifest.csv": table("file,label", *rows)}))
    for file, split in splits(dataset).items():
        assert (split == "test") == file.startswith("test/")


def test_folders_and_a_column_that_disagree(tmp_path: Path) -> None:
    text = manifest(FOUR).replace(b"test/dog/7.jpg,dog,test", b"test/dog/7.jpg,dog,train")
    with pytest.raises(DataError, match=r"test/dog/7.jpg is of test by its folder, of train by"):
        open_dataset(write(tmp_path, {**FOUR, "manifest.csv": text}))


def test_a_column_is_obeyed_without_split_folders(tmp_path: Path) -> None:
    words = ("training", "valid", "TEST")
    rows = [f"{n}.jpg,{'ab'[n % 2]},{words[n // 2 % 3]}" for n in range(60)]
    files = {**flat(60), "t.csv": table("image,label,set", *rows)}
    dataset = open_dataset(write(tmp_path, files))
    expected = {f"{n}.jpg": ("train", "val", "test")[n // 2 % 3] for n in range(60)}
    assert splits(dataset) == expected


def test_a_table_of_splits_beside_class_folders(tmp_path: Path) -> None:
    files = images("cat", "dog")
    rows = [f"{name},{'test' if name.endswith('7.jpg') else 'train'}" for name in files]
    dataset = open_dataset(write(tmp_path, {**files, "t.csv": table("path,part", *rows)}))
    assert labels(dataset)["dog/7.jpg"] == "dog"
    assert {f for f, s in splits(dataset).items() if s == "test"} == {
        f"{label}/{n}.jpg" for label in ("cat", "dog") for n in (7, 17)
    }


def test_tables_that_are_called_like_splits(tmp_path: Path) -> None:
    parts = {"train_labels.csv": range(30), "test_labels.csv": range(30, 40)}
    tables = {
        name: table("file,label", *(f"{n}.jpg,{'ab'[n % 2]}" for n in numbers))
        for name, numbers in parts.items()
    }
    dataset = open_dataset(write(tmp_path, {**flat(), **tables}))
    assert {f for f, s in splits(dataset).items() if s == "test"} == {
        f"{n}.jpg" for n in range(30, 40)
    }


@pytest.mark.parametrize(
    ("header", "expected"),
    [("is_test", "train test"), ("is_valid", "train val"), ("is_train", "test train")],
)
@pytest.mark.parametrize("words", ["0 1", "False True", "no yes"])
def test_a_column_that_marks_one_split(
    header: str, expected: str, words: str, tmp_path: Path
) -> None:
    no, yes = words.split()
    rows = [f"{n}.jpg,{'ab'[n % 2]},{yes if n % 4 < 2 else no}" for n in range(80)]
    files = {**flat(80), "t.csv": table(f"name,label,{header}", *rows)}
    found = splits(open_dataset(write(tmp_path, files)))
    other, marked = expected.split()
    for number in range(80):
        split, said = found[f"{number}.jpg"], marked if number % 4 < 2 else other
        # What no column says is cut out of the training images.
        assert split == said or (said == "train" and split not in expected.split())


@pytest.mark.parametrize(
    ("header", "words"), [("split", "0 1"), ("partition", "a b"), ("set", "train test extra")]
)
def test_a_column_of_splits_that_are_not_known(header: str, words: str, tmp_path: Path) -> None:
    names = words.split()
    rows = [f"{n}.jpg,{'ab'[n % 2]},{names[n % len(names)]}" for n in range(40)]
    files = {**flat(), "t.csv": table(f"file,label,{header}", *rows)}
    with pytest.raises(DataError, match=rf"the column {header} names splits, but '(0|a|extra)' is"):
        open_dataset(write(tmp_path, files))


def test_a_table_in_a_folder_means_the_files_below_it(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{'ab'[n % 2]}" for n in range(20)]
    files = images("train/imgs", "test/imgs")
    files |= {f"{split}/labels.csv": table("file,label", *rows) for split in ("train", "test")}
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.counts()["test"] == {"a": 10, "b": 10}
    assert dataset.skipped == ()


def test_a_table_of_which_no_row_can_be_used(tmp_path: Path) -> None:
    rows = [f"{n}.jpg," for n in range(40)]
    with pytest.raises(DataError, match=r"no row of t\.csv can be used .*without a label"):
        open_dataset(write(tmp_path, {**flat(), "t.csv": table("file,label", *rows)}))


def test_a_table_that_contradicts_class_folders_is_noted(tmp_path: Path) -> None:
    files = images("cat", "dog")
    rows = [f"{name},{'dog' if number < 3 else name[:3]}" for number, name in enumerate(files)]
    dataset = open_dataset(write(tmp_path, {**files, "t.csv": table("file,label", *rows)}))
    assert dataset.notes == ("3 images lie in the folder of another class than t.csv says",)
    assert labels(dataset)["cat/0.jpg"] == "dog"


def test_a_first_line_for_excel(tmp_path: Path) -> None:
    rows = [f"{n}.jpg;{'ab'[n % 2]}" for n in range(40)]
    text = b"sep=;\r\n" + table("file;label", *rows)
    assert open_dataset(write(tmp_path, {**flat(), "t.csv": text})).labels == ("a", "b")


@pytest.mark.parametrize("ending", ["txt", "csv"])
def test_lists_of_images_that_are_called_like_splits(ending: str, tmp_path: Path) -> None:
    files = images("images/cat", "images/dog")
    header = ["image"] if ending == "csv" else []
    for split, numbers in (("train", range(15)), ("test", range(15, 20))):
        names = [f"{label}/{number}" for label in ("cat", "dog") for number in numbers]
        files[f"meta/{split}.{ending}"] = "\n".join([*header, *names]).encode()
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.labels == ("cat", "dog")
    assert {f for f, s in splits(dataset).items() if s == "test"} == {
        f"images/{label}/{number}.jpg" for label in ("cat", "dog") for number in range(15, 20)
    }


def test_texts_that_are_no_lists_do_no_harm(tmp_path: Path) -> None:
    files = images("cat", "dog") | {"test.txt": b"seen in May", "train.txt": b""}
    assert len(open_dataset(write(tmp_path, files)).items) == 40


def test_paths_that_begin_elsewhere(tmp_path: Path) -> None:
    files = images("data/train", "data/test")
    rows = [f"C:\\work\\{name},{'ab'[n % 2]}".replace("/", "\\") for n, name in enumerate(files)]
    dataset = open_dataset(write(tmp_path / "a", {**files, "t.csv": table("path,label", *rows)}))
    assert labels(dataset)["data/test/1.jpg"] == "b"
    assert dataset.skipped == ()
    rows = [f"old/{n}.jpg,{'ab'[n % 2]}" for n in range(40)]
    renamed = {f"new/{name}": data for name, data in flat().items()}
    dataset = open_dataset(write(tmp_path / "b", {**renamed, "t.csv": table("file,label", *rows)}))
    assert len(dataset.items) == 40


def test_a_path_never_means_a_file_of_another_folder(tmp_path: Path) -> None:
    files = {f"train/{n}.jpg": image(n) for n in range(60)} | {"test/x.jpg": image(99)}
    rows = [f"train/{n}.jpg,{'ab'[n % 2]}" for n in range(1, 60)] + ["test/0.jpg,a"]
    dataset = open_dataset(write(tmp_path, {**files, "t.csv": table("file,label", *rows)}))
    assert "train/0.jpg" not in labels(dataset)
    assert [(e.file, e.reason) for e in dataset.skipped] == [
        ("test/0.jpg", "listed in t.csv, but there is no such file")
    ]


def test_rows_without_a_split_are_for_training(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{'ab'[n % 2]},{'' if n < 30 else 'test'}" for n in range(40)]
    dataset = open_dataset(write(tmp_path, {**flat(), "t.csv": table("file,label,split", *rows)}))
    assert {f for f, s in splits(dataset).items() if s == "test"} == {
        f"{n}.jpg" for n in range(30, 40)
    }


def test_a_row_in_two_splits_and_a_file_with_two_labels(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{'ab'[n % 2]},{'train' if n < 30 else 'test'}" for n in range(40)]
    header = "file,label,split"
    twice = table(header, *rows, "3.jpg,b,test")
    with pytest.raises(DataError, match=r"t\.csv puts 3\.jpg into two splits"):
        open_dataset(write(tmp_path, {**flat(), "t.csv": twice}))
    double = table(header, *rows, "3.jpg,a,train", "3.jpg,b,train", "./4.jpg,a,train")
    dataset = open_dataset(write(tmp_path, {**flat(), "t.csv": double}))
    assert [(e.file, e.reason) for e in dataset.skipped] == [
        ("3.jpg", "listed in t.csv with two labels")
    ]
    assert labels(dataset)["4.jpg"] == "a"
    assert dataset.notes == ()


def test_two_files_of_one_name_need_a_path(tmp_path: Path) -> None:
    files = {**flat(60), "more/7.jpg": image(999)}
    rows = [f"{n}.jpg,{'ab'[n % 2]}" for n in range(60) if n != 7]
    plain = table("file,label", *rows, "x/7.jpg,b", "more/7.jpg,a")
    dataset = open_dataset(write(tmp_path, {**files, "t.csv": plain}))
    assert labels(dataset)["more/7.jpg"] == "a"
    assert [(e.file, e.reason) for e in dataset.skipped] == [
        ("x/7.jpg", "listed in t.csv, but several files have that name")
    ]


def test_a_split_folder_with_classes_that_no_row_names(tmp_path: Path) -> None:
    files = images("train/cat", "train/dog", "test/cat", "test/dog")
    rows = [f"{name},{name.split('/')[1]}" for name in files if name.startswith("train")]
    with pytest.raises(DataError, match=r"the test folder has classes .* no row of t\.csv names"):
        open_dataset(write(tmp_path / "a", {**files, "t.csv": table("file,label", *rows)}))
    # To be answered, without classes.
    files = {
        name.replace("test/cat/", "test/").replace("test/dog/", "test/x"): data
        for name, data in files.items()
    }
    dataset = open_dataset(write(tmp_path / "b", {**files, "t.csv": table("file,label", *rows)}))
    assert dataset.notes[0] == "40 images have no row in t.csv and are left out"


def test_answers_to_be_filled_in_are_no_labels(tmp_path: Path) -> None:
    files = {f"train/{n}.jpg": image(n) for n in range(40)}
    files |= {f"test/{n}.jpg": image(900 + n) for n in range(10)}  # the same names
    files["train.csv"] = table("id,label", *(f"{n},{'ab'[n % 2]}" for n in range(40)))
    files["sample_submission.csv"] = table("id,label", *(f"{n},a" for n in range(10)))
    dataset = open_dataset(write(tmp_path, files))
    assert set(splits(dataset)) == {f"train/{n}.jpg" for n in range(40)}
    assert dataset.skipped == ()


def test_a_table_of_names_that_occur_twice_says_so(tmp_path: Path) -> None:
    files = {f"{split}/{n}.jpg": image(n) for split in ("one", "two") for n in range(20)}
    files["t.csv"] = table("id,label", *(f"{n},{'ab'[n % 2]}" for n in range(20)))
    with pytest.raises(DataError, match=r"no row of t\.csv can be used .*several files"):
        open_dataset(write(tmp_path, files))


@pytest.mark.parametrize("line", ["{name} {number}", "{name}\t{number}", "{name},{label}"])
def test_lists_called_like_splits_with_labels(line: str, tmp_path: Path) -> None:
    files = images("cat", "dog")
    for split, numbers in (("train", range(15)), ("test", range(15, 20))):
        rows = [
            line.format(name=f"{label}/{n}.jpg", number=number, label=label)
            for number, label in enumerate(("cat", "dog"))
            for n in numbers
        ]
        files[f"{split}.txt"] = "\n".join(rows).encode()
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.labels == ("cat", "dog")
    assert {f for f, s in splits(dataset).items() if s == "test"} == {
        f"{label}/{number}.jpg" for label in ("cat", "dog") for number in range(15, 20)
    }


def test_labels_of_a_list_where_no_folder_says_them(tmp_path: Path) -> None:
    rows = [f"{n}.jpg {'ab'[n % 2]}" for n in range(40)]
    files = {**flat(), "train.txt": "\n".join(rows[:30]).encode()}
    files["val.txt"] = "\n".join(rows[30:]).encode()
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.labels == ("a", "b")
    assert {f for f, s in splits(dataset).items() if s == "val"} == {
        f"{n}.jpg" for n in range(30, 40)
    }


@pytest.mark.parametrize(
    ("yes", "no"), [("True", "False"), ("TRUE", "FALSE"), ("1", ""), ("1.0", "0.0")]
)
def test_one_hot_as_tools_write_it(yes: str, no: str, tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{no if n % 2 else yes},{yes if n % 2 else no},640" for n in range(40)]
    files = {**flat(), "t.csv": table("file,Cat,Dog,width", *rows)}
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.labels == ("Cat", "Dog")
    assert labels(dataset)["3.jpg"] == "Dog"


def test_a_row_of_a_one_hot_table_with_two_marks_is_named(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{1 - n % 2},{n % 2}" for n in range(1, 40)]
    dataset = open_dataset(
        write(tmp_path, {**flat(), "t.csv": table("file,cat,dog", *rows, "0.jpg,1,1")})
    )
    assert [(e.file, e.reason) for e in dataset.skipped] == [
        ("0.jpg", "listed in t.csv with two labels")
    ]


@pytest.mark.parametrize("header", ["test", "is_test", "in_test", "testing"])
def test_a_column_of_flags_names_the_split(header: str, tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{'ab'[n % 2]},{int(n >= 30)}" for n in range(40)]
    files = {**flat(), "t.csv": table(f"file,label,{header}", *rows)}
    dataset = open_dataset(write(tmp_path, files))
    assert {f for f, s in splits(dataset).items() if s == "test"} == {
        f"{n}.jpg" for n in range(30, 40)
    }


def test_a_class_called_train_in_a_one_hot_table_is_no_flag(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{1 - n % 2},{n % 2}" for n in range(40)]
    files = {**flat(), "t.csv": table("file,train,plane", *rows)}
    assert open_dataset(write(tmp_path, files)).labels == ("plane", "train")


def test_words_of_a_split_column_that_say_more(tmp_path: Path) -> None:
    words = ("Training",) * 6 + ("PublicTest", "PrivateTest")
    rows = [f"{n}.jpg,{'ab'[n % 2]},{words[n // 2 % 8]}" for n in range(40)]
    files = {**flat(), "t.csv": table("file,label,Usage", *rows)}
    assert splits(open_dataset(write(tmp_path, files)))["12.jpg"] == "test"
    files["t.csv"] = files["t.csv"].replace(b"PublicTest", b"gallery")
    with pytest.raises(DataError, match="the column Usage names splits, but 'gallery' is not one"):
        open_dataset(write(tmp_path, files))


# ---- labels are text as written --------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (("007", "012"), ("007", "012")),
        (("1.0", "2"), ("1.0", "2")),
        (("0", "1"), ("0", "1")),
        (("0.0", "1.0"), ("0.0", "1.0")),
        (("True", "False"), ("False", "True")),
        (("1e3", "NA"), ("1e3", "NA")),
    ],
)
def test_labels_are_text_as_written(
    written: tuple[str, str], expected: tuple[str, str], tmp_path: Path
) -> None:
    rows = (f"{n}.jpg,{written[n % 2]}" for n in range(40))
    dataset = open_dataset(write(tmp_path, {**flat(), "t.csv": table("image,labels", *rows)}))
    assert dataset.labels == expected
    assert labels(dataset)["0.jpg"] == written[0]


@pytest.mark.parametrize(
    ("cat", "named"), [("0", ("cat", "dog")), ("1", ("0", "1"))], ids=["known", "the other way"]
)
def test_zero_is_a_cat_where_the_files_say_so(
    cat: str, named: tuple[str, str], tmp_path: Path
) -> None:
    dog = "1" if cat == "0" else "0"
    names = [f"{kind}.{n}.jpg" for kind in ("cat", "dog") for n in range(20)]
    files = {name: image(index) for index, name in enumerate(names)}
    rows = (f"{name},{cat if name.startswith('cat') else dog}" for name in names)
    dataset = open_dataset(write(tmp_path, {**files, "t.csv": table("image,labels", *rows)}))
    assert dataset.labels == named


def test_labels_name_numbers_or_choose_text(tmp_path: Path) -> None:
    rows = (f"{n}.jpg,{n % 2}" for n in range(40))
    write(tmp_path, {**flat(), "t.csv": table("image,labels", *rows)})
    assert labels(open_dataset(tmp_path, labels=("rust", "paint")))["1.jpg"] == "paint"
    assert open_dataset(tmp_path, labels=("1", "0")).labels == ("1", "0")
    assert labels(open_dataset(tmp_path, labels=("1", "0")))["1.jpg"] == "1"
    with pytest.raises(DataError, match="--labels names a class twice"):
        open_dataset(tmp_path, labels=("rust", "rust"))
    rows = (f"{n}.jpg,{n % 3}" for n in range(40))
    write(tmp_path, {"t.csv": table("image,labels", *rows)})
    with pytest.raises(DataError, match=r"the classes 0, 1, 2, --labels names only 2"):
        open_dataset(tmp_path, labels=("rust", "paint"))


# ---- encodings -------------------------------------------------------------------------


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{('bäk', 'ok')[n % 2]}" for n in range(40)]
    text = table("image,label", *rows).decode()
    write(tmp_path, {**flat(), "t.csv": text.encode("cp1252")})
    with pytest.raises(DataError, match=r"t\.csv is not UTF-8 .*save it as UTF-8") as caught:
        open_dataset(tmp_path)
    str(caught.value).encode()
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        write(tmp_path, {"t.csv": text.encode(encoding)})
        assert open_dataset(tmp_path).labels == ("bäk", "ok")


def test_names_of_files_in_another_encoding_are_refused(tmp_path: Path) -> None:
    files = {f"né{n}.jpg": image(n) for n in range(40)}
    text = table("image,label", *(f"né{n}.jpg,{'ab'[n % 2]}" for n in range(40))).decode()
    write(tmp_path, {**files, "t.csv": text.encode("cp1252")})
    with pytest.raises(DataError, match=r"no image that is here|is not UTF-8"):
        open_dataset(tmp_path)


def test_one_hot_columns_in_another_encoding_are_refused(tmp_path: Path) -> None:
    text = table("image,bäk,ok", *(f"{n}.jpg,{n % 2},{1 - n % 2}" for n in range(40))).decode()
    write(tmp_path, {**flat(), "t.csv": text.encode("cp1252")})
    with pytest.raises(DataError, match=r"t\.csv is not UTF-8"):
        open_dataset(tmp_path)


@pytest.mark.slow
def test_the_known_archive_is_read_as_before(shared_data: Path) -> None:
    dataset = open_dataset(shared_data / "cat_dog.zip", limit=60)
    assert dataset.labels == ("cat", "dog")
    with zipfile.ZipFile(shared_data / "cat_dog.zip") as archive:
        lines = archive.read("cat_dog.csv").decode().splitlines()[1:]
    truth = dict(line.split(",") for line in lines)
    assert {f: str(i.label) for i in dataset.items for f in [Path(i.file).name]} == {
        f: truth[f] for i in dataset.items for f in [Path(i.file).name]
    }
