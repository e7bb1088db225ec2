"""The errors that a user can act on: one line that says what failed, on what, and what to do.

The command line prints them without a traceback and exits with `exit_code`. Any other exception
that escapes is a bug.
"""

from __future__ import annotations

import re
from collections.abc import Collection

FOLDER_GONE = "the current folder is not there any more: it was deleted or unmounted"
"""Reason why a relative path cannot be resolved."""

MOST_NAMES = 10  # names that a message lists

# onnx puts a place in its own source before the reason, onnxruntime a number and a name.
_PREFIX = re.compile(r"^.*Assertion .* failed: |^\[ONNXRuntimeError\] : \d+ : \w+ : ")

_CONTROL = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, line separators and lone surrogates."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of text, and so what a name looks like."""


class CatdogError(Exception):
    """Something could not be done; the message is one complete line.

    Examples:
        >>> try:
        ...     pets = Classifier("pets.onnx", provider="cuda")
        ... except ProviderError:
        ...     pets = Classifier("pets.onnx", provider="cpu")
        ... except CatdogError as error:
        ...     sys.exit(f"{error}")
    """

    exit_code = 1


class MissingPackageError(CatdogError, ImportError):
    """A package of another flavour or extra is needed; the message names the install command."""


class PictureError(CatdogError):
    """An image cannot be read; the message is the reason, without the name of the file.

    Examples:
        >>> try:
        ...     frame = read_picture("shots/1.jpg")
        ... except PictureError as reason:
        ...     print(f"shots/1.jpg: {reason}")
        shots/1.jpg: truncated: it ends inside its header
    """


class DamagedError(PictureError):
    """The decoder reports corrupt data, and yet returns an image."""


class DataError(CatdogError):
    """A data set is missing, empty, damaged, or not the one that the model was trained on."""


class ModelError(CatdogError):
    """A checkpoint, an ONNX file or a spec is missing, damaged, foreign, or too new.

    Examples:
        >>> try:
        ...     pets = Classifier(downloaded)
        ... except ModelError:
        ...     pets = Classifier("fast")
    """


class ProviderError(CatdogError):
    """A requested execution provider does not run on this machine.

    Examples:
        >>> try:
        ...     pets = Classifier(provider="cuda")
        ... except ProviderError:
        ...     pets = Classifier(provider="cpu")
    """


class CameraError(CatdogError):
    """A source of frames cannot be opened or has failed for good.

    Examples:
        >>> try:
        ...     frame = camera.read(timeout=5)
        ... except CameraError as error:
        ...     print(error)
        door: given up, failed 3 times in a row: connection refused
    """


class GateError(CatdogError):
    """The work is done, but a gate that was asked for is not met."""

    exit_code = 3


def escaped(text: str) -> str:
    r"""Escape control characters as Python does: `\n`.

    A file's name or a label may contain terminal control characters.
    """
    if text.isprintable():
        return text
    import unicodedata  # a large table that a camera loop does not need

    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _CONTROL or character in _BIDI
        else character
        for character in text
    )


def first_line(error: BaseException, limit: int = 160) -> str:
    """Return the first line of another library's error message, for use in one of ours.

    Args:
        error: The error; where its message is empty its class is named.
        limit: Characters that are kept.
    """
    lines = (line.strip() for line in str(error).splitlines())
    line = _PREFIX.sub("", next(filter(None, lines), ""))
    return (line or type(error).__name__)[:limit]


def list_names(names: Collection[str], limit: int = MOST_NAMES) -> str:
    """Join names for a message; of many only the first: `cat, dog`, or `a, b, ... (300 in all)`."""
    shown = ", ".join(list(names)[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names):,} in all)"


def label_difference(first: Collection[str], second: Collection[str]) -> str:
    """Describe for a message how two lists of classes differ, in bounded length.

    Examples:
        >>> label_difference(["cat", "dog"], ["cat", "fox"])
        'cat, dog against cat, fox'
    """
    if max(len(first), len(second)) <= MOST_NAMES:
        return f"{', '.join(first)} against {', '.join(second)}"
    missing = [label for label in first if label not in second]
    more = [label for label in second if label not in first]
    parts = [f"without {list_names(missing)}"] if missing else []
    parts += [f"with {list_names(more)}"] if more else []
    how = " and ".join(parts) or "in another order"
    return f"{len(first):,} classes against {len(second):,}, the latter {how}"
