"""Sources in file names, kinds in folders."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catdog_edge.errors import DataError
from catdog_edge.training.data.dataset import SPLITS, Dataset, Item
from catdog_edge.training.data.folder_or_zip import SampleSource, Skipped
from catdog_edge.training.data.source_groups import (
    balanced_shares,
    check_left_out,
    held_out,
    kept_apart,
    kinds_of,
    sources_of,
    without_sources,
)
from catdog_edge.training.data.source_names import file_sources, told_apart
from catdog_edge.training.data.splits import split_folders


def dataset(*files: str, source: str = "/data/wild.zip", dogs: tuple[str, ...] = ()) -> Dataset:
    """A data set of cats and dogs; `val` or `test` in the name of a file is its split."""
    items = tuple(
        Item(file, label, next((one for one in SPLITS if one in file), "train"), file)
        for label, names in enumerate((files, dogs))
        for file in names
    )
    return Dataset(source, ("cat", "dog"), items, files=SampleSource())


WEB = dataset("cat/web-1.jpg", "cat/phone-2.jpg", "dog/web-val.jpg")


def test_the_first_word_of_a_file_is_its_source() -> None:
    assert file_sources(WEB) == {
        "cat/web-1.jpg": "web",
        "cat/phone-2.jpg": "phone",
        "dog/web-val.jpg": "web",
    }
    assert sources_of(WEB, "train") == ["web", "phone"]


@pytest.mark.parametrize(
    "files",
    [
        ("cat.1.jpg", "web-2.jpg"),
        ("cat/cat-1.jpg", "cat/cat-2.jpg"),
        ("Cats-1.jpg", "web-2.jpg"),
        ("2026-1.jpg", "2026-2.jpg"),
        tuple(f"a{number}-1.jpg" for number in range(21)),
    ],
)
def test_a_set_without_such_names_is_one_source(files: tuple[str, ...]) -> None:
    assert set(file_sources(dataset(*files)).values()) == {"wild"}


def test_twenty_words_are_still_sources() -> None:
    files = tuple(f"a{number}-1.jpg" for number in range(20))
    assert len(set(file_sources(dataset(*files)).values())) == 20


def test_a_word_that_repeats_another_class_or_a_kind_is_a_source() -> None:
    found = dataset("cat/dogtime-1.jpg", "cat/dog-2.jpg")
    assert sources_of(found, "train") == ["dogtime", "dog"]
    items = (Item("raccoon/raccoon-1.jpg", 0, "train", ""),)
    others = Dataset("/data/wild.zip", ("neither",), items, files=SampleSource())
    assert sources_of(others, "train") == ["raccoon"]


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["/a/images", "/b/images", "/b/pets.zip"], ["a/images", "b/images", "pets"]),
        (["/a/v1.1", "/a/v1.2"], ["v1.1", "v1.2"]),
        (["/x/a/images", "/y/a/images"], ["x/a/images", "y/a/images"]),
        (["/a/cam", "/a/cam.zip"], ["a/cam", "cam.zip"]),
        (["/images", "/a/images"], ["/images", "a/images"]),
        (["/a/images", "/a/images"], ["images", "images"]),
        (["sample", "/a/sample"], ["the drawn sample set", "a/sample"]),
    ],
)
def test_sets_of_one_name_are_told_apart_by_their_folders(
    sources: list[str], names: list[str]
) -> None:
    sets = told_apart([dataset("1.jpg", source=one) for one in sources])
    assert [sources_of(one, "train")[0] for one in sets] == names


def test_a_known_name_is_of_one_set_only() -> None:
    one, two = (dataset("1.jpg", source=f"/{folder}/images") for folder in "ab")
    assert [named.name for named in told_apart([one], ["a/images"])] == ["a/images"]
    # "images" is another set's name, of the negatives for example: neither of these is that one.
    assert [named.name for named in told_apart([one, two], ["images"])] == ["a/images", "b/images"]


def test_a_word_that_all_files_of_two_sets_share_is_no_source() -> None:
    cameras = [dataset("a/IMG-1.jpg", "b/IMG-2.jpg", source=f"/cam{n}/images") for n in (1, 2)]
    web = dataset("IMG-1.jpg", "phone-2.jpg", source="/web")
    one, two, three = told_apart([*cameras, web])
    assert set(file_sources(one).values()) == {"cam1/images"}
    assert set(file_sources(two).values()) == {"cam2/images"}
    assert set(file_sources(three).values()) == {"IMG", "phone"}
    # A set keeps its names, whatever is left of the others and of itself.
    assert not without_sources(one, ["cam1/images"]).items
    left = without_sources(three, ["phone"])
    assert [set(file_sources(named).values()) for named in told_apart([*cameras, left])] == [
        {"cam1/images"}, {"cam2/images"}, {"IMG", "phone"},
    ]  # fmt: skip
    # One alone is still known by the name that it had beside the other, or by its word.
    alone = [told_apart(cameras[:1], known)[0] for known in (["cam1/images"], ["IMG"], ["cam2"])]
    assert [file_sources(named)["a/IMG-1.jpg"] for named in alone] == ["cam1/images", "IMG", "IMG"]
    same = told_apart([cameras[0], cameras[0]])
    assert [file_sources(named)["a/IMG-1.jpg"] for named in same] == ["IMG", "IMG"]


def test_kinds_keep_their_names_when_a_source_is_left_out() -> None:
    found = dataset("wild/animals/ant/web-1.jpg", "wild/places/hall/phone-2.jpg")
    left = without_sources(found, ["phone"])
    assert kinds_of(left, "train") == ["animals"]
    assert kinds_of(without_sources(left, ["none"]), "train") == ["animals"]


def test_the_folder_below_the_root_is_the_kind_of_a_negative() -> None:
    found = dataset(
        "wild/animals/ant/web-1.jpg", "wild/animals/bear/web-2.jpg", "wild/hall/x-1.jpg"
    )
    assert kinds_of(found, "train") == ["animals", "animals", "hall"]
    flat = dataset("other/000001.jpg", "other/000002.jpg", source="/data/other.zip")
    assert kinds_of(flat, "train") == ["other", "other"]


def test_splits_are_no_kinds_of_negatives() -> None:
    found = dataset("wild/train/hall/x-1.jpg", "wild/test/hall/x-2.jpg", "wild/test/y-3.jpg")
    assert kinds_of(found, "train") == ["hall"]
    assert kinds_of(found, "test") == ["hall", found.plain_name]
    trains = dataset("vehicles/train/1.jpg", "vehicles/bus/2.jpg")
    assert kinds_of(trains, "train") == ["train", "bus"]
    assert split_folders(["a/val/1.jpg", "a/test/2.jpg"]) == (1, {})  # nothing to train on


def test_a_source_is_left_out_and_then_is_all_of_the_test() -> None:
    assert [item.file for item in without_sources(WEB, ["web"]).items] == ["cat/phone-2.jpg"]
    assert without_sources(WEB, []) is WEB
    assert held_out(WEB, []) == WEB
    tested = held_out(WEB, ["web"]).items_of("test")
    assert [item.file for item in tested] == ["cat/web-1.jpg", "dog/web-val.jpg"]


def digests(found: Dataset, **known: str) -> Dataset:
    """Give files, by their stem, the digests of other ones."""
    stems = {item: Path(item.file).stem.replace("-", "_") for item in found.items}
    items = tuple(replace(one, digest=known.get(stems[one], one.file)) for one in found.items)
    return replace(found, items=items)


def test_copies_of_what_is_measured_on_are_not_trained_on() -> None:
    one = digests(
        dataset("web-1.jpg", "web-2.jpg", "web-val.jpg", source="/one"), web_1="x", web_val="y"
    )
    two = digests(
        dataset("web-3.jpg", "phone-test.jpg", "web-4.jpg", source="/two.zip"),
        phone_test="x",
        web_4="y",
    )
    three = digests(
        dataset("cam-val.jpg", "cam-5.jpg", source="/three"), cam_val="x", cam_5="web-2.jpg"
    )
    kept = kept_apart([one, two, three], [])
    assert [[item.file for item in found.items] for found in kept] == [
        ["web-2.jpg", "web-val.jpg"], ["web-3.jpg", "phone-test.jpg"], ["cam-5.jpg"],
    ]  # fmt: skip
    assert [entry for found in kept for entry in found.skipped] == [
        Skipped("web-1.jpg", "the same image is in test: /two.zip/phone-test.jpg"),
        Skipped("web-4.jpg", "the same image is in val: /one/web-val.jpg"),
        Skipped("cam-val.jpg", "the same image is in test: /two.zip/phone-test.jpg"),
    ]
    # What is left out is measured on whole.
    (left, out) = kept_apart([one, three], ["cam"])
    assert [item.file for item in left.items] == ["web-val.jpg"]
    assert left.skipped[1].reason == "the same image is of cam, which is left out: /three/cam-5.jpg"
    assert not out.items
    # The same when what is left is filtered again.
    assert kept_apart([left, out], ["cam"]) == (left, out)
    assert kept_apart([one], []) == (one,)


def test_a_class_that_has_only_copies_is_told() -> None:
    one = dataset("web-1.jpg", dogs=("web-2.jpg",))
    two = digests(
        dataset("web-val.jpg", dogs=("web-test.jpg",), source="/two"), web_test="web-2.jpg"
    )
    with pytest.raises(DataError, match="no training image of 'dog' is left beside those that an"):
        check_left_out([one, two], [], [])
    with pytest.raises(DataError, match="no training image of 'dog' is left; leave out fewer"):
        check_left_out([one, dataset("cat/cam-1.jpg", source="/two")], [two], ["web"])


def test_sources_to_leave_out_must_exist() -> None:
    pets = dataset("phone-1.jpg", "phone-val.jpg", "web-2.jpg", dogs=("phone-3.jpg",))
    check_left_out([pets], [], ["web"])
    with pytest.raises(DataError, match="no data has this source; the sources are phone, web"):
        check_left_out([pets], [], ["wbe"])


@pytest.mark.parametrize(
    ("left_out", "missing"),
    [
        (["web", "phone", "shelter"], "training image of 'cat'"),
        (["web"], "training image of 'cat'"),
        (["phone"], "training image of 'dog'"),
        (["shelter"], "validation image"),
        (["street"], ""),
    ],
)
def test_each_class_keeps_images_whatever_the_negatives_have(
    left_out: list[str], missing: str
) -> None:
    pets = dataset("web-1.jpg", "shelter-val.jpg", dogs=("phone-1.jpg",))
    # In the other set, the source is of the test alone.
    more = dataset("phone-test.jpg", dogs=("phone-test.jpg",))
    others = dataset("street-1.jpg", source="/data/other.zip")
    named = re.escape(f"--leave-out {', '.join(left_out)}: no {missing} is left")
    with pytest.raises(DataError, match=named) if missing else contextlib.nullcontext():
        check_left_out([pets, more], [others], left_out)


@pytest.mark.parametrize(("balance", "small"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)])
def test_a_small_source_gets_more_draws_than_its_images(balance: float, small: float) -> None:
    shares = balanced_shares(["a"] * 90 + ["b"] * 10, balance)
    assert shares.sum() == pytest.approx(1)
    assert shares[90:].sum() == pytest.approx(small)
    assert np.ptp(shares[90:]) == 0
