"""Atomic writes, free names, and the cache folder."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from catdog_edge.errors import FOLDER_GONE, CatdogError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically: a reader never sees half of it.

    Args:
        path: The file to write. Its folder is created if missing.

    Yields:
        A temporary path in its folder, with the same suffix. When the block ends it is renamed to
        `path`; if the block raises, it is removed and `path` is unchanged.

    Raises:
        CatdogError: The folder or the file cannot be written (permissions, a full disk).

    Examples:
        >>> with atomic_write("model.onnx") as temporary:
        ...     onnx.save(model, temporary)
    """
    import tempfile  # slow to load, as is `glob`

    target = Path(path)
    try:
        if target.exists() and not target.is_file() and not target.is_dir():
            # Renaming a file to it would replace it for all other programs.
            raise CatdogError(f"{target} is a device or a pipe; name a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(target.suffix, _prefix(target), target.parent)
    except OSError as error:
        raise cannot_write(target, error) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; a result has the usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _prefix(target: Path) -> str:
    # Not all of a long name: with what is added it would be too long.
    return f".{target.stem[:40]}-"


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files of processes that were killed while they wrote `path`.

    Call it only while no process writes `path`. Files that cannot be removed are ignored.
    """
    import glob

    target = Path(path)
    # mkstemp adds eight characters.
    pattern = f"{glob.escape(_prefix(target))}????????{glob.escape(target.suffix)}"
    for leftover in target.parent.glob(pattern):
        with contextlib.suppress(OSError):
            leftover.unlink()


def take_free_name(folder: Path, stem: str, suffix: str) -> tuple[Path, int]:
    """Create an empty file with an unused name.

    Returns:
        `STEM.SUFFIX`, or if that exists `STEM-2.SUFFIX` and so on; and the number, from 1.
        The stem is shortened if the name would be longer than file systems allow.

    Raises:
        CatdogError: The file cannot be created.
    """
    number = 1
    while True:
        tail = suffix if number == 1 else f"-{number}{suffix}"
        short = stem
        while len(os.fsencode(short + tail)) > 255:
            short = short[:-1]
        target = folder / f"{short}{tail}"
        try:
            target.open("xb").close()
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise cannot_write(target, error) from error
        return target, number


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8; see `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data`; see `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def cannot_write(path: Path, error: OSError) -> CatdogError:
    """Return the error for a file that cannot be written."""
    return CatdogError(
        f"cannot write {path}: {error.strerror or error}; choose another folder or free some disk "
        "space. The file that was there before, if any, is untouched."
    )


def name_text(name: str | os.PathLike[str]) -> str:
    """Decode a name for output; any bytes are valid."""
    return os.fsencode(name).decode("utf-8", "replace")


def expand_path(path: str | os.PathLike[str]) -> Path:
    """Expand a leading `~` or `~user` and make the path absolute.

    Raises:
        CatdogError: There is no such home folder, or the current folder was deleted.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise CatdogError(f"{path}: no such home folder; write the whole path") from error
    except FileNotFoundError as error:
        raise CatdogError(f"{path}: {FOLDER_GONE}; change to another one: cd") from error


def cache_folder() -> Path:
    """Return the folder for cached results; it may not exist yet.

    It is `$CATDOG_CACHE`, else `catdog-edge` in the user's cache folder. A user without a home
    folder gets a private folder among the temporary files.

    Raises:
        CatdogError: `$CATDOG_CACHE` is not a usable path, or the private folder cannot be created.
    """
    named = os.environ.get("CATDOG_CACHE")
    if named:
        return expand_path(named)
    try:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            named = os.environ.get("XDG_CACHE_HOME") or ""  # a relative one is to be ignored
            base = named if Path(named).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return _temporary_cache()
    return Path(base) / "catdog-edge"


def _temporary_cache() -> Path:
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"catdog-edge-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.lstat().st_uid == user or not hasattr(os, "getuid"):
            return folder
        reason = "it belongs to another user"  # who could put anything into it
    except OSError as error:
        reason = str(error.strerror)
    what = f"there is no home folder, and the cache {folder} cannot be used ({reason})"
    raise CatdogError(f"{what}; set CATDOG_CACHE to a folder that you may write to")
