"""Answering picture files: which files are meant, what each one shows, a drawn copy of it.

Knows files and names; the classifier and the one way of reading pictures do the rest.
"""

from __future__ import annotations

import codecs
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from catdog_edge.errors import FOLDER_GONE, CatdogError, PictureError
from catdog_edge.images import draw
from catdog_edge.images.preprocess import Frame
from catdog_edge.images.read import is_picture, read_picture
from catdog_edge.runtime.classifier import Classifier
from catdog_edge.spec import NEITHER, Prediction
from catdog_edge.system.console import plain
from catdog_edge.system.files import atomic_write, cannot_write, take_free_name

BAR = 10
"""Characters of a full bar in the table."""


@dataclass(frozen=True)
class Answer:
    """What became of one picture.

    Attributes:
        file: As it was named or found.
        prediction: The answer; `None` where the picture could not be read.
        error: Why not, in one line, or why there is no drawn copy; empty where all went well.
        saved: Where the drawn copy is, if one was wanted.
        numbered: Whether the copy has a number, since the picture's name was taken.
    """

    file: Path
    prediction: Prediction | None
    error: str = ""
    saved: Path | None = None
    numbered: bool = False

    @property
    def name(self) -> str:
        """The file's name as text, whatever bytes it is made of."""
        return _text(self.file)

    def to_json(self) -> str:
        """One line of JSON: file, and label, confidence, probabilities or else an error."""
        document: dict[str, object] = {"file": self.name}
        if self.prediction is not None:
            document |= json.loads(self.prediction.to_json())
        if self.error:
            document["error"] = self.error
        if self.saved is not None:
            document["saved"] = _text(self.saved)
        return json.dumps(document, ensure_ascii=False)

    def __str__(self) -> str:
        if self.prediction is None:
            return f"{'-':<10} {'':4}  {'':{BAR}}  {plain(f'{self.name} ({self.error})')}"
        if self.prediction.label == NEITHER:
            nearest = str(self.prediction).removeprefix(NEITHER)
            return f"{NEITHER:<10} {'':4}  {'.' * BAR}  {plain(self.name)}{nearest}"
        share = round(BAR * self.prediction.confidence)
        bar = "#" * share + "." * (BAR - share)
        label = plain(self.prediction.label)
        return f"{label:<10} {self.prediction.confidence:.2f}  {bar}  {plain(self.name)}"


HEADER = f"{'answer':<10} {'sure':4}  {'':{BAR}}  picture"


