from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from catdog_edge.errors import CatdogError
from catdog_edge.system.signals import (
    handler,
    interruption_as_error,
    stop_requests,
    termination_as_exit,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _as_before():
    """Python's own handlers at the beginning, and the same ones at the end."""
    before = {number: signal.getsignal(number) for number in BOTH}
    mine = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    for number, old in mine.items():
        signal.signal(number, old)
    yield
    assert {number: signal.getsignal(number) for number in BOTH} == mine
    for number, old in before.items():
        signal.signal(number, old)


@pytest.mark.parametrize("number", BOTH)
def test_a_handler_is_there_for_a_block(number: signal.Signals) -> None:
    seen = []
    with handler(lambda number, frame: seen.append(number)):
        os.kill(os.getpid(), number)
    assert seen == [number]


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seen = []
    with handler(lambda number, frame: seen.append(number)):
        os.kill(os.getpid(), signal.SIGINT)
    assert seen == []
    with handler(lambda number, frame: seen.append(number), ignored=True):
        os.kill(os.getpid(), signal.SIGINT)
    assert seen == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_another_thread_installs_nothing() -> None:
    found = []

    def work() -> None:
        with handler(lambda number, frame: None):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


def test_the_first_signal_is_a_request_and_the_second_an_interruption() -> None:
    notes = []
    with stop_requests(lambda: notes.append("asked"), again=True) as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.is_set()
        assert notes == ["asked"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert notes == ["asked"]


def test_among_processes_of_torchrun_a_second_request_changes_nothing() -> None:
    notes = []
    with stop_requests(lambda: notes.append("asked"), again=False) as asked:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert asked.is_set()
    assert notes == ["asked"]


def test_a_note_that_cannot_be_printed_is_no_error() -> None:
    def fail() -> None:
        raise RuntimeError("reentrant call")

    with stop_requests(fail, again=True) as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.is_set()


@pytest.mark.parametrize("number", BOTH)
def test_an_interruption_is_one_error_after_the_clean_up(number: signal.Signals) -> None:
    done = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # does not break the clean-up
            done.append("cleaned up")

    message = interruption_as_error(lambda: f"interrupted after {len(done)}")
    with pytest.raises(CatdogError, match="interrupted after 1"), message:
        work()


def test_where_the_process_ends_further_signals_stay_ignored() -> None:
    message = interruption_as_error(lambda: "interrupted", last=True)
    with pytest.raises(CatdogError, match="interrupted"), message:
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    for number, old in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, 0)):
        signal.signal(number, old)
    with interruption_as_error(lambda: "never", last=True):
        pass


def test_termination_is_an_exit() -> None:
    with pytest.raises(SystemExit) as caught, termination_as_exit():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("kill(SIGINT)", 0),  # nothing has begun
        ("begin(); kill(SIGTERM); print(stop.is_set(), flush=True)", 3),
        ("begin(); kill(SIGTERM); kill(SIGINT)", 130),
        ("begin(); kill(SIGINT); kill(SIGTERM)", 143),
    ],
)
def test_a_stream_ends_in_order_at_the_first_signal_and_at_once_at_the_second(
    body: str, code: int
) -> None:
    program = textwrap.dedent(f"""
        import os, signal, sys, threading
        from signal import SIGINT, SIGTERM
        from catdog_edge.system.signals import interrupts
        def kill(number):
            os.kill(os.getpid(), number)
        stop = threading.Event()
        with interrupts(stop) as begin:
            {body}
        sys.exit(3)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout == ("True\n" if code == 3 else "")
