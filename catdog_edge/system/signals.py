"""Ctrl-C and SIGTERM: the first one ends the work in order, a second one at once.

Knows signals, nothing of the work.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def interrupts(stop: threading.Event) -> Iterator[Callable[[], None]]:
    """Have Ctrl-C and SIGTERM end the stream in order.

    Until the function that it gives is called there is nothing to put in order and the
    process just ends; afterwards the first signal sets `stop`, a second one ends it at once.
    """
    began = False

    def handle(number: int, _frame: FrameType | None) -> None:
        if not began or stop.is_set():
            os._exit(128 + number if began else 0)
        stop.set()

    def begin() -> None:
        nonlocal began
        began = True

    if threading.current_thread() is not threading.main_thread():
        yield begin
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield begin
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
