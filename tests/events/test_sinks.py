"""The file of events and the folder of snapshots: whole lines, bounded size, full disks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

cv2 = pytest.importorskip("cv2")

from support.cameras import clips
from support.small_disk import small_disk

from catdog_edge.events.events import Event
from catdog_edge.events.sinks import JsonLines, Snapshots


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "64k") as folder:
        yield folder


def an_event(number: int, picture: object = None) -> Event:
    return Event("enter", "cat", 0.97, "door", 1e9 + number, 1e9 + number, number, picture=picture)


def test_the_file_of_events_is_appended_to_and_rotated(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "events.jsonl"
    line = an_event(0).to_json()
    for run_number in range(2):
        lines = JsonLines(path, rotate=10 * (len(line) + 2), keep=2)
        for number in range(20):
            assert lines.write(an_event(20 * run_number + number).to_json())
            newest = json.loads(path.read_text().splitlines()[-1])
            assert newest["visit"] == 20 * run_number + number, "each line is there at once"
        lines.close()
    names = ["events.jsonl.2", "events.jsonl.1", "events.jsonl"]
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(names)
    written = "".join((path.parent / name).read_text() for name in names)
    kept = [json.loads(one)["visit"] for one in written.splitlines()]
    assert kept == list(range(40))[-len(kept) :], "in order, without a gap, up to the last"
    assert len(kept) >= 20
    assert all((path.parent / name).stat().st_size <= 10 * (len(line) + 2) for name in names)


def test_events_are_kept_where_the_file_cannot_be_rotated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, obstacle = tmp_path / "events.jsonl", tmp_path / "events.jsonl.2"
    obstacle.mkdir()
    (tmp_path / "events.jsonl.1").write_text("older\n")
    lines = JsonLines(path, rotate=200, keep=2)
    assert all(lines.write(an_event(number).to_json()) for number in range(10))
    assert caplog.messages == [f"cannot start a new {path}: Is a directory; the old one grows"]
    visits = [json.loads(line)["visit"] for line in path.read_text().splitlines()]
    assert visits == list(range(10))
    obstacle.rmdir()
    assert lines.write(an_event(10).to_json())
    lines.close()
    assert obstacle.read_text() == "older\n"
    assert json.loads(path.read_text())["visit"] == 10


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_not_rotated(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    lines = JsonLines(path, rotate=200, keep=2)
    assert all(lines.write(an_event(number).to_json()) for number in range(10))
    lines.close()
    text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert [json.loads(line)["visit"] for line in text.splitlines()] == list(range(10))
    assert list(tmp_path.iterdir()) == [path]


def test_a_line_that_was_cut_off_by_a_kill_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"visit": 1}\n{"visit": 2, "lab')
    lines = JsonLines(path, 0, 5)
    lines.write('{"visit": 3}')
    lines.close()
    assert [json.loads(line)["visit"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_last_line_without_a_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"visit": 1}\n{"visit": 2}')
    lines = JsonLines(path, 0, 5)
    for visit in (3, 4):
        assert lines.write(f'{{"visit": {visit}}}')
    lines.close()
    assert path.read_text() == "".join(f'{{"visit": {visit}}}\n' for visit in (1, 2, 3, 4))


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while stream.write(b"x" * 512):
                pass
        except OSError:
            pass
    return filler


def test_a_full_disk_is_logged_once_counted_and_survived(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = disk / "events.jsonl"
    lines = JsonLines(path, 0, 5)
    assert lines.write(an_event(0).to_json())
    filler = fill(disk)
    written = 1
    while lines.write(an_event(written).to_json()):
        written += 1
    for number in range(50):
        assert not lines.write(an_event(number).to_json())
    assert len(caplog.messages) == 1
    assert "No space left" in caplog.messages[0]
    filler.unlink()
    assert lines.write(an_event(99).to_json())
    lines.close()
    assert caplog.messages[1] == "writing again; 51 events were lost meanwhile"
    assert lines.failures.total == 51
    visits = [json.loads(line)["visit"] for line in path.read_text().splitlines()]
    assert visits == [*range(written), 99], "every line is whole"


def test_snapshots_on_a_full_disk(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Snapshots(disk / "shots", 1_000_000)
    filler = fill(disk)
    assert folder.write(an_event(1, clips.drawing("cat", 1))) is None
    assert folder.write(an_event(2, clips.drawing("cat", 2))) is None
    assert len(caplog.messages) == 1
    assert list((disk / "shots").iterdir()) == [], "nothing half-written"
    filler.unlink()
    path = folder.write(an_event(3, clips.drawing("cat", 3)))
    assert cv2.imread(path) is not None


def test_snapshots_stay_within_their_size(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jpg"
    mine.write_bytes(b"x" * 100_000)
    size = len(cv2.imencode(".jpg", clips.drawing("cat", 0), [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    for part in range(2):  # the second one finds what the first has left
        folder = Snapshots(tmp_path, 5 * size + size // 2)
        for number in range(6):
            event = an_event(10 * part + number, clips.drawing("cat", 0))
            assert folder.write(replace(event, source="Küche"))
            ours = [p for p in tmp_path.iterdir() if p != mine]
            assert sum(p.stat().st_size for p in ours) <= 5.5 * size
    assert mine.stat().st_size == 100_000, "what is not ours is neither counted nor deleted"
    visits = sorted(int(p.stem.rpartition("-")[2]) for p in ours)
    assert visits == [11, 12, 13, 14, 15], "the oldest went"


def test_snapshots_may_fill_their_size(tmp_path: Path) -> None:
    picture = clips.drawing("cat", 0)
    size = len(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    for keep, kept in ((2 * size, 2), (2 * size - 1, 1)):
        folder = Snapshots(tmp_path / str(kept), keep)
        assert all(folder.write(an_event(number, picture)) for number in range(2))
        assert len(list((tmp_path / str(kept)).iterdir())) == kept


def test_a_snapshot_larger_than_their_size_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Snapshots(tmp_path, 1000)
    for number in range(3):
        assert folder.write(an_event(number, clips.drawing("cat", 0))) is None
    assert len(caplog.messages) == 1
    assert "more than --keep allows" in caplog.messages[0]
    assert folder.failures.total == 3
    assert list(tmp_path.iterdir()) == []


def test_snapshots_in_a_folder_of_any_name_are_in_the_events(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    event = an_event(1, clips.drawing("cat", 0))
    written = Snapshots(folder, 10**6).write(event)
    (snapshot,) = folder.iterdir()
    lines = JsonLines(tmp_path / "events.jsonl", 0, 5)
    assert lines.write(replace(event, snapshot=written).to_json())
    lines.close()
    document = json.loads((tmp_path / "events.jsonl").read_text())
    assert document["snapshot"] == f"{tmp_path}/caf\ufffd/{snapshot.name}"
