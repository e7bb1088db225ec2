"""`catdog-edge predict`: classify image files, save annotated copies."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from catdog_edge.cli import options as common
from catdog_edge.errors import CatdogError, PictureError, escaped
from catdog_edge.spec import NEITHER, Prediction
from catdog_edge.system.console import is_terminal, note, progress_bar
from catdog_edge.system.files import atomic_write, cannot_write, name_text, take_free_name

if TYPE_CHECKING:
    from catdog_edge.images.preprocess import Image
    from catdog_edge.runtime.classifier import Classifier

BAR = 10  # characters of a full confidence bar in the table

FORMATS = ("jsonl", "parquet", "megadetector", "timelapse")
ENGINES = ("local", "ray")

bulk = common.group("Bulk")


@dataclass(frozen=True)
class FileResult:
    """The result for one image file; `prediction` is `None` if it could not be read.

    `error` is the reason, also for a missing annotated copy; `numbered`: the name existed.
    """

    file: Path
    prediction: Prediction | None
    error: str = ""
    saved: Path | None = None
    numbered: bool = False

    @property
    def name(self) -> str:
        """The file's name as text; any bytes are valid."""
        return name_text(self.file)

    def to_json(self) -> str:
        """Return one line of JSON: file, and label, confidence, probabilities or an error."""
        document: dict[str, object] = {"file": self.name}
        if self.prediction is not None:
            document |= json.loads(self.prediction.to_json())
        if self.error:
            document["error"] = self.error
        if self.saved is not None:
            document["saved"] = name_text(self.saved)
        return json.dumps(document, ensure_ascii=False)

    def row(self, width: int) -> str:
        """Return a row of the table, with a label column of `width`."""
        if self.prediction is None:
            return f"{'-':<{width}} {'':4}  {'':{BAR}}  {escaped(f'{self.name} ({self.error})')}"
        name, box = escaped(self.name), self.prediction.box
        where = f"  box {','.join(map(str, box))}" if box is not None else ""
        if self.prediction.label == NEITHER:
            nearest = str(self.prediction).removeprefix(NEITHER)
            return f"{NEITHER:<{width}} {'':4}  {'.' * BAR}  {name}{nearest}"
        filled = round(BAR * self.prediction.confidence)
        label, bar = escaped(self.prediction.label), "#" * filled + "." * (BAR - filled)
        return f"{label:<{width}} {self.prediction.confidence:.2f}  {bar}  {name}{where}"


def classify_files(
    classifier: Classifier,
    files: Iterable[Path],
    save: Path | None = None,
    keep_damaged: bool = False,
    tiles: bool = False,
    explain: bool = False,
) -> Iterator[FileResult]:
    """Classify files in sequence; save annotated copies if a folder is given.

    An unreadable file or a copy that cannot be written gives a result with an error. `tiles` uses
    `Classifier.search`; `explain` draws heat maps on the copies.
    """
    from catdog_edge.images.draw import draw_prediction
    from catdog_edge.images.find import why_not_found
    from catdog_edge.images.read import read_picture

    if save is not None:
        try:
            save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(save, error) from error
    for file in files:
        prediction, saved, number, reason = None, None, 1, ""
        try:
            frame = read_picture(file, keep_damaged=keep_damaged)
            prediction = classifier.search(frame) if tiles else classifier(frame)
            if save is not None:
                shown = _explained(classifier, frame, prediction) if explain else frame
                saved, number = _save(file, draw_prediction(shown, prediction), save)
        except PictureError as error:
            reason = why_not_found(file) or str(error)
        except CatdogError as error:
            if prediction is None:
                raise
            reason = str(error)
        yield FileResult(file, prediction, reason, saved, number > 1)


def _explained(classifier: Classifier, frame: Image, prediction: Prediction) -> Image:
    """Overlay the heat map of the classified part on a copy."""
    import numpy as np

    from catdog_edge.images.draw import overlay

    left, top, width, height = prediction.box or (0, 0, frame.shape[1], frame.shape[0])
    part = slice(top, top + height), slice(left, left + width)
    heat = np.zeros(frame.shape[:2], np.float32)
    label = None if prediction.label == NEITHER else prediction.label
    heat[part] = classifier.explain(frame[part], label)
    return overlay(frame, heat)


