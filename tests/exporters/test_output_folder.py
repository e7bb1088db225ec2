from __future__ import annotations

from pathlib import Path

import pytest
from support.small_disk import small_disk

from catdog_edge.errors import CatdogError
from exporters.output_folder import output_folder, publish


def files(folder: Path, **sizes: int) -> list[Path]:
    folder.mkdir()
    for name, size in sizes.items():
        (folder / f"{name}.onnx").write_bytes(name.encode() * size)
    return sorted(folder.iterdir())


def test_all_files_are_put_into_place(tmp_path: Path) -> None:
    made = files(tmp_path / "made", a=3, b=4)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.onnx").write_text("old")
    publish(made, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.onnx", "b.onnx"]
    assert (tmp_path / "out" / "b.onnx").read_text() == "bbbb"
    assert (tmp_path / "out" / "b.onnx").stat().st_mode & 0o444 == 0o444


def test_a_full_disk_is_found_before_anything_is_replaced(tmp_path: Path) -> None:
    made = files(tmp_path / "made", a=4000, b=4000, c=400_000)
    with small_disk(tmp_path / "out", "100k") as out:
        for name in "abc":
            (out / f"{name}.onnx").write_text("old")
        with pytest.raises(CatdogError, match=r"cannot write .*c\.onnx: No space left"):
            publish(made, out)
        assert {file.name: file.read_text() for file in out.iterdir()} == {
            "a.onnx": "old",
            "b.onnx": "old",
            "c.onnx": "old",
        }


def test_a_folder_in_the_place_of_a_file_stops_all(tmp_path: Path) -> None:
    made = files(tmp_path / "made", a=3, b=3)
    (tmp_path / "out" / "b.onnx").mkdir(parents=True)
    with pytest.raises(CatdogError, match=r"b\.onnx: a folder is in its place"):
        publish(made, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["b.onnx"]


def test_a_folder_is_kept_where_the_block_ends_well(tmp_path: Path) -> None:
    with output_folder(tmp_path / "new" / "deep"):
        pass
    assert (tmp_path / "new" / "deep").is_dir()


def test_a_folder_made_for_nothing_goes_and_others_stay(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "new" / "deep"):
        raise KeyboardInterrupt
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="x"), output_folder(tmp_path):
        raise ValueError("x")
    assert tmp_path.is_dir()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CatdogError, match="cannot write"), output_folder(folder):
            pass
    assert (tmp_path / "file").read_text() == "x"
