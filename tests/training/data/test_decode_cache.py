"""The cache of digests and pixels: decoded once, shared by processes, never in the way."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.images.image_sets import image, images, named, splits, write, write_zip

from catdog_edge.errors import CatdogError, DataError
from catdog_edge.images.preprocess import preprocess
from catdog_edge.spec import squash
from catdog_edge.training.data import decode_cache, folder_or_zip
from catdog_edge.training.data.dataset import SPLITS
from catdog_edge.training.data.folder_or_zip import open_source
from catdog_edge.training.data.open_dataset import open_dataset, pixels

STEPS = squash(16, 16)
pytestmark = pytest.mark.usefixtures("cache_folder")


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
    reports: list[int] = []
    monkeypatch.setattr(decode_cache, "progress_bar", lambda *_: reports.append)
    for _ in range(2):
        dataset = open_dataset(path, steps=STEPS)
        for split in ("train", "val", "test"):
            pixels(dataset, split, STEPS)
    assert sorted(decoded) == sorted(named())
    assert reports == [0, 32, 64, 80, 0], "the second time nothing is decoded"
    # Another size decodes once more, and only the split that is asked for.
    pixels(dataset, "val", squash(8, 8))
    assert len(decoded) == 80 + len(dataset.items_of("val"))


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", named())
    before = open_dataset(folder, steps=STEPS)
    for split in ("train", "val", "test"):
        pixels(before, split, STEPS)
    write(folder, {"cat.0.jpg": image(4321)})
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
    write(folder, {item.file: image(4321)})
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


def test_nothing_is_left_behind_when_reading_fails(
    tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = named()
    path = write_zip(tmp_path / "x.zip", files)

    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decode_cache, "progress_bar", lambda *_: stop)
        with pytest.raises(KeyboardInterrupt):
            open_dataset(path, steps=STEPS)
    assert [f.name for f in cache_folder.rglob("*") if f.is_file() and f.stat().st_size] == []
    assert len(open_dataset(path, steps=STEPS).items) == len(files)


def test_pixels_that_no_run_has_opened_for_long_are_removed(
    tmp_path: Path, cache_folder: Path
) -> None:
    path = write_zip(tmp_path / "x.zip", named())
    pixels(open_dataset(path), "val", STEPS)
    (old,) = cache_folder.rglob("*.u8")
    now, day = time.time(), 86_400
    assert old.stat().st_mode & 0o777 == 0o644
    os.utime(old, (1, now - 14 * day + 60))
    pixels(open_dataset(path), "train", STEPS)
    assert old.exists()
    os.utime(old, (1, now - 15 * day))
    pixels(open_dataset(path), "val", STEPS)  # opened: needed again
    pixels(open_dataset(path), "test", STEPS)
    assert old.exists()
    os.utime(old, (1, now - 14 * day - 60))
    pixels(open_dataset(path), "test", squash(8, 8))
    assert not old.exists()
    assert len(list(cache_folder.rglob("*.u8"))) == 3


def test_no_room_is_known_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "x.zip", named())
    decoded = count_decodes(monkeypatch)
    usage, free = shutil.disk_usage(tmp_path), [80 * 16 * 16 * 3 - 1]
    monkeypatch.setattr(decode_cache.shutil, "disk_usage", lambda _: usage._replace(free=free[0]))
    with pytest.raises(DataError, match=r"needs .* GB.*CATDOG_CACHE"):
        open_dataset(path, steps=STEPS)
    assert decoded == []
    free[0] += 1
    assert len(open_dataset(path, steps=STEPS).items) == 80
    free[0] = 2_500_000_000
    with pytest.raises(DataError, match=r"needs 3\.0 GB, the disk has 2\.5 GB; free some disk"):
        decode_cache.Cache(open_source(path)).make_room(1_000_000, squash(10, 100))


def test_the_names_in_the_cache_are_short_and_tell_the_source(
    tmp_path: Path, cache_folder: Path
) -> None:
    path = write_zip(tmp_path / f"my set {'x' * 60}.zip", named())
    pixels(open_dataset(path), "val", STEPS)
    (file,) = cache_folder.rglob("*.u8")
    assert re.fullmatch(r"my_set_x{33}-[0-9a-f]{12}", file.parent.name)
    assert re.fullmatch(r"pixels-[0-9a-f]{24}\.u8", file.name)


@pytest.mark.parametrize(("new", "kept"), [(40, False), (41, True)])
def test_pixels_are_kept_while_reading_if_most_images_are_new(
    tmp_path: Path, cache_folder: Path, new: int, kept: bool
) -> None:
    files = named()
    first = dict([*files.items()][::2][: 80 - new])
    folder = write(tmp_path / "set", first)
    open_dataset(folder, required=())
    later = {name: data for name, data in files.items() if name not in first}
    open_dataset(write(folder, later), steps=STEPS)
    assert bool([*cache_folder.rglob("*.u8")]) is kept


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
    program = f"""
import os
from catdog_edge.training.data import decode_cache
decode_cache.progress_bar = lambda *_: lambda done: done and os.kill(os.getpid(), 9)
{OPEN}"""
    run = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert run.returncode == -9
    assert list(cache_folder.rglob(".pixels-*.tmp"))
    assert len(open_dataset(path, steps=STEPS).items) == 200
    assert list(cache_folder.rglob(".pixels-*.tmp")) == []


def test_pixels_of_a_moved_set_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "set", images("a", "b", "c", count=4))
    read, read_bytes = [], folder_or_zip.read_bytes
    monkeypatch.setattr(
        folder_or_zip, "read_bytes", lambda path: read.append(path) or read_bytes(path)
    )
    dataset = open_dataset(folder, steps=STEPS)
    for split in SPLITS:
        pixels(dataset, split, STEPS)
    assert len(read) == 12


def torn(seed: int) -> bytes:
    """A JPEG whose middle third is overwritten: the decoder returns it and complains."""
    frame = np.random.default_rng(seed).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    data = bytearray(cv2.imencode(".jpg", cv2.GaussianBlur(frame, (0, 0), 3))[1].tobytes())
    third = len(data) // 3
    data[third : 2 * third] = bytes([0xFF, 0xD9 - 9] * third)[:third]
    return bytes(data)


def test_damaged_images_are_skipped_unless_they_are_asked_for(
    tmp_path: Path,
) -> None:
    files = images("a", "b", count=60) | {"a/torn.jpg": torn(1), "b/torn.jpg": torn(2)}
    folder = write(tmp_path / "set", files)
    for _ in range(2):  # decoded, then from the cache
        dataset = open_dataset(folder, steps=STEPS)
        assert {entry.file for entry in dataset.skipped} == {"a/torn.jpg", "b/torn.jpg"}
        assert all("damaged: corrupt JPEG data" in entry.reason for entry in dataset.skipped)
    dataset.write_skipped_csv(tmp_path / "skipped.csv")
    assert "a/torn.jpg,damaged" in (tmp_path / "skipped.csv").read_text()
    for _ in range(2):
        kept = open_dataset(folder, steps=STEPS, keep_damaged=True)
        assert kept.skipped == ()
        assert {"a/torn.jpg", "b/torn.jpg"} < set(splits(kept))
    for split in SPLITS:
        frames, _, items = pixels(kept, split, STEPS)
        for frame, item in zip(frames, items, strict=True):
            assert np.array_equal(frame, preprocess(kept.decode(item), STEPS))
    assert len(open_dataset(folder).skipped) == 2
    # A run that took them is opened with them.
    kept.write_split_csv(tmp_path / "split.csv")
    assert open_dataset(folder, split_csv=tmp_path / "split.csv").items == kept.items
