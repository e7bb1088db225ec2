"""Find image files: files, folders, patterns, and lists on standard input."""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from catdog_edge.errors import FOLDER_GONE, CatdogError
from catdog_edge.images.read import is_picture


def find_images(
    names: Sequence[str], listed: Iterable[str] = (), leave_out: Path | None = None
) -> list[Path]:
    """Find image files, without duplicates, in the order of the arguments.

    Names are files, folders (searched recursively, except for `leave_out`), patterns like
    `shots/*.jpg`, or `-` for the names in `listed`. A missing file, a folder that is unreadable or
    has no images, and a pattern without a match are kept in the result, to be reported later; see
    `why_not_found`.

    Raises:
        CatdogError: A folder is, or lies in, `leave_out`; or the current folder was deleted.

    Examples:
        >>> find_images(["cat.jpg", "shots/", "more/*.png"])
        [Path("cat.jpg"), Path("shots/1.jpg"), Path("more/2.png")]
    """
    excluded = None if leave_out is None else Path(_real_path(leave_out))
    found: dict[Path, None] = {}
    seen: set[str] = set()
    for name in chain.from_iterable(listed if name == "-" else [name] for name in names):
        searched = True
        if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises where a name is too long
            files = _search(Path(name), excluded)
        elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110
            files = [Path(file) for file in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
            files = [file for file in files if file.is_file()]
        else:
            files, searched = [], False
        for file in files or [Path(name)]:
            real = _real_path(file) if "\0" not in str(file) else str(file)
            if not (searched and real in seen):
                found[file] = None
            seen.add(real)
    return list(found)


def why_not_found(file: Path) -> str | None:
    """Return why `find_images` has kept a folder or a pattern; `None` for a file."""
    if os.path.isdir(file):  # noqa: PTH112
        try:
            os.scandir(file).close()
        except OSError as reason:
            return f"this folder cannot be searched: {reason.strerror or reason}"
        return "there are no images in this folder"
    if glob.has_magic(str(file)) and not os.path.exists(file):  # noqa: PTH110
        return "no file matches this pattern"
    return None


def split_list(data: bytes) -> list[str]:
    """Split a list of names: separated by zero bytes, as in `find -print0`, or one per line.

    A list that begins with a byte order mark, as PowerShell writes it, is in UTF-16 or UTF-8.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        parts = data.split(b"\0")
    else:
        parts = [line.rstrip(b"\r") for line in data.split(b"\n")]
    return [os.fsdecode(part) for part in parts if part]


def _real_path(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except FileNotFoundError:
        raise CatdogError(f"{FOLDER_GONE}; change to another one: cd") from None


def _search(folder: Path, excluded: Path | None) -> list[Path]:
    """Return images below a folder, and subfolders that cannot be searched."""
    if excluded is not None and Path(_real_path(folder)).is_relative_to(excluded):
        what = f"{folder} is where --save puts the annotated copies, which are not classified again"
        raise CatdogError(f"{what}; choose another folder for --save")
    found: list[Path] = []

    def keep(error: OSError) -> None:
        found.append(Path(error.filename))

    for place, _, names in os.walk(folder, onerror=keep):
        if excluded is None or not Path(_real_path(Path(place))).is_relative_to(excluded):
            files = (Path(place, name) for name in names if is_picture(name))
            found += [file for file in files if file.is_file()]
    return sorted(found)
