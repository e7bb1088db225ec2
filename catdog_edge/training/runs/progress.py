"""What a person sees while training: one line that moves, and a row an epoch that stays.

Knows nothing of training but the reports it is given. Writes to stderr.
"""

from __future__ import annotations

import sys
import time

import click

from catdog_edge.training.engine.trainer import EpochRow, StepReport

REFRESH = 0.2
"""Seconds between two redraws of the moving line on a terminal."""

QUIET = 30.0
"""Seconds between two lines where stderr is a file or a pipe."""


class Progress:
    """Shows steps and epochs.

    Args:
        epochs: Of the whole run.
        shown: Whether to show anything at all.
    """

    def __init__(self, epochs: int, shown: bool = True) -> None:
        self._shown = shown
        self._epochs = epochs
        self._terminal = sys.stderr.isatty()
        self._last = time.monotonic()
        self._header_due = True

    def step(self, report: StepReport) -> None:
        """Show a step, at most as often as a person can read it."""
        now = time.monotonic()
        if not self._shown or now - self._last < (REFRESH if self._terminal else QUIET):
            return
        self._last = now
        line = (
            f"epoch {report.epoch}/{self._epochs}  step {report.step}/{report.steps}  "
            f"loss {report.loss:.4f}  accuracy {report.accuracy:.1%}  "
            f"{report.pictures_per_second:,.0f} pictures/s  {duration(report.seconds_left)} left"
        )
        if self._terminal:
            click.echo(f"\r\x1b[2K{line}", err=True, nl=False)
        else:
            click.echo(line, err=True)

    def epoch(self, row: EpochRow, best: bool, seconds_left: float) -> None:
        """Show a finished epoch."""
        if not self._shown:
            return
        if self._terminal:
            click.echo("\r\x1b[2K", err=True, nl=False)
        if self._header_due:
            self._header_due = False
            click.echo(
                f"{'epoch':>7}  {'loss':>7}  {'accuracy':>8}  {'val loss':>8}  {'val acc.':>8}  "
                f"{'pictures/s':>10}  {'left':>7}",
                err=True,
            )
        click.echo(
            f"{row.epoch:>3}/{self._epochs:<3}  {row.train_loss:7.4f}  {row.train_accuracy:8.2%}  "
            f"{row.val_loss:8.4f}  {row.val_accuracy:8.2%}  {row.pictures_per_second:10,.0f}  "
            f"{duration(seconds_left):>7}{'  best so far' if best else ''}",
            err=True,
        )


class Reading:
    """Shows how far the reading of a data set is."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._started = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Show `done` of `total` pictures."""
        now = time.monotonic()
        finished = done >= total
        if now - self._last < (REFRESH if self._terminal else QUIET) and not finished:
            return
        if finished and now - self._started < 1:
            return  # too short for anybody to wonder
        self._last = now
        speed = done / max(now - self._started, 1e-9)
        line = f"reading pictures: {done:,} of {total:,}  ({speed:,.0f} a second)"
        if self._terminal:
            click.echo(f"\r\x1b[2K{line}", err=True, nl=finished)
        else:
            click.echo(line, err=True)


def duration(seconds: float) -> str:
    """`45 s`, `3:20`, `1:02:05`."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
