"""Sources: folders, zips, links, and names in any encoding."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from support.images.image_sets import image, images, named, splits, write, write_zip

from catdog_edge.errors import DataError
from catdog_edge.training.data.folder_or_zip import Entry, SampleSource, is_sample, open_source
from catdog_edge.training.data.open_dataset import open_dataset

pytestmark = pytest.mark.usefixtures("cache_folder")


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder or zip"):
        open_dataset(tmp_path / "none")
    broken = tmp_path / "half.zip"
    whole = write_zip(tmp_path / "whole.zip", named(3)).read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half\.zip is no zip"):
        open_dataset(broken)


def test_environment_names_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_sample(None)
    assert isinstance(open_source(None), SampleSource)
    monkeypatch.setenv("CATDOG_DATA", str(write(tmp_path / "mine", named())))
    assert open_dataset().source == str(tmp_path / "mine")
    assert not is_sample(None)
    assert is_sample("sample")
    with pytest.raises(DataError, match="--data is empty"):
        open_source("")


def test_versions_and_digests_of_files(tmp_path: Path) -> None:
    data = image(3)
    packed = open_source(write_zip(tmp_path / "x.zip", {"./a\\b.jpg": data, "Thumbs.DB": data}))
    assert dict(packed.entries) == {"a/b.jpg": Entry(len(data), f"{zlib.crc32(data):08x}")}
    frame = packed.frame("a/b.jpg")
    wanted = hashlib.sha256(b"24 32 " + frame.tobytes()).hexdigest()[:32]
    assert packed.digest("a/b.jpg", frame) == wanted
    folder = open_source(write(tmp_path / "set", {"a.jpg": data}))
    os.utime(tmp_path / "set" / "a.jpg", ns=(1, 12_345_678_901))
    assert folder.entries["a.jpg"].size == len(data)
    assert open_source(tmp_path / "set").entries["a.jpg"].stamp == "12345678901"
    drawn = SampleSource()
    assert {(one.size, len(one.stamp)) for one in drawn.entries.values()} == {(0, 16)}
    splits = [int(drawn.digest(file, frame)[:16], 16) / 2**64 for file in drawn.entries]
    assert len(drawn.digest("cat.1.png", frame)) == 32
    assert 0.79 < np.mean(np.array(splits) < 0.8) < 0.81, "the salt was chosen for this"


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
    data[data.index(image(5)) + 200] ^= 255
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
    Path(os.fsdecode(raw)).write_bytes(image(3))
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


def as_old_archivers_write(path: Path, files: dict[str, bytes], encoding: str) -> Path:
    """A zip whose names are in an encoding, without the flag of UTF-8."""
    plain = {
        name: f"#{index:03}".ljust(len(name.encode(encoding)), "@")
        for index, name in enumerate(files)
    }
    write_zip(path, {plain[name]: data for name, data in files.items()})
    data = path.read_bytes()
    for name, number in plain.items():
        data = data.replace(number.encode(), name.encode(encoding))
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert not any(info.flag_bits & 0x800 for info in archive.infolist())
    return path


def test_utf8_names_in_a_zip_without_the_flag(tmp_path: Path) -> None:
    files = images("fêtes", "дом")
    dataset = open_dataset(as_old_archivers_write(tmp_path / "x.zip", files, "utf-8"))
    assert dataset.labels == ("fêtes", "дом")
    assert set(splits(dataset)) == set(files)


def test_names_in_a_zip_that_begin_with_a_dot(tmp_path: Path) -> None:
    files = {f"./{name}": data for name, data in images("fox", "wolf").items()}
    assert open_dataset(write_zip(tmp_path / "a.zip", files)).labels == ("fox", "wolf")


def test_names_in_a_zip_that_begin_with_a_slash(tmp_path: Path) -> None:
    files = {f"{'/' * (i % 3)}{one}": d for i, (one, d) in enumerate(images("cat", "dog").items())}
    dataset = open_dataset(write_zip(tmp_path / "a.zip", files))
    assert dataset.labels == ("cat", "dog")
    assert {item.file for item in dataset.items} == set(images("cat", "dog"))
    dataset.write_split_csv(tmp_path / "split.csv")
    text = (tmp_path / "split.csv").read_text()
    (tmp_path / "split.csv").write_text(text.replace("cat/", "/cat/"))  # of earlier versions
    assert open_dataset(tmp_path / "a.zip", split_csv=tmp_path / "split.csv").items == dataset.items


def test_a_zip_that_declares_the_unicode_name_of_an_entry(tmp_path: Path) -> None:
    files = images("fêtes", "plain")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name.replace("ê", "?"))
            # Info-ZIP's Unicode path: version, CRC-32 of the plain name, the name in UTF-8.
            crc = struct.pack("<I", zlib.crc32(info.filename.encode()))
            path = b"\x01" + crc + name.encode()
            info.extra = struct.pack("<HHH", 0x7777, 2, 1)
            info.extra += struct.pack("<HH", 0x7075, len(path)) + path
            archive.writestr(info, data)
    dataset = open_dataset(tmp_path / "x.zip")
    assert dataset.labels == ("fêtes", "plain")
    assert set(splits(dataset)) == set(files)


@pytest.mark.parametrize(
    ("kind", "plain", "name"),
    [
        (0x7075, "a.jpg", "b.jpg"), (0x7075, "x.jpg", "a.jpg"),  # renamed since by another program
        (0x7076, "a.jpg", "a.jpg"),
    ],
)  # fmt: skip
def test_the_unicode_name_of_an_entry_is_that_of_its_plain_one(
    tmp_path: Path, kind: int, plain: str, name: str
) -> None:
    path = b"\x01" + struct.pack("<I", zlib.crc32(plain.encode())) + b"b.jpg"
    info = zipfile.ZipInfo("a.jpg")
    info.extra = struct.pack("<HH", kind, len(path)) + path
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, image(1))
    assert [*open_source(tmp_path / "x.zip").entries] == [name]


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "shift-jis"])
def test_a_class_of_a_zip_that_cannot_be_decoded_is_refused(encoding: str, tmp_path: Path) -> None:
    name = "犬犬犬" if encoding == "shift-jis" else "fêtes"
    files = images(name, "plain")
    with pytest.raises(DataError, match="is not valid UTF-8; rename its folder"):
        open_dataset(as_old_archivers_write(tmp_path / "x.zip", files, encoding))


def test_a_link_to_a_class_folder_is_refused_with_both_names(tmp_path: Path) -> None:
    write(tmp_path, images("fox", "wolf"))
    (tmp_path / "vixen").symlink_to(tmp_path / "fox")
    with pytest.raises(DataError, match=r"(fox and vixen|vixen and fox) are one folder"):
        open_dataset(tmp_path)


def test_two_links_to_one_folder_elsewhere_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "set", images("fox", "wolf"))
    write(tmp_path / "elsewhere", images("x"))
    for name in ("red", "grey"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere" / "x")
    with pytest.raises(DataError, match="one folder"):
        open_dataset(tmp_path / "set")


def test_a_link_to_a_folder_elsewhere_is_a_class(tmp_path: Path) -> None:
    write(tmp_path / "set", images("fox", "wolf"))
    write(tmp_path / "elsewhere", images("x"))
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere" / "x")
    assert open_dataset(tmp_path / "set").labels == ("dog", "fox", "wolf")


def test_a_link_to_a_folder_that_is_gone_is_noted(tmp_path: Path) -> None:
    folder = write(tmp_path, images("fox", "wolf"))
    (folder / "bear").symlink_to(tmp_path / "gone")
    assert open_dataset(folder).notes == ("bear is a broken link",)


def test_a_link_back_is_noted_and_not_followed(tmp_path: Path) -> None:
    write(tmp_path, images("fox", "wolf"))
    (tmp_path / "fox" / "again").symlink_to(tmp_path)
    dataset = open_dataset(tmp_path)
    assert len(dataset.items) == 40
    assert dataset.notes == (f"fox/again is a link back to {tmp_path}: not followed",)


def test_names_in_a_zip_that_are_flagged_as_utf8(tmp_path: Path) -> None:
    files = images("fêtes", "дом")
    assert set(splits(open_dataset(write_zip(tmp_path / "x.zip", files)))) == set(files)