def _save(file: Path, annotated: Image, folder: Path) -> tuple[Path, int]:
    """Write an annotated copy; return its name and number, see `take_free_name`."""
    import cv2

    suffix = file.suffix.lower() if file.suffix.lower() in (".jpg", ".jpeg") else ".png"
    good, data = cv2.imencode(suffix, annotated)
    if not good:
        height, width = annotated.shape[:2]
        raise CatdogError(f"its copy of {width}x{height} pixels cannot be encoded as {suffix}")
    target, number = take_free_name(folder, file.stem, suffix)
    try:
        with atomic_write(target) as temporary:
            temporary.write_bytes(data.tobytes())
    except BaseException:
        target.unlink(missing_ok=True)  # the placeholder of the name
        raise
    return target, number


@common.command(
    "predict",
    "catdog-edge predict shots/ --save annotated/",
    "catdog-edge predict cat.jpg 'shots/*.png' --json",
    "find . -name '*.jpg' -print0 | catdog-edge predict - --model accurate",
)
@click.argument("images", nargs=-1, metavar="[IMAGES]...")
@common.model_option
@common.provider_option
@common.threads_option
@common.reject_option
@common.group("Images")(
    "--keep-damaged", is_flag=True, help="Also classify images that the decoder reports damaged."
)
@common.group("Images")(
    "--tiles",
    is_flag=True,
    help="Find small objects: also classify overlapping squares of each image. The box of the "
    "square that decided is printed, and drawn by --save.",
)
@common.output(
    "--save",
    type=click.Path(file_okay=False, path_type=Path),
    callback=lambda _ctx, _param, value: value and common.path(str(value)),
    metavar="DIR",
    help="Save copies there with label and confidence bar drawn on.",
)
@common.output(
    "--explain",
    is_flag=True,
    help="Overlay a heat map of where the model looked on the copies of --save. Needs a shipped "
    "model or one of `export --heat-map`.",
)
@common.output("--json", "as_json", is_flag=True, help="Print one line of JSON per image.")
@bulk(
    "--out",
    type=common.path_or_name,
    metavar="DIR",
    help="Write results there, not to standard output: in parts, so that the same command resumes "
    "a run that was stopped. IMAGES may be .zip, .tar and .parquet files as well.",
)
@bulk(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="jsonl",
    help="Format of the results; the last two are one file more, for programs for camera traps.",
)
@bulk("--part", type=common.COUNT, default=1000, metavar="N", help="Images per part.")
@bulk(
    "--reduce",
    is_flag=True,
    help="Decode JPEGs at 1/2, 1/4 or 1/8 where both sides stay twice the model's size or more: "
    "faster, but about 1 % of the labels may change.",
)
@bulk(
    "--engine",
    type=click.Choice(ENGINES),
    default="local",
    help="`ray`: on the machines of a Ray cluster, one session per worker with --threads cores "
    "(default: those of the smallest node) or a GPU.",
)
@bulk("--address", metavar="HOST:PORT", help="Ray cluster, or `auto`; else Ray is started here.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    images: tuple[str, ...],
    out: str | None,
    as_json: bool,
    save: Path | None,
    explain: bool,
    **options: Any,
) -> None:
    """Classify image files.

    IMAGES are files, folders, patterns, or - for a list on standard input, one name per line or
    as `find -print0` writes it. Without IMAGES: all images below the current folder. An image
    that cannot be read is reported, the others are classified, and the exit code is 1. --save
    overwrites no file: a name that is taken gets a number.
    """
    from catdog_edge.images.find import find_images, split_list

    if out is not None and (save is not None or explain):
        raise click.UsageError("--out writes no copies: use --save and --explain without it")
    if explain and save is None:
        raise click.UsageError("--explain needs --save")
    try:
        listed = split_list(sys.stdin.buffer.read()) if "-" in images and sys.stdin else []
    except OSError as error:
        reason = f"standard input cannot be read: {error.strerror or error}"
        raise CatdogError(f"{reason}; pipe the list into it") from error
    if out is not None:
        ctx.exit(_classify_in_parts(images or (".",), listed, out, as_json, options))
    for option in ctx.command.params:
        if getattr(option, "group", "") == "Bulk" and option.name:
            if ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"{option.opts[0]} needs --out")
            options.pop(option.name, None)
    files = find_images(images or (".",), listed, leave_out=save)
    if not files or files == [Path()]:
        where = "below the current folder" if files else "listed on standard input"
        raise CatdogError(f"there are no images {where}; name files, folders or patterns")
    where = "" if images else " below the current folder"
    counts = _classify(files, where, as_json, save, explain, **options)
    _note_totals(counts, len(files), save)
    if counts["unread"] or counts["unsaved"]:
        ctx.exit(1)


