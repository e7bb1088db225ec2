"""What modules say through `logging` reaches the stderr of a command."""

from __future__ import annotations

import logging

import pytest

from catdog_edge.system.log_to_stderr import log_to_stderr


def test_progress_as_it_is_and_warnings_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with log_to_stderr():
        logging.getLogger("catdog_edge.training.train").info("train: %d images\n  of two", 5)
        logging.getLogger("exporters.export_steps").warning("slow: \x1b[31m")
        logging.getLogger("catdog_edge.runtime.autotune").info("not shown")
        logging.getLogger("catdog_edge.runtime.autotune").warning("no CUDA")
    logging.getLogger("exporters.export_steps").info("after the command")
    assert capsys.readouterr().err.splitlines() == [
        "train: 5 images",
        "  of two",
        "catdog-edge: warning: slow: \\x1b[31m",
        "catdog-edge: warning: no CUDA",
    ]


def test_of_several_ranks_the_first_alone_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with log_to_stderr():
        logging.getLogger("catdog_edge.training.train").info("train: 5 images")
        logging.getLogger("benchmarks.bench").warning("slow")
    assert capsys.readouterr().err == ""


def test_levels_and_handlers_are_restored() -> None:
    logger = logging.getLogger("catdog_edge")
    before = logger.level, list(logger.handlers)
    with log_to_stderr():
        assert logger.handlers != before[1]
    assert (logger.level, logger.handlers) == before
