"""Move finished files into a folder: all of them, or the folder stays unchanged.

They are first copied to the same folder, so that a full disk is detected before any replacement.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from catdog_edge.errors import CatdogError
from catdog_edge.system.files import atomic_write, cannot_write
from catdog_edge.system.signals import termination_as_exit


def check_writable(folder: Path) -> None:
    """Make a folder and check that files can be written there, before minutes of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Make a writable folder; if the block raises, remove what was made."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        check_writable(folder)
        yield
    except BaseException:
        for one in missing:
            with contextlib.suppress(OSError):  # not empty: what is in it is somebody else's
                one.rmdir()
        raise


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a temporary folder; remove it at the end, also at Ctrl-C and at SIGTERM."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="catdog-export-")
    except OSError as error:
        raise no_room(Path(os.environ.get("TMPDIR", "the temporary folder")), error) from error
    with folder as name, termination_as_exit():
        yield Path(name)


def no_room(folder: Path, error: OSError) -> CatdogError:
    """Make the error for temporary files that cannot be written."""
    return CatdogError(
        f"cannot write temporary files to {folder}: {error.strerror or error}; free some disk "
        "space there, or set TMPDIR to a folder on another disk. Nothing was exported."
    )


def publish(files: Sequence[Path], folder: Path) -> None:
    """Copy files into a folder that exists, all or none; the last one is renamed last."""
    with contextlib.ExitStack() as stack:
        # The last of the contexts ends first: what is begun first is renamed last.
        for file in reversed(files):
            target = folder / file.name
            temporary = stack.enter_context(atomic_write(target))
            if target.is_dir():
                raise IsADirectoryError(None, "a folder is in its place")
            shutil.copyfile(file, temporary)