def _classify_in_parts(
    images: Sequence[str], listed: Sequence[str], out: str, as_json: bool, options: dict[str, Any]
) -> int:
    """Run the command with --out; return its exit code."""
    from catdog_edge.bulk.bulk_run import BulkRun
    from catdog_edge.bulk.classify_parts import ImageOptions

    if options["address"] is not None and options["engine"] != "ray":
        raise click.UsageError("--address needs --engine ray")
    if options["tiles"] and options["reduce"]:
        raise click.UsageError("--tiles and --reduce exclude each other")
    how = ImageOptions(*map(options.pop, ("keep_damaged", "tiles", "reduce")))
    kind, part, engine, address = map(options.pop, ("kind", "part", "engine", "address"))
    say = note, lambda line: note(f"catdog-edge: {line}")
    done = BulkRun(out, kind, images, listed, part, how, engine, address, *say).run(**options)
    if as_json:
        click.echo(json.dumps(asdict(done), ensure_ascii=False))
    return 1 if done.unreadable else 0


def _classify(
    files: Sequence[Path],
    where: str,
    as_json: bool,
    save: Path | None,
    explain: bool,
    *,
    keep_damaged: bool,
    tiles: bool,
    **options: Any,
) -> Counter[str]:
    """Print a row per file; return the numbers of unreadable, unsaved, saved and numbered ones."""
    import numpy as np

    from catdog_edge.runtime.classifier import Classifier
    from catdog_edge.runtime.model_file import DEFAULT

    counts: Counter[str] = Counter()
    with Classifier(**options) as classifier:
        if explain:
            classifier.explain(np.zeros((1, 1, 3), np.uint8))  # one error, not one an image
        shown = options["model"] or f"the shipped model {DEFAULT}"
        note(
            f"{len(files):,} image{'s' * (len(files) != 1)}{where}, {escaped(shown)}, "
            f"provider {classifier.provider}, {classifier.threads} threads"
        )
        width = max(10, *(len(escaped(label)) for label in classifier.spec.labels))
        if not as_json:
            click.echo(f"{'label':<{width}} {'conf':4}  {'':{BAR}}  image")
        count = progress_bar("images", len(files) if not is_terminal(sys.stdout) else 0)
        results = classify_files(classifier, files, save, keep_damaged, tiles, explain)
        for number, result in enumerate(results, 1):
            click.echo(result.to_json() if as_json else result.row(width))
            count(number)
            if result.error:
                unread = result.prediction is None
                counts["unread" if unread else "unsaved"] += 1
                if as_json or not unread:  # the row of an image that is not read has the reason
                    note(f"catdog-edge: {escaped(f'{result.name}: {result.error}')}")
            counts["saved"] += result.saved is not None
            counts["numbered"] += result.numbered
    return counts


def _note_totals(counts: Counter[str], images: int, save: Path | None) -> None:
    if counts["saved"]:
        taken = counts["numbered"]
        numbered = f", {taken:,} of them numbered: their names were taken" if taken else ""
        note(f"annotated copies are in {escaped(str(save))}{numbered}")
    for what, said in (("unsaved", "copies are not written"), ("unread", "could not be read")):
        if counts[what]:
            note(f"catdog-edge: {counts[what]:,} of {images:,} {said}")
