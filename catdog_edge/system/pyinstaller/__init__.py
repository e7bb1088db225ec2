"""Hooks for PyInstaller, which finds them through the entry point `pyinstaller40`."""

from __future__ import annotations

from pathlib import Path


def hook_folders() -> list[str]:
    """Return where PyInstaller finds this package's hooks."""
    return [str(Path(__file__).parent)]
