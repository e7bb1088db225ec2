from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from catdog_edge.errors import CatdogError
from catdog_edge.system.files import (
    atomic_write,
    cache_folder,
    expand_path,
    remove_leftovers,
    take_free_name,
    write_bytes,
    write_text,
)


def test_text_and_bytes_arrive(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "Katze, Hund: ß\n")
    write_bytes(tmp_path / "b.bin", b"\x00\x01")
    assert (tmp_path / "new" / "a.txt").read_bytes().decode() == "Katze, Hund: ß\n"
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\x01"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail_halfway() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "picture.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path


def test_results_are_ordinary_files_not_private_ones(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_a_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CatdogError, match="cannot write") as caught:
        write_text(tmp_path / "file" / "a.txt", "x")
    assert "\n" not in str(caught.value)


def test_what_a_kill_has_left_of_one_file_goes_and_of_others_stays(tmp_path: Path) -> None:
    target = tmp_path / "a [1].txt"
    write_text(target, "whole")
    code = "import os, sys; from catdog_edge.system.files import atomic_write\n"
    code += "with atomic_write(sys.argv[1]): os.kill(os.getpid(), 9)"
    for path in (target, tmp_path / "b.txt"):
        subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(target)
    left = {file.name for file in tmp_path.iterdir()} - {"a [1].txt"}
    assert len(left) == 1
    assert left.pop().startswith(".b-")
    assert target.read_text() == "whole"


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CatdogError, match="is a device or a pipe; name a file"):
        write_text(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of one MB; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_old_file_survives(small_disk: Path) -> None:
    write_bytes(small_disk / "model.bin", b"old" * 100)
    with pytest.raises(CatdogError, match="No space left") as caught:
        write_bytes(small_disk / "model.bin", bytes(2_000_000))
    assert "model.bin" in str(caught.value)
    assert (small_disk / "model.bin").read_bytes() == b"old" * 100
    assert [file.name for file in small_disk.iterdir()] == ["model.bin"]


def test_a_free_name_is_taken_by_an_empty_file(tmp_path: Path) -> None:
    taken = [take_free_name(tmp_path, "cat", ".jpg") for _ in range(3)]
    assert taken == [
        (tmp_path / "cat.jpg", 1),
        (tmp_path / "cat-2.jpg", 2),
        (tmp_path / "cat-3.jpg", 3),
    ]
    assert all(path.stat().st_size == 0 for path, _ in taken)
    long = "\u732b" * 100
    path, _ = take_free_name(tmp_path, long, ".jpg")
    assert path.name == "\u732b" * 83 + ".jpg"  # 253 bytes
    with pytest.raises(CatdogError, match="cannot write"):
        take_free_name(tmp_path / "none", "cat", ".jpg")


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a passwd entry and without $HOME; gives the temporary folder."""
    import pwd

    def nobody(number: int) -> object:
        raise KeyError(f"uid {number}")

    for name in ("HOME", "XDG_CACHE_HOME", "CATDOG_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"CATDOG_CACHE": "~/here"}, "home/here"),
        ("linux", {}, "home/.cache/catdog-edge"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "xdg/catdog-edge"),
        ("darwin", {"XDG_CACHE_HOME": "xdg"}, "home/Library/Caches/catdog-edge"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/catdog-edge"),
        ("win32", {}, "home/AppData/Local/catdog-edge"),
    ],
)
def test_the_cache_is_where_the_system_wants_it(
    platform: str,
    variables: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("CATDOG_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        value = variables.get(name, "")
        monkeypatch.setenv(
            name, value if value.startswith("~") or not value else f"{tmp_path}/{value}"
        )
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == tmp_path / expected


def test_a_relative_cache_folder_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CATDOG_CACHE", "below")
    assert cache_folder() == tmp_path / "below"


def test_a_relative_folder_of_the_system_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CATDOG_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "below")
    assert cache_folder() == tmp_path / ".cache" / "catdog-edge"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs Unix users")
def test_a_user_without_a_home_folder_has_a_private_cache(homeless: Path) -> None:
    folder = cache_folder()
    assert folder == homeless / f"catdog-edge-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == folder


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs Unix users")
def test_a_cache_of_another_user_is_refused(
    homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: real + 1)
    with pytest.raises(CatdogError, match=r"belongs to another user\); set CATDOG_CACHE"):
        cache_folder()


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "~"])
def test_a_home_folder_that_does_not_exist_is_one_line(homeless: Path, path: str) -> None:
    with pytest.raises(CatdogError, match="no such home folder"):
        expand_path(path)


def test_a_path_in_a_deleted_current_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(CatdogError, match="x: the current folder is not there any more"):
        expand_path("x")
    assert expand_path("/x") == Path("/x")
