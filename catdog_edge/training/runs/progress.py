"""Progress on stderr, where `INFO` is logged: a line that is redrawn, and a row per epoch."""

from __future__ import annotations

import logging
import sys
import time

import click

from catdog_edge.system.console import is_terminal
from catdog_edge.training.engine.history import EpochMetrics, StepMetrics

log = logging.getLogger(__name__)

REDRAW = 0.2  # seconds between two redraws on a terminal
INTERVAL = 30.0  # seconds between two lines where stderr is a file or a pipe


class _Line:
    """A line that is redrawn on a terminal, and printed periodically elsewhere."""

    def __init__(self) -> None:
        self.started = self._last = time.monotonic()
        self._terminal = is_terminal(sys.stderr)

    def due(self) -> bool:
        return time.monotonic() - self._last >= (REDRAW if self._terminal else INTERVAL)

    def show(self, line: str, end: bool = False) -> None:
        if not log.isEnabledFor(logging.INFO):
            return
        self._last = time.monotonic()
        if self._terminal:
            click.echo(f"\r\x1b[2K{line}", err=True, nl=end)
        elif line:
            log.info(line)


class TrainingProgress:
    """Shows the steps and epochs of a run of `epochs`."""

    def __init__(self, epochs: int) -> None:
        self._epochs, self._line, self._header_due = epochs, _Line(), True

    def step(self, metrics: StepMetrics) -> None:
        """Show a step, at a readable rate."""
        if self._line.due():
            self._line.show(
                f"epoch {metrics.epoch}/{self._epochs}  step {metrics.step}/{metrics.steps}  "
                f"loss {metrics.loss:.4f}  accuracy {metrics.accuracy:.1%}  "
                f"{metrics.pictures_per_second:,.0f} pictures/s  "
                f"{duration(metrics.seconds_left)} left"
            )

    def epoch(self, metrics: EpochMetrics, is_best: bool, seconds_left: float) -> None:
        """Show a finished epoch."""
        self._line.show("")
        if self._header_due:
            self._header_due = False
            log.info(
                f"{'epoch':>7}  {'loss':>7}  {'accuracy':>8}  {'val loss':>8}  {'val acc.':>8}  "
                f"{'pictures/s':>10}  {'left':>7}"
            )
        log.info(
            f"{metrics.epoch:>3}/{self._epochs:<3}  {metrics.train_loss:7.4f}  "
            f"{metrics.train_accuracy:8.2%}  {metrics.val_loss:8.4f}  {metrics.val_accuracy:8.2%}  "
            f"{metrics.pictures_per_second:10,.0f}  {duration(seconds_left):>7}"
            f"{'  best so far' if is_best else ''}",
            extra={"style": {"fg": "green"} if is_best else {}},
        )


class ReadingProgress:
    """Shows how many images of a data set are decoded."""

    def __init__(self) -> None:
        self._line = _Line()

    def __call__(self, done: int, total: int) -> None:
        """Show `done` of `total` images."""
        elapsed = time.monotonic() - self._line.started
        finished = done >= total and elapsed >= 1  # nothing of what takes no time
        if finished or (done < total and self._line.due()):
            speed = done / max(elapsed, 1e-9)
            self._line.show(
                f"reading pictures: {done:,} of {total:,}  ({speed:,.0f} a second)", end=finished
            )


def duration(seconds: float) -> str:
    """Format as `45 s`, `3:20` or `1:02:05`."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
