"""Access local paths and addresses such as `s3://bucket/folder`; pyarrow opens the latter."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from catdog_edge.errors import CatdogError, first_line
from catdog_edge.system.files import atomic_write
from catdog_edge.system.packages import import_extra

GOOGLE_LIMIT = "retry_limit_seconds"


def is_remote(location: str) -> bool:
    """Check whether a location is an address (`s3://...`, `gs://...`), not a local path."""
    return "://" in location


def suffix(location: str) -> str:
    """Return the lower-case suffix of a path, or of an address without its query."""
    path = location.partition("?")[0] if is_remote(location) else location
    return PurePosixPath(path).suffix.lower()


def pyarrow(module: str) -> Any:
    """Import a module of pyarrow; `MissingPackageError` if it is not installed."""
    what = "Parquet files and remote addresses need the package pyarrow"
    return import_extra(module, "parquet", what)


def filesystem(location: str) -> tuple[Any, str]:
    """Return the pyarrow file system of an address, and the path in it.

    Raises:
        CatdogError: The address cannot be opened, or pyarrow is not installed.
    """
    address = location
    if address.startswith(("gs://", "gcs://")) and GOOGLE_LIMIT not in address:
        # Without credentials Google's client silently retries for 15 minutes.
        address += f"{'&' if '?' in address else '?'}{GOOGLE_LIMIT}=60"
    try:
        return pyarrow("pyarrow.fs").FileSystem.from_uri(address)  # type: ignore[no-any-return]
    except (ValueError, OSError) as error:
        raise CatdogError(f"{location} cannot be opened: {first_line(error)}") from error


def open_file(location: str) -> BinaryIO:
    """Open a local or remote file for reading; seekable. Raises `OSError`."""
    if not is_remote(location):
        return Path(location).open("rb")
    system, path = filesystem(location)
    return system.open_input_file(path)  # type: ignore[no-any-return]


class Folder:
    """A local or remote folder with atomic writes.

    Examples:
        >>> folder = Folder("s3://bucket/results")
        >>> folder.write("part-000000.jsonl", [b"{}"])
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._system: Any
        self._system, self._path = filesystem(location) if is_remote(location) else (None, location)

    def write(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file atomically, also if the process is killed.

        Raises:
            CatdogError: It cannot be written.
        """
        if self._system is None:
            with atomic_write(Path(self._path, name)) as temporary, temporary.open("wb") as stream:
                stream.writelines(chunks)
            return
        try:  # an object becomes visible when its stream is closed
            with self._system.open_output_stream(f"{self._path}/{name}") as stream:
                for chunk in chunks:
                    stream.write(chunk)
        except OSError as error:
            what = f"cannot write {name} in {self.location}"
            raise CatdogError(f"{what}: {first_line(error)}") from error

    def open(self, name: str) -> BinaryIO:
        """Open a file of the folder for reading; raises `OSError`."""
        if self._system is None:
            return Path(self._path, name).open("rb")
        return io.BufferedReader(self._system.open_input_file(f"{self._path}/{name}"))

    def names(self) -> set[str]:
        """List its files, including hidden ones; empty if the folder does not exist."""
        if self._system is None:
            folder = Path(self._path)
            return {file.name for file in folder.iterdir()} if folder.is_dir() else set()
        selector = pyarrow("pyarrow.fs").FileSelector(self._path, allow_not_found=True)
        return {info.base_name for info in self._system.get_file_info(selector)}

    def remove(self, name: str) -> None:
        """Remove a local file; killed processes leave temporary files only in local folders."""
        if self._system is None:
            Path(self._path, name).unlink(missing_ok=True)
