"""Progress on stderr, where `INFO` is logged: a line that is redrawn, and a row per epoch."""

from __future__ import annotations

import logging
import sys
import time

import click

from catdog_edge.system.console import INTERVAL, REDRAW, is_terminal
from catdog_edge.training.engine.history import EpochMetrics, StepMetrics

log = logging.getLogger(__name__)


class TrainingProgress:
    """Shows the steps and epochs of a run of `epochs`, where `INFO` is logged.

    A step is a line that is redrawn on a terminal and printed now and then elsewhere; an epoch is
    a row of a table.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs, self._header_due = epochs, True
        self._terminal, self._last = is_terminal(sys.stderr), time.monotonic()

    def step(self, metrics: StepMetrics) -> None:
        """Show a step, at a readable rate."""
        if time.monotonic() - self._last >= (REDRAW if self._terminal else INTERVAL):
            self._show(
                f"epoch {metrics.epoch}/{self._epochs}  step {metrics.step}/{metrics.steps}  "
                f"loss {metrics.loss:.4f}  accuracy {metrics.accuracy:.1%}  "
                f"{metrics.pictures_per_second:,.0f} images/s  "
                f"{duration(metrics.seconds_left)} left"
            )

    def epoch(self, metrics: EpochMetrics, is_best: bool, seconds_left: float) -> None:
        """Show a finished epoch."""
        self._show("")
        if self._header_due:
            self._header_due = False
            log.info(
                f"{'epoch':>7}  {'loss':>7}  {'accuracy':>8}  {'val loss':>8}  {'val acc.':>8}  "
                f"{'images/s':>10}  {'left':>7}"
            )
        log.info(
            f"{metrics.epoch:>3}/{self._epochs:<3}  {metrics.train_loss:7.4f}  "
            f"{metrics.train_accuracy:8.2%}  {metrics.val_loss:8.4f}  {metrics.val_accuracy:8.2%}  "
            f"{metrics.pictures_per_second:10,.0f}  {duration(seconds_left):>7}"
            f"{'  best so far' if is_best else ''}",
            extra={"style": {"fg": "green"} if is_best else {}},
        )

    def _show(self, line: str) -> None:
        self._last = time.monotonic()
        if not self._terminal and line:
            log.info(line)
        elif self._terminal and log.isEnabledFor(logging.INFO):
            click.echo(f"\r\x1b[2K{line}", err=True, nl=False)


def duration(seconds: float) -> str:
    """Format as `45 s`, `3:20` or `1:02:05`."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
