"""The version of the package."""

from __future__ import annotations

import re

from click.testing import CliRunner

from catdog_edge.cli.main import main
from catdog_edge.system.version import __version__


def test_the_command_prints_the_version_in_three_numbers() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert CliRunner().invoke(main, ["--version"]).output.split()[-1] == __version__
