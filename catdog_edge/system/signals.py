"""Handlers of SIGINT (Ctrl-C) and SIGTERM; no other module installs any."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from catdog_edge.errors import CatdogError

Handler = Callable[[int, FrameType | None], Any]

BOTH = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def handler(
    handle: Handler, numbers: tuple[signal.Signals, ...] = BOTH, *, ignored: bool = False
) -> Iterator[Callable[[], None]]:
    """Install a signal handler for the duration of a block; only the main thread can.

    With `ignored` also for signals that the parent ignores, as `nohup` and `&` do. Yields a
    function that leaves the handler in place when the block ends.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if ignored or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield before.clear
    finally:
        for changed, old in before.items():
            signal.signal(changed, old)


@contextlib.contextmanager
def interrupts(stop: threading.Event) -> Iterator[Callable[[], None]]:
    """Set an event at the first signal and exit at the second.

    Yields a function to call once there is something to shut down; before that, the first signal
    exits with status 0.
    """
    began = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        if not began.is_set() or stop.is_set():
            os._exit(128 + number if began.is_set() else 0)
        stop.set()

    with handler(handle, ignored=True):
        yield began.set


@contextlib.contextmanager
def stop_requests(notify: Callable[[], object], *, again: bool) -> Iterator[threading.Event]:
    """Set an event and call `notify` at the first signal; with `again`, a second one interrupts."""
    asked = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if not asked.is_set():
            asked.set()
            with contextlib.suppress(RuntimeError):  # the signal arrived during another print
                notify()
        elif again:
            raise KeyboardInterrupt

    with handler(handle):
        yield asked


@contextlib.contextmanager
def interruption_as_error(message: Callable[[], str], *, last: bool = False) -> Iterator[None]:
    """Turn an interruption of a block into a `CatdogError`, after the block's clean-up.

    With `last` the process exits afterwards: further signals stay ignored.
    """
    hit = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal hit
        if not hit:  # not twice: the clean-up is running
            hit = True
            raise KeyboardInterrupt

    with handler(handle) as leave_installed:
        try:
            yield
        except KeyboardInterrupt:
            hit = True
            raise CatdogError(message()) from None
        finally:
            if hit and last:
                leave_installed()


@contextlib.contextmanager
def termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit` within a block, so that the block is cleaned up."""

    def handle(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    with handler(handle, (signal.SIGTERM,), ignored=True):
        yield


def ignore_interrupts() -> None:
    """Ignore SIGINT permanently in this process: its parent handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
