"""Programs in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def in_fresh_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that succeeds, with all warnings shown."""
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, **environment},
    )


def fresh(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in `folder`, where packages are found first; it may fail."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    environment = {name: value for name, value in environment.items() if name != "CI"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
        env=environment,
    )