def gather(
    names: Sequence[str], listed: Iterable[str] = (), leave_out: Path | None = None
) -> list[Path]:
    """Turn what was typed into picture files, each once, in the order in which they came.

    Args:
        names: Files, folders (searched below as well), patterns like `shots/*.jpg`, or `-`.
        listed: What `-` stands for: names as in `names`, `-` apart.
        leave_out: A folder whose pictures do not count when folders are searched: that of
            the drawn copies.

    Returns:
        Files. What does not exist, a folder that cannot be read or has no pictures, and a
        pattern that fits nothing are kept: they are reported with the others. What a search
        finds under several names, through links, is there once.

    Raises:
        CatdogError: A folder is that of the drawn copies, or lies in it. Or the current
            folder is needed and not there any more.
    """
    spared = None if leave_out is None else Path(_real(leave_out))
    found: dict[Path, None] = {}
    seen: set[str] = set()
    for name in _all_names(names, listed):
        searched = True
        if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises where a name is too long
            files = _search(Path(name), spared)
        elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110
            files = [Path(file) for file in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
            files = [file for file in files if file.is_file()]
        else:
            files, searched = [], False
        for file in files or [Path(name)]:
            real = _real(file) if "\0" not in str(file) else str(file)
            if not (searched and real in seen):
                found[file] = None
            seen.add(real)
    return list(found)


def _real(path: Path) -> str:
    """A path without links.

    Raises:
        CatdogError: It is not absolute, and the current folder is not there any more.
    """
    try:
        return os.path.realpath(path)
    except FileNotFoundError:
        raise CatdogError(f"{FOLDER_GONE}; change to another one: cd") from None


def listed_names(data: bytes) -> list[str]:
    """The names in a list: ended by zero bytes, as of `find -print0`, or one a line.

    A list that begins with a byte order mark, as PowerShell and editors of Windows write it,
    is text in UTF-16 or UTF-8.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        parts = data.split(b"\0")
    else:
        parts = [line.rstrip(b"\r") for line in data.split(b"\n")]
    return [os.fsdecode(part) for part in parts if part]


def _all_names(names: Iterable[str], listed: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name == "-":
            yield from (line for line in listed if line)
        else:
            yield name


def _search(folder: Path, spared: Path | None) -> list[Path]:
    """Pictures below a folder, and what cannot be searched."""
    if spared is not None and _is_below(folder, spared):
        raise CatdogError(
            f"{folder} is where --save puts the drawn copies, which are not answered again; "
            "choose another folder for --save"
        )
    refused: list[Path] = []

    def refuse(error: OSError) -> None:
        refused.append(Path(error.filename))

    files = []
    for place, _, names in os.walk(folder, onerror=refuse):
        inside = [Path(place, name) for name in names if is_picture(name)]
        files += [file for file in inside if file.is_file()]
    if spared is not None:
        files = [file for file in files if not _is_below(file, spared)]
    return sorted([*files, *refused])


def _is_below(path: Path, folder: Path) -> bool:
    return Path(_real(path)).is_relative_to(folder)


def answers(
    classifier: Classifier, files: Iterable[Path], save: Path | None = None
) -> Iterator[Answer]:
    """Answer one file after the other; what cannot be read is an answer with an error.

    Args:
        classifier: Answers.
        files: What `gather` found.
        save: A folder for copies with the answer drawn on.

    Raises:
        CatdogError: The folder for copies cannot be made. A copy that cannot be written is
            an answer with an error.
    """
    if save is not None:
        try:
            save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(save, error) from error
    for file in files:
        try:
            frame = read_picture(file)
        except PictureError as error:
            yield Answer(file, None, _why(file, error))
            continue
        prediction = classifier(frame)
        if save is None:
            yield Answer(file, prediction)
            continue
        try:
            saved, number = _save(file, draw.draw(frame, prediction), save)
        except CatdogError as error:
            yield Answer(file, prediction, str(error))
        else:
            yield Answer(file, prediction, saved=saved, numbered=number > 1)


def _why(file: Path, error: PictureError) -> str:
    if os.path.isdir(file):  # noqa: PTH112
        try:
            os.scandir(file).close()
        except OSError as reason:
            return f"this folder cannot be searched: {reason.strerror or reason}"
        return "there are no pictures in this folder"
    if glob.has_magic(str(file)) and not os.path.exists(file):  # noqa: PTH110
        return "no file fits this pattern"
    return str(error)


def _save(file: Path, drawn: Frame, folder: Path) -> tuple[Path, int]:
    """Write a drawn copy under the picture's name, numbered where that is taken.

    Returns:
        The copy, and its number: 1 where it has the picture's own name.

    Raises:
        CatdogError: It cannot be written.
    """
    ending = file.suffix.lower()
    ending = ending if ending in (".jpg", ".jpeg", ".png") else ".png"
    coded, data = cv2.imencode(ending, drawn)
    if not coded:
        raise CatdogError(f"cannot write a copy: OpenCV has no writer for {ending}")
    target, number = take_free_name(folder, file.stem, ending)
    try:
        with atomic_write(target) as temporary:
            temporary.write_bytes(data.tobytes())
    except BaseException:
        target.unlink(missing_ok=True)  # what held the name
        raise
    return target, number


def _text(path: Path) -> str:
    """A path as text that any program reads, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", "replace")
