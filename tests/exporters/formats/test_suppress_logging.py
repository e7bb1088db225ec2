from __future__ import annotations

import logging
import warnings

import pytest

from exporters.formats.suppress_logging import suppress_logging


def test_libraries_are_quiet_and_leave_no_handler(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    with suppress_logging():
        logging.error("advice")
        warnings.warn("advice", stacklevel=1)
    assert logging.root.handlers == []
    assert logging.root.manager.disable == 0
    assert "advice" not in caplog.text
