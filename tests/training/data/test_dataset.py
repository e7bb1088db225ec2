"""A data set's record of its splits: written and read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.images.image_sets import image, named, write

from catdog_edge.training.data.dataset import Dataset, Item
from catdog_edge.training.data.folder_or_zip import SampleSource, Skipped
from catdog_edge.training.data.open_dataset import open_dataset

pytestmark = pytest.mark.usefixtures("cache_folder")


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
    write(tmp_path / "set", {"cat.777.jpg": image(777)})  # not in the file: left out
    swapped = open_dataset(tmp_path / "set", split_csv=tmp_path / "split.csv")
    assert swapped.counts()["val"] == first.counts()["test"]
    assert swapped.counts()["test"] == first.counts()["val"]
    assert len(swapped.items) == len(first.items)
    assert any("1 images are not in split.csv" in note for note in swapped.notes)


@pytest.mark.parametrize(
    ("classes", "listed"),
    [(10, ", ".join(f"{n + 1} c{n}" for n in range(10))), (11, "11 classes of 1 to 11")],
)
def test_a_set_is_described_in_a_few_lines(classes: int, listed: str) -> None:
    labels = tuple(f"c{n}" for n in range(classes))
    items = [
        Item(f"{label}-{n}.jpg", label, "val" if n == 1 else "train", f"{label} {n // 10}")
        for label in range(classes)
        for n in range(label + 1)
    ]
    skipped = [Skipped(f"{n}.jpg", reason) for n, reason in enumerate("aaabbcdd")]
    found = Dataset(
        "/data/set", labels, tuple(items), SampleSource(), tuple(skipped), "class folders", ("hm",)
    )
    assert found.copies == len(items) - len({item.digest for item in items})
    assert found.describe() == [
        f"data: /data/set: {len(items)} images ({listed}), class folders",
        f"split: {len(items) - classes + 1} train, {classes - 1} val, 0 test",
        "skipped: 8 files (3 a; 2 b; 2 d)",
        f"copies: {found.copies} images occur more than once, on one side each",
        "note: hm",
    ]
    none = "; ".join(replace(found, items=()).describe())
    assert ("0 c0" if classes == 10 else "11 classes of 0 to 0") in none


@pytest.mark.parametrize("name", ["cat.\r.900.jpg", "cat.\r\n.900.jpg", 'cat.",\n .900.jpg'])
def test_any_name_survives_split_csv(name: str, tmp_path: Path) -> None:
    first = open_dataset(write(tmp_path / "set", named() | {name: image(900)}))
    assert name in {item.file for item in first.items}
    first.write_split_csv(tmp_path / "split.csv")
    again = open_dataset(tmp_path / "set", split_csv=tmp_path / "split.csv")
    assert again.items == first.items
    assert again.skipped == ()
