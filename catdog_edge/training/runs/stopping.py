"""Ctrl-C and SIGTERM: a request to the loop, one line anywhere else. Knows nothing of training."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from catdog_edge.errors import CatdogError
from catdog_edge.training.engine.distributed import among_others

log = logging.getLogger(__name__)


@contextmanager
def one_line(words: Callable[[], str]) -> Iterator[None]:
    """End a block that Ctrl-C or SIGTERM hits with a line for people, after its clean-up.

    Args:
        words: Asked then for the line.

    Raises:
        CatdogError: The block was interrupted.
    """
    hit = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal hit
        del number, frame
        if not hit:  # the clean-up is short, and torchrun sends SIGTERM after Ctrl-C
            hit = True
            raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and `&` leave it
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        hit = True
        raise CatdogError(words()) from None
    finally:
        # Among others this process ends now; another signal would only hide its line.
        if not (hit and among_others()):
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one acts at once.

    Among the processes of torchrun a second one changes nothing: torchrun sends SIGTERM to
    those that Ctrl-C has reached already, and kills those that take longer than it waits.
    """
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        if asked.is_set():
            if not among_others():
                raise KeyboardInterrupt
            return
        asked.set()
        again = "" if among_others() else " (again: at once)"
        # The signal may have come in the middle of another line.
        with contextlib.suppress(RuntimeError):
            log.info(f"\nstopping after this step{again}")

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
