"""How to install an extra, told by where the package came from."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import pytest

from catdog_edge.system import packages
from catdog_edge.system.packages import install_command

pytestmark = pytest.mark.skipif(os.name == "nt", reason="paths and quotes of a POSIX shell")


@pytest.fixture(autouse=True)
def an_activated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package in `site-packages`, and the first `pip` on the PATH beside the interpreter."""
    monkeypatch.setattr(packages, "__file__", str(tmp_path / "site-packages" / "a" / "b" / "c.py"))
    monkeypatch.setattr("shutil.which", lambda name: str(Path(sys.executable).with_name(name)))


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'catdog-edge[cpu]'"),
        (
            {"url": "file:///home/ann/edge", "dir_info": {}},
            "pip install '/home/ann/edge[cpu]'",
        ),
        (
            {"url": "file:///mnt/a%20b/catdog_edge-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install '/mnt/a b/catdog_edge-0.1.0-py3-none-any.whl[cpu]'",
        ),
        (
            {"url": "https://host/catdog_edge-0.1.0-py3-none-any.whl", "archive_info": {}},
            "pip install 'catdog-edge[cpu] @ https://host/catdog_edge-0.1.0-py3-none-any.whl'",
        ),
        (
            {"url": "https://host/edge.git", "vcs_info": {"vcs": "git", "commit_id": "1f"}},
            "pip install 'catdog-edge[cpu] @ git+https://host/edge.git@1f'",
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


def test_code_of_a_checkout_stays_an_editable_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout = tmp_path.resolve() / "Ann's edge"
    checkout.mkdir()
    (checkout / "pyproject.toml").touch()
    monkeypatch.setattr(
        packages, "__file__", str(checkout / "catdog_edge" / "system" / "packages.py")
    )
    told = str(checkout).replace("'", "'\"'\"'")
    assert install_command("train") == f"pip install -e '{told}[train]'"


def test_where_pip_is_that_of_another_environment_the_interpreter_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/elsewhere/bin/pip")
    assert install_command("cpu").startswith(f"{sys.executable} -m pip install ")


def test_without_metadata_it_is_the_published_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert install_command("headless") == "pip install 'catdog-edge[headless]'"
