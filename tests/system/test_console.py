from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest

from catdog_edge.system.console import (
    align,
    note,
    progress_bar,
    shows_progress,
    style,
    track,
)
from catdog_edge.system.log_to_stderr import log_to_stderr


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    rows = [("", "kind", "images"), ("cats", "-", "1,000"), ("a", "of a shop", "")]
    assert align(rows) == ["           kind  images", "cats          -   1,000", "a     of a shop"]
    by_two = ["     kind      images", "cats -          1,000", "a    of a shop"]
    assert align(rows, gap=" ", left=2) == by_two
    with pytest.raises(ValueError, match="shorter"):
        align([("a", "b"), ("c",)])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_text_can_be_printed_and_stays_json(encoding: str) -> None:
    program = (
        "from catdog_edge.system.console import tolerant_output\n"
        "tolerant_output()\n"
        "import sys; print('é \\u732b \\udcff'); print('\\u732b', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
    )
    expected = {"ascii": "\\u00e9 \\u732b", "latin-1": "é \\u732b", "utf-8": "é 猫"}[encoding]
    assert done.stdout.decode(encoding) == f"{expected} \\udcff\n"
    assert done.stderr.decode(encoding) == expected.split()[1] + "\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def info(caplog: pytest.LogCaptureFixture) -> None:
    """The level at which a command shows its progress."""
    caplog.set_level(logging.INFO, "catdog_edge.system.console")


def test_bars_are_drawn_for_a_command_and_not_for_a_library_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    written: list[str] = []
    for write in (None, written.append):
        progress_bar("images", 100, write)(50)
    assert [*track("ab", "letters")] == ["a", "b"]
    assert (terminal.getvalue(), written, shows_progress()) == ("", [], False)
    with log_to_stderr():
        assert shows_progress()
        progress_bar("images", 100)(50)
    assert terminal.getvalue().endswith("50 of 100")
    assert not shows_progress()


@pytest.mark.usefixtures("info")
def test_colour_and_bars_are_for_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal, pipe = Terminal(), io.StringIO()
    assert style("met", terminal, fg="green") == "\x1b[32mmet\x1b[0m"
    assert style("met", pipe, fg="green") == "met"
    monkeypatch.setenv("NO_COLOR", "1")
    assert style("met", terminal, fg="green") == "met"
    for stream, said in ((terminal, "images  [##########..........]  50 of 100"), (pipe, "")):
        monkeypatch.setattr(sys, "stderr", stream)
        progress_bar("images", 100)(50)
        assert said in stream.getvalue()
        progress_bar("", 100)(50)
        assert stream.getvalue().count("50 of 100") == bool(said)
    assert pipe.getvalue() == ""


@pytest.mark.usefixtures("info")
def test_the_time_left_counts_from_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that resumes begins in the middle."""
    terminal, now = Terminal(), [100.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    show = progress_bar("images", 2000)
    for done, seconds, said in ((1000, 0, ""), (1010, 10, "16 min"), (1010, 100, "3 h 2 min")):
        now[0] += seconds
        show(done)
        assert terminal.getvalue().endswith(f" of 2,000, {said} left" if said else " of 2,000")


@pytest.mark.usefixtures("info")
def test_in_a_file_a_line_is_logged_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    show = progress_bar("images", 100)
    for done, seconds in ((0, 0), (10, 29), (30, 1), (40, 29), (100, 1), (100, 10)):
        now[0] += seconds
        show(done)
    told = [record.message for record in caplog.records]
    assert told == ["images: 30 of 100, 70 s left", "images: 100 of 100"]
    assert pipe.getvalue() == ""


@pytest.mark.usefixtures("info")
def test_a_line_takes_the_place_of_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert [*track("ab", "letters")] == ["a", "b"]
    assert terminal.getvalue().startswith("\r\x1b[2Kletters  [")
    assert terminal.getvalue().endswith("\x1b[2K")
    note("done")
    assert terminal.getvalue().endswith("\r\x1b[2Kdone\n")
