"""Which image files are meant by files, folders, patterns and lists of names."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from catdog_edge.errors import CatdogError
from catdog_edge.images.find import find_images, split_list, why_not_found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: `a.png`, `b/c.JPG`, `b/d/e.png`, `b/notes.txt`, an empty `f/`."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b/c.JPG", "b/d/e.png", "b/notes.txt", "f/.keep"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b"], ["b/c.JPG", "b/d/e.png"]),
        (["a.png", "b", "."], ["a.png", "b/c.JPG", "b/d/e.png"]),
        (["a.png", "a.png"], ["a.png"]),
        (["b/d/e.png", "**/*.png"], ["b/d/e.png", "a.png"]),
        (["b/*"], ["b/c.JPG", "b/notes.txt"]),
        (["b/notes.txt", "-", "a.png"], ["b/notes.txt", "listed.png", "a.png"]),
        (["no.png", "f", "*.gif"], ["no.png", "f", "*.gif"]),
    ],
)
def test_each_file_is_found_once(here: Path, names: list[str], expected: list[str]) -> None:
    found = find_images(names, ["listed.png"])
    assert found == [Path(name) for name in expected]


def test_a_folder_of_copies_is_left_out(here: Path) -> None:
    assert find_images(["b"], leave_out=Path("b/d")) == [Path("b/c.JPG")]
    for folder in ("b", "b/d"):
        with pytest.raises(CatdogError, match="choose another folder for --save"):
            find_images([folder], leave_out=Path("b"))


def test_why_nothing_was_found(here: Path) -> None:
    assert why_not_found(Path("f")) == "there are no images in this folder"
    assert why_not_found(Path("*.gif")) == "no file matches this pattern"
    assert why_not_found(Path("no.png")) is None
    assert why_not_found(Path("a.png")) is None


def test_a_list_is_split_as_it_was_written() -> None:
    names = ["a.png", "b c.png"]
    for data in (b"a.png\nb c.png\n", b"a.png\r\n\r\nb c.png", b"a.png\0b c.png\0"):
        assert split_list(data) == names
    assert split_list(b"a\nb.png\0c.png") == ["a\nb.png", "c.png"]
    assert split_list(codecs.BOM_UTF8 + b"a.png\nb c.png") == names
    assert split_list("a.png\r\nb c.png".encode("utf-16")) == names
    assert split_list(codecs.BOM_UTF16_BE + "a.png".encode("utf-16-be")) == ["a.png"]
