"""Progress lines: how often, and what they say."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("torch", reason="needs PyTorch (the [train] extra)")
pytestmark = pytest.mark.train

from catdog_edge.training.engine.history import EpochMetrics, StepMetrics
from catdog_edge.training.runs import progress
from catdog_edge.training.runs.progress import TrainingProgress, duration


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


def test_a_step_is_told_now_and_then(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    show = TrainingProgress(2)
    metrics = StepMetrics(1, 3, 20, 0.25, 0.875, 1234.0, 65)
    clock.now += 31
    show.step(metrics)
    assert not caplog.records, "nobody listens"
    caplog.set_level(logging.INFO, "catdog_edge")
    for seconds in (29, 1, 10):
        clock.now += seconds
        show.step(metrics)
    assert [record.message for record in caplog.records] == [
        "epoch 1/2  step 3/20  loss 0.2500  accuracy 87.5%  1,234 images/s  1:05 left"
    ]


def test_on_a_terminal_a_step_is_a_line_that_is_redrawn(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "is_terminal", lambda stream: True)
    show = TrainingProgress(2)
    metrics = StepMetrics(1, 3, 20, 0.25, 0.875, 1234.0, 65)
    clock.now += 1
    show.step(metrics)
    assert capsys.readouterr().err == "", "nobody listens"
    caplog.set_level(logging.INFO, "catdog_edge")
    for seconds in (0.05, 0.06, 0.05):
        clock.now += seconds
        show.step(metrics)
    assert capsys.readouterr().err == (  # click takes the code that clears the line out of it
        "\repoch 1/2  step 3/20  loss 0.2500  accuracy 87.5%  1,234 images/s  1:05 left"
    )
    show.epoch(EpochMetrics(1, 0.1, 0.5, 0.75, 0.4, 0.875, 3.0, 1234.0), True, 65)
    assert capsys.readouterr().err == "\r", "the row of the epoch takes its place"


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
