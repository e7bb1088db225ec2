"""`catdog-edge predict`: find image files, classify each, save annotated copies."""

from __future__ import annotations

import codecs
import glob
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catdog_edge.cli.options import (
    group,
    grouped_command,
    provider_option,
    reject_option,
    threads_option,
)
from catdog_edge.errors import FOLDER_GONE, CatdogError, PictureError
from catdog_edge.spec import NEITHER, Prediction
from catdog_edge.system.console import note, plain
from catdog_edge.system.files import atomic_write, cannot_write, take_free_name

if TYPE_CHECKING:
    from catdog_edge.images.preprocess import Image
    from catdog_edge.runtime.classifier import Classifier

BAR = 10
"""Characters of a full confidence bar in the table."""

HEADER = f"{'answer':<10} {'sure':4}  {'':{BAR}}  picture"


@dataclass(frozen=True)
class FileResult:
    """The result for one image file.

    Attributes:
        file: As it was named or found.
        prediction: `None` where the image could not be read.
        error: Why not, or why there is no annotated copy, in one line; empty without an error.
        saved: The annotated copy, if there is one.
        numbered: The copy has a number, since the image's name was taken.
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
        filled = round(BAR * self.prediction.confidence)
        bar = "#" * filled + "." * (BAR - filled)
        label = plain(self.prediction.label)
        return f"{label:<10} {self.prediction.confidence:.2f}  {bar}  {plain(self.name)}"


def gather(
    names: Sequence[str], listed: Iterable[str] = (), leave_out: Path | None = None
) -> list[Path]:
    """Find the image files that are meant, each once, in the order of the arguments.

    Args:
        names: Files, folders (searched recursively), patterns like `shots/*.jpg`, or `-`.
        listed: The names that `-` stands for.
        leave_out: The folder of annotated copies; images in it are not found by a search.

    Returns:
        Files. A missing file, a folder that is unreadable or has no images, and a pattern
        without a match are kept, to be reported with the others. A file that a search finds
        under several names, through links, is there once.

    Raises:
        CatdogError: A folder is, or lies in, the folder of annotated copies; or the current
            folder was deleted.
    """
    excluded = None if leave_out is None else Path(_real(leave_out))
    found: dict[Path, None] = {}
    seen: set[str] = set()
    for name in _all_names(names, listed):
        searched = True
        if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises where a name is too long
            files = _search(Path(name), excluded)
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
    """Resolve links.

    Raises:
        CatdogError: It is not absolute, and the current folder is not there any more.
    """
    try:
        return os.path.realpath(path)
    except FileNotFoundError:
        raise CatdogError(f"{FOLDER_GONE}; change to another one: cd") from None


def listed_names(data: bytes) -> list[str]:
    """Split a list of names: ended by zero bytes, as `find -print0` writes it, or one a line.

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


