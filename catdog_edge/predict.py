"""Answering picture files: which files are meant, what each one shows, a drawn copy of it.

Knows files and names; the classifier and the one way of reading pictures do the rest.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from catdog_edge import annotate
from catdog_edge.classifier import Classifier
from catdog_edge.errors import CatdogError, PictureError
from catdog_edge.files import written_whole
from catdog_edge.pictures import is_picture, read_picture
from catdog_edge.preprocess import Frame
from catdog_edge.spec import Prediction

BAR = 10
"""Characters of a full bar in the table."""


@dataclass(frozen=True)
class Answer:
    """What became of one picture.

    Attributes:
        file: As it was named or found.
        prediction: The answer; `None` where the picture could not be read.
        error: Why not, in one line; empty where there is an answer.
        saved: Where the drawn copy is, if one was wanted.
    """

    file: Path
    prediction: Prediction | None
    error: str = ""
    saved: Path | None = None

    @property
    def name(self) -> str:
        """The file's name as it can be printed, whatever bytes it is made of."""
        return os.fsencode(self.file).decode("utf-8", "replace")

    def to_json(self) -> str:
        """One line of JSON: file, and label, confidence, probabilities or else an error."""
        document: dict[str, object] = {"file": self.name}
        if self.prediction is None:
            document["error"] = self.error
        else:
            document |= json.loads(self.prediction.to_json())
        if self.saved is not None:
            document["saved"] = str(self.saved)
        return json.dumps(document, ensure_ascii=False)

    def __str__(self) -> str:
        if self.prediction is None:
            return f"{'-':<10} {'':4}  {'':{BAR}}  {self.name} ({self.error})"
        share = round(BAR * self.prediction.confidence)
        bar = "#" * share + "." * (BAR - share)
        return f"{self.prediction.label:<10} {self.prediction.confidence:.2f}  {bar}  {self.name}"


HEADER = f"{'answer':<10} {'sure':4}  {'':{BAR}}  picture"


def gather(
    names: Sequence[str], listed: Iterable[str] = (), leave_out: Path | None = None
) -> list[Path]:
    """Turn what was typed into picture files, each once, in the order in which they came.

    Args:
        names: Files, folders (searched below as well), patterns like `shots/*.jpg`, or `-`.
        listed: The lines that `-` stands for.

        leave_out: A folder whose pictures do not count when folders are searched: that of
            the drawn copies.

    Returns:
        Files. What does not exist, a folder without pictures and a pattern that fits
        nothing are kept: they are reported with the others.
    """
    found: dict[Path, None] = {}
    for name in names:
        if name == "-":
            lines = (raw.rstrip("\r\n") for raw in listed)
            found |= dict.fromkeys(Path(line) for line in lines if line)
            continue
        if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises where a name is too long
            files = sorted(
                file
                for file in Path(name).rglob("*")
                if is_picture(file) and file.is_file() and not _below(file, leave_out)
            )
        elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110
            files = [Path(file) for file in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
            files = [file for file in files if file.is_file()]
        else:
            files = [Path(name)]
        found |= dict.fromkeys(files or [Path(name)])
    return list(found)


def _below(file: Path, folder: Path | None) -> bool:
    return folder is not None and folder.absolute() in file.absolute().parents


def answers(
    classifier: Classifier, files: Iterable[Path], save: Path | None = None
) -> Iterator[Answer]:
    """Answer one file after the other; what cannot be read is an answer with an error.

    Args:
        classifier: Answers.
        files: What `gather` found.
        save: A folder for copies with the answer drawn on.

    Raises:
        CatdogError: A copy cannot be written.
    """
    files = list(files)
    # No copy takes the place of a picture that was named, nor of another copy.
    taken = {Path(os.path.realpath(file)) for file in files} if save is not None else set()
    for file in files:
        try:
            frame = read_picture(file)
        except PictureError as error:
            yield Answer(file, None, _why(file, error))
            continue
        prediction = classifier(frame)
        saved = None if save is None else _save(file, frame, prediction, save, taken)
        yield Answer(file, prediction, saved=saved)


def _why(file: Path, error: PictureError) -> str:
    if os.path.isdir(file):  # noqa: PTH112
        return "there are no pictures in this folder"
    if glob.has_magic(str(file)) and not os.path.exists(file):  # noqa: PTH110
        return "no file fits this pattern"
    return str(error)


def _save(file: Path, frame: Frame, prediction: Prediction, folder: Path, taken: set[Path]) -> Path:
    """Write the drawn copy under the picture's name, numbered where that is taken."""
    ending = file.suffix.lower()
    ending = ending if ending in (".jpg", ".jpeg", ".png") else ".png"
    target, number = folder / f"{file.stem}{ending}", 1
    while Path(os.path.realpath(target)) in taken:
        number += 1
        target = folder / f"{file.stem}-{number}{ending}"
    taken.add(Path(os.path.realpath(target)))
    coded, data = cv2.imencode(ending, annotate.draw(frame, prediction))
    if not coded:
        raise CatdogError(f"cannot write {target}: OpenCV has no writer for {ending}")
    with written_whole(target) as temporary:
        temporary.write_bytes(data.tobytes())
    return target
