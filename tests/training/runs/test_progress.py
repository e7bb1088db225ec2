"""Progress lines: how often, and what they say."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from catdog_edge.training.engine.history import EpochMetrics
from catdog_edge.training.runs import progress
from catdog_edge.training.runs.progress import ReadingProgress, TrainingProgress, duration


class Clock:
    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (59.4, "59 s"),
        (60, "1:00"),
        (200, "3:20"),
        (3600, "1:00:00"),
        (3725, "1:02:05"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_reading_is_told_now_and_then_and_at_its_end(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "catdog_edge")
    show = ReadingProgress()
    for done, seconds in ((1, 10), (2, 29), (3, 31), (4, 40), (10, 50)):
        clock.now = 100.0 + seconds
        show(done, 10)
    lines = [record.message.split("  ")[0] for record in caplog.records]
    assert lines == ["reading pictures: 3 of 10", "reading pictures: 10 of 10"]


def test_what_takes_no_time_is_not_told(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "catdog_edge")
    show = ReadingProgress()
    clock.now += 0.9
    show(10, 10)
    assert not caplog.records


def test_an_epoch_is_a_row_under_one_header(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "catdog_edge")
    show = TrainingProgress(2)
    metrics = EpochMetrics(1, 0.1, 0.5, 0.75, 0.4, 0.875, 3.0, 1234.0)
    show.epoch(metrics, True, 65)
    show.epoch(metrics, False, 0)
    header, first, second = (record.message for record in caplog.records)
    assert [getattr(record, "style", None) for record in caplog.records[1:]] == [
        {"fg": "green"},
        {},
    ]
    assert header.split()[0] == "epoch"
    assert first.split() == [
        "1/2",
        "0.5000",
        "75.00%",
        "0.4000",
        "87.50%",
        "1,234",
        "1:05",
        "best",
        "so",
        "far",
    ]
    assert second.split()[-2:] == ["0", "s"]


def test_nothing_is_written_where_nobody_listens(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    show = ReadingProgress()
    clock.now += 50
    show(5, 10)
    assert capsys.readouterr().err == ""
