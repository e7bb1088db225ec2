"""Splits by content that no class is missing from."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.images.image_sets import image, images, splits, write

from catdog_edge.errors import DataError
from catdog_edge.images.preprocess import preprocess
from catdog_edge.spec import squash
from catdog_edge.training.data.dataset import SPLITS, Candidate, Decoded, FileLayout
from catdog_edge.training.data.open_dataset import open_dataset, pixels
from catdog_edge.training.data.splits import (
    Splitter,
    read_subset,
    says_no_class,
    shares_of,
    split_names,
    split_of,
)

STEPS = squash(16, 16)
pytestmark = pytest.mark.usefixtures("cache_folder")


def found(label: str, count: int, start: int = 0) -> list[Decoded]:
    """Images whose digests are as good as random."""
    return [
        Decoded(
            Candidate(f"{label}/{number}.jpg", label),
            hashlib.sha256(f"{label} {number}".encode()).hexdigest()[:32],
        )
        for number in range(start, start + count)
    ]


def assigned(read: list[Decoded], shares: tuple[float, ...] = (80, 10, 10)) -> dict[str, str]:
    splitter = Splitter(shares_of(shares), [one.candidate for one in read])
    return {one.candidate.file: split for one, split in zip(read, splitter.assign(read))}


def by_class(places: dict[str, str]) -> dict[str, set[str]]:
    there: dict[str, set[str]] = {}
    for file, split in places.items():
        there.setdefault(file.split("/")[0], set()).add(split)
    return there


@pytest.mark.parametrize(
    "counts",
    [[25] * 20, [60] * 200, [1000, 10], [3] * 1000, [3, 500], [4, 5, 6, 7]],
    ids=["20 of 25", "200 of 60", "1000 against 10", "1000 of 3", "3 against 500", "4 to 7"],
)
@pytest.mark.parametrize("shares", [(80, 10, 10), (98, 1, 1), (50, 50, 0), (10, 80, 10)])
def test_every_class_has_one_in_every_part(counts: list[int], shares: tuple[float, ...]) -> None:
    read = [one for label, count in enumerate(counts) for one in found(f"c{label}", count)]
    places = assigned(read, shares)
    wanted = {split for split, share in zip(SPLITS, shares) if share > 0}
    assert all(there == wanted for there in by_class(places).values())
    # Only what is needed has moved, and order plays no part.
    splitter = Splitter(shares_of(shares), [one.candidate for one in read])
    plain = {o.candidate.file: splitter.by_digest(o.candidate, o.digest) for o in read}
    moved = [file for file in plain if plain[file] != places[file]]
    lacking = sum(len(wanted - there) for there in by_class(plain).values())
    few = [
        max(0, count - 1)
        for (label, split), count in Counter((f.split("/")[0], s) for f, s in plain.items()).items()
        if split != "train" and counts[int(label[1:])] * shares[SPLITS.index(split)] <= 100
    ]
    assert lacking <= len(moved) <= lacking + sum(few)
    assert assigned(read[::-1], shares) == places


def test_a_split_that_is_given_counts_more_than_a_digest() -> None:
    here = [Candidate("a.jpg", "cat", "test"), Candidate("b.jpg", "cat", "train")]
    for_training, for_val = "0" * 32, "f" * 32
    splitter = Splitter(shares_of((80, 20, 0)), here)
    assert [splitter.by_digest(one, for_val) for one in here] == ["test", "val"]
    assert [splitter.by_digest(one, for_training) for one in here] == ["test", "train"]
    complete = Splitter(shares_of((80, 20, 0)), here, complete=True)
    nowhere = Candidate("c.jpg", "cat")
    assert [complete.by_digest(one, for_val) for one in [*here, nowhere]] == [
        "test", "train", "train",
    ]  # fmt: skip


def test_a_large_set_is_split_by_digests_alone() -> None:
    read = found("cat", 2000) + found("dog", 2000)
    for one, split in zip(read, assigned(read).values()):
        place = int(one.digest[:16], 16) / 2**64
        assert split == ("train" if place < 0.8 else "val" if place < 0.9 else "test")


@pytest.mark.parametrize("size", [5, 12, 25, 60])
def test_adding_files_moves_few(size: int) -> None:
    read = [one for label in range(40) for one in found(f"c{label}", size)]
    more = read + [one for label in range(40) for one in found(f"c{label}", 2, start=1000)]
    before, after = assigned(read), assigned(more)
    moved = sum(before[file] != after[file] for file in before)
    # At most what had to be moved before, and what takes its place.
    splitter = Splitter(shares_of((80, 10, 10)), [one.candidate for one in read])
    splitter.assign(read)
    assert moved <= 2 * len(splitter.moved)
    assert moved < 0.2 * len(before)


def test_copies_stay_together_and_do_not_count_as_three(tmp_path: Path) -> None:
    files = images("a", "b", count=12)
    files |= {f"a/copy of {name[2:]}": data for name, data in files.items() if name[0] == "a"}
    dataset = open_dataset(write(tmp_path / "set", files))
    where = splits(dataset)
    assert all(where[f"a/{n}.jpg"] == where[f"a/copy of {n}.jpg"] for n in range(12))
    few = {f"c/{n}.jpg": image(7) for n in range(9)} | {"c/x.jpg": image(8)}
    with pytest.raises(DataError, match=r"the (val|test) split has no 'c' \(10 in all\)") as caught:
        open_dataset(write(tmp_path / "set", few))
    assert "three or more that differ" in str(caught.value)


@pytest.mark.parametrize(("each", "train"), [(3, 1), (4, 2), (5, 3), (9, 7)])
def test_small_classes_have_one_for_val_and_test_and_the_rest_for_training(
    each: int, train: int
) -> None:
    places = assigned([one for number in range(1000) for one in found(f"c{number}", each)])
    counts = Counter((file.split("/")[0], split) for file, split in places.items())
    assert {counts[f"c{number}", "train"] for number in range(1000)} == {train}
    assert set(Counter(places.values()).items()) == {
        ("train", 1000 * train),
        ("val", 1000),
        ("test", 1000),
    }


def test_many_small_classes_are_one_line(tmp_path: Path) -> None:
    files = images("a", "b", count=30) | images("c", "d", "e", count=2)
    with pytest.raises(DataError, match=r"no '[cde]' \(2 in all\), nor 2 other classes") as caught:
        open_dataset(write(tmp_path, files))
    assert "\n" not in str(caught.value)


def test_what_moved_is_said_and_pixels_follow(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", images("a", "b", "c", count=4))
    dataset = open_dataset(folder, steps=STEPS)
    assert all(there == set(SPLITS) for there in by_class(splits(dataset)).values())
    (note,) = dataset.notes
    number, text = note.split(" ", 1)
    assert text.startswith("images are in another split than their digest says, so that each")
    assert 0 < int(number) < 12
    for split in SPLITS:
        frames, _, items = pixels(dataset, split, STEPS)
        assert len(items) >= 3
        for frame, item in zip(frames, items, strict=True):
            assert np.array_equal(frame, preprocess(dataset.decode(item), STEPS))
    # Nothing is new: nothing changed its split.
    assert open_dataset(folder).notes == dataset.notes


def test_images_that_change_their_split_are_counted(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", images("a", "b", count=5))
    before = splits(open_dataset(folder))
    write(folder, {f"a/{n}.jpg": image(n) for n in range(5000, 5060)})
    write(folder, {f"b/{n}.jpg": image(n) for n in range(6000, 6060)})
    dataset = open_dataset(folder)
    after = splits(dataset)
    moved = sum(before[file] != after[file] for file in before)
    assert moved > 0
    assert dataset.notes == (
        f"{moved} images changed their split since the set was last opened, because files were "
        "added or removed",
    )
    assert open_dataset(folder).notes == ()


def test_a_limit_takes_from_the_splits_of_the_whole_set(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", images("a", "b", count=40) | images("c", count=4))
    whole = splits(open_dataset(folder))
    some = open_dataset(folder, limit=30)
    assert all(whole[file] == split for file, split in splits(some).items())
    assert all(there == set(SPLITS) for there in by_class(splits(some)).values())


def test_a_limit_reads_no_more_of_a_class_than_it_takes() -> None:
    candidates = [one.candidate for name, n in (("a", 5000), ("c", 4)) for one in found(name, n)]
    digests = {one.candidate.file: one for name in "ac" for one in found(name, 5000)}
    splitter = Splitter(shares_of((80, 10, 10)), candidates)
    read, taken = read_subset(
        FileLayout("", tuple(candidates), ("a", "c")), 200, 0, splitter,
        lambda batch: [digests[one.file] for one in batch],
    )  # fmt: skip
    of_class = Counter((file[0], split) for file, split in taken.items())
    assert of_class == {
        ("a", "train"): 80, ("a", "val"): 10, ("a", "test"): 10,
        ("c", "train"): 2, ("c", "val"): 1, ("c", "test"): 1,
    }  # fmt: skip
    assert len(read) < 500
    everything = splitter.assign([digests[one.file] for one in candidates])
    whole = {one.file: split for one, split in zip(candidates, everything)}
    assert all(whole[file] == split for file, split in taken.items())


def test_a_limit_takes_small_classes_from_the_splits_of_the_whole_set() -> None:
    labels = tuple(f"c{number:02}" for number in range(100))
    every = [one for label in labels for one in found(label, 10)]
    candidates = tuple(one.candidate for one in every)
    digests = {one.candidate.file: one for one in every}
    splitter = Splitter(shares_of((80, 10, 10)), candidates)
    _, taken = read_subset(
        FileLayout("", candidates, labels), 300, 0, splitter,
        lambda batch: [digests[one.file] for one in batch],
    )  # fmt: skip
    whole = dict(zip(digests, splitter.assign(every), strict=True))
    assert len(taken) == 300
    assert all(whole[file] == split for file, split in taken.items())


def test_files_that_a_limit_cannot_read_are_skipped(tmp_path: Path) -> None:
    files = images("a", "b", count=60) | {"a/0.jpg": b"no image"}
    dataset = open_dataset(write(tmp_path, files), limit=300)
    assert [entry.file for entry in dataset.skipped] == ["a/0.jpg"]


def test_validation_is_cut_out_of_train_folders_class_by_class(tmp_path: Path) -> None:
    files = images("train/a", "train/b", "test/a", "test/b", count=3)
    dataset = open_dataset(write(tmp_path, files))
    assert dataset.counts()["test"] == {"a": 3, "b": 3}
    assert dataset.counts()["val"] == {"a": 1, "b": 1}


def test_a_train_image_that_is_in_test_is_left_out_wherever_it_lies(tmp_path: Path) -> None:
    files = images("train/a", "train/b", "val/a", "val/b", "test/a", "test/b", count=6)
    files["train/b/x.jpg"] = files["val/a/0.jpg"]
    files["val/b/y.jpg"] = files["test/b/1.jpg"]
    dataset = open_dataset(write(tmp_path, files))
    assert {entry.file: entry.reason for entry in dataset.skipped} == {
        "train/b/x.jpg": "the same image is in val: val/a/0.jpg",
        "val/b/y.jpg": "the same image is in test: test/b/1.jpg",
    }
    assert set(splits(dataset)) == set(files) - {"train/b/x.jpg", "val/b/y.jpg"}


def test_the_split_of_a_spec() -> None:
    assert split_of({"split": [70, 20, 10]}) == (70, 20, 10)
    for nonsense in ({}, {"split": [70, 20]}, {"split": [1, 2, 3]}, {"split": ["a", 2, 3]}):
        assert split_of(nonsense) == (80, 10, 10)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("training_set test_set", "train test"),
        ("seg_train seg_test seg_pred", "train test -"),
        ("train_images val_images", "train val"),
        ("Train Valid TEST", "train val test"),
        ("TrainImages TestImages", "train test"),
        ("trainset testdata", "train test"),
        ("train2017 val2017", "train val"),
        ("trainval test", "train test"),
        ("training validation evaluation", "train val test"),
        ("dogs-train dogs-dev", "train val"),
        ("trainA trainB testA testB", "train train test test"),
        ("steam_train bus", "- -"),
        ("testtube protest", "- -"),
        ("valley trainers contest", "- - -"),
        ("Xtrain Xtest", "train test"),
        ("strain contest", "- -"),
        ("trn tst", "train test"),
        ("train_small train_large test_small", "train train test"),
        ("Training Hold-out cross_validation", "train test val"),
        ("steam_train train", "- train"),
    ],
)
def test_which_names_mean_splits(names: str, expected: str) -> None:
    found = split_names(names.split())
    assert [found.get(name, "-") for name in names.split()] == expected.split()


def test_shares_are_scaled_to_a_sum_of_one() -> None:
    assert shares_of((80, 10, 10)) == pytest.approx((0.8, 0.1, 0.1))
    assert shares_of((3, 1, 0)) == (0.75, 0.25, 0)
    with pytest.raises(DataError, match="got 80/-1/21"):
        shares_of((80, -1, 21))


def test_what_each_split_will_get() -> None:
    free, laid = [Candidate(str(n), "a") for n in range(6)], [Candidate("x", "a", "test")] * 4
    expected = Splitter((0.5, 0.25, 0.25), [*free, *laid]).expected()
    assert expected == pytest.approx({"train": 0.4, "val": 0.2, "test": 0.4})
    whole = Splitter((0.5, 0.25, 0.25), [*free, *laid], complete=True).expected()
    assert whole == pytest.approx({"train": 0.6, "val": 0.0, "test": 0.4})


def test_names_that_only_say_what_files_are() -> None:
    assert all(map(says_no_class, ("images_2", "fold 1", "train", "DataSet")))
    assert not any(map(says_no_class, ("class 1", "cats", "12", "my photos of cats")))


def test_the_image_nearest_to_a_split_without_one_moves_there() -> None:
    files = [Candidate(f"{number}.jpg", "cat") for number in range(3)]
    found = [
        Decoded(one, f"{int(place * 2**64):016x}") for one, place in zip(files, (0.1, 0.75, 0.5))
    ]
    assert Splitter((0.8, 0.1, 0.1), files).assign(found) == ["train", "val", "test"]