def _all_names(names: Iterable[str], listed: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name == "-":
            yield from (line for line in listed if line)
        else:
            yield name


def _search(folder: Path, excluded: Path | None) -> list[Path]:
    """Images below a folder, and subfolders that cannot be searched."""
    if excluded is not None and _is_below(folder, excluded):
        raise CatdogError(
            f"{folder} is where --save puts the annotated copies, which are not classified again; "
            "choose another folder for --save"
        )
    from catdog_edge.images.read import is_picture

    refused: list[Path] = []

    def refuse(error: OSError) -> None:
        refused.append(Path(error.filename))

    files = []
    for place, _, names in os.walk(folder, onerror=refuse):
        inside = [Path(place, name) for name in names if is_picture(name)]
        files += [file for file in inside if file.is_file()]
    if excluded is not None:
        files = [file for file in files if not _is_below(file, excluded)]
    return sorted([*files, *refused])


def _is_below(path: Path, folder: Path) -> bool:
    return Path(_real(path)).is_relative_to(folder)


def classify_files(
    classifier: Classifier,
    files: Iterable[Path],
    save: Path | None = None,
    keep_damaged: bool = False,
) -> Iterator[FileResult]:
    """Classify one file after the other; an unreadable file is a result with an error.

    Args:
        classifier: The model.
        files: As `gather` finds them.
        save: A folder for annotated copies; a copy that cannot be written is a result with an
            error.
        keep_damaged: Classify images that the decoder reports damaged, too.

    Raises:
        CatdogError: The folder for copies cannot be made.
    """
    from catdog_edge.images.draw import draw
    from catdog_edge.images.read import read_picture

    if save is not None:
        try:
            save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(save, error) from error
    for file in files:
        try:
            frame = read_picture(file, keep_damaged=keep_damaged)
        except PictureError as error:
            yield FileResult(file, None, _why(file, error))
            continue
        prediction = classifier(frame)
        if save is None:
            yield FileResult(file, prediction)
            continue
        try:
            saved, number = _save(file, draw(frame, prediction), save)
        except CatdogError as error:
            yield FileResult(file, prediction, str(error))
        else:
            yield FileResult(file, prediction, saved=saved, numbered=number > 1)


def _why(file: Path, error: PictureError) -> str:
    if os.path.isdir(file):  # noqa: PTH112
        try:
            os.scandir(file).close()
        except OSError as reason:
            return f"this folder cannot be searched: {reason.strerror or reason}"
        return "there are no images in this folder"
    if glob.has_magic(str(file)) and not os.path.exists(file):  # noqa: PTH110
        return "no file matches this pattern"
    return str(error)


def _save(file: Path, annotated: Image, folder: Path) -> tuple[Path, int]:
    """Write an annotated copy under the image's name, numbered where that is taken.

    Returns:
        The copy, and its number: 1 where it has the image's own name.

    Raises:
        CatdogError: It cannot be written.
    """
    import cv2

    suffix = file.suffix.lower() if file.suffix.lower() in (".jpg", ".jpeg") else ".png"
    _, data = cv2.imencode(suffix, annotated)
    target, number = take_free_name(folder, file.stem, suffix)
    try:
        with atomic_write(target) as temporary:
            temporary.write_bytes(data.tobytes())
    except BaseException:
        target.unlink(missing_ok=True)  # what held the name
        raise
    return target, number


def _text(path: Path) -> str:
    """Decode a path for output, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", "replace")


def _read_list() -> list[str]:
    """The names on standard input.

    Raises:
        CatdogError: It cannot be read.
    """
    if sys.stdin is None:
        return []
    try:
        return listed_names(sys.stdin.buffer.read())
    except OSError as error:
        raise CatdogError(
            f"standard input cannot be read: {error.strerror or error}; pipe the list into it"
        ) from error


@grouped_command(
    "predict",
    "catdog-edge predict shots/ --save annotated/",
    "catdog-edge predict cat.jpg 'shots/*.png' --json",
    "find . -name '*.jpg' -print0 | catdog-edge predict - --model accurate",
)
@click.argument("images", nargs=-1, metavar="[IMAGES]...")
@group("Model")(
    "--model",
    metavar="MODEL",
    show_default="fast",
    help="An .onnx file or the name of a shipped model.",
)
@provider_option
@threads_option
@reject_option
@group("Images")(
    "--keep-damaged", is_flag=True, help="Also classify images that the decoder reports damaged."
)
@group("Output")(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Save copies there with label and confidence bar drawn on.",
)
@group("Output")("--json", "as_json", is_flag=True, help="Print one line of JSON per image.")
@click.pass_context
def command(
    ctx: click.Context,
    images: tuple[str, ...],
    model: str | None,
    provider: str,
    threads: int | None,
    reject: float | None,
    keep_damaged: bool,
    save: Path | None,
    as_json: bool,
) -> None:
    """Classify image files.

    IMAGES are files, folders, patterns, or - for a list on standard input, one name per line or
    as `find -print0` writes it. Without IMAGES: all images below the current folder. An image
    that cannot be read is reported, the others are classified, and the exit code is 1. --save
    overwrites no file: a name that is taken gets a number.
    """
    from catdog_edge.runtime.classifier import Classifier

    listed = _read_list() if "-" in images else []
    files = gather(images or (".",), listed, leave_out=save)
    if not files or files == [Path()]:
        where = "below the current folder" if files else "listed on standard input"
        raise CatdogError(f"there are no images {where}; name files, folders or patterns")
    with Classifier(model, provider, threads, reject) as classifier:
        shown = model or f"the shipped model {classifier.path and classifier.path.stem}"
        where = "" if images else " below the current folder"
        note(
            f"{len(files):,} image{'s' * (len(files) != 1)}{where}, {plain(shown)}, "
            f"provider {classifier.provider}, {classifier.threads} threads"
        )
        if not as_json:
            click.echo(HEADER)
        counts: Counter[str] = Counter()
        for result in classify_files(classifier, files, save, keep_damaged):
            click.echo(result.to_json() if as_json else str(result))
            if result.error:
                counts["unread" if result.prediction is None else "unsaved"] += 1
                note(f"catdog-edge: {plain(f'{result.name}: {result.error}')}")
            counts["saved"] += result.saved is not None
            counts["numbered"] += result.numbered
    _summarize(counts, len(files), save)
    if counts["unread"] or counts["unsaved"]:
        ctx.exit(1)


def _summarize(counts: Counter[str], files: int, save: Path | None) -> None:
    if counts["saved"]:
        taken = counts["numbered"]
        numbered = f", {taken:,} of them numbered: their names were taken" if taken else ""
        note(f"annotated copies are in {plain(str(save))}{numbered}")
    if counts["unsaved"]:
        note(f"catdog-edge: {counts['unsaved']:,} of {files:,} copies are not written")
    if counts["unread"]:
        note(f"catdog-edge: {counts['unread']:,} of {files:,} could not be read")
