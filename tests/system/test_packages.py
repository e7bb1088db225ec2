"""How to install an extra, told by where the package came from."""

from __future__ import annotations

import importlib.metadata
import json

import pytest

from catdog_edge.system.packages import install_command


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'catdog-edge[cpu]'"),
        (
            {"url": "file:///home/ann/edge", "dir_info": {"editable": True}},
            "pip install './edge[cpu]'",
        ),
        (
            {"url": "file:///mnt/a%20b/catdog_edge-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install 'catdog_edge-0.1.0-py3-none-any.whl[cpu]'",
        ),
    ],
)
def test_the_command_names_where_it_was_installed_from(
    monkeypatch: pytest.MonkeyPatch, origin: dict[str, object] | None, command: str
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if origin is None else json.dumps(origin)

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed())
    assert install_command("cpu") == command


def test_without_metadata_it_is_the_published_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert install_command("headless") == "pip install 'catdog-edge[headless]'"
