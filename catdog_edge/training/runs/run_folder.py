"""Run folders: where a training run keeps its files, and how a later command finds them.

Knows the names of the files and what `args.yaml` says, nothing of training.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from catdog_edge.errors import CatdogError, ModelError
from catdog_edge.runtime.threads import MOST
from catdog_edge.system.files import remove_leftovers, write_text
from catdog_edge.training.config.recipe_files import parse_yaml
from catdog_edge.training.config.schema import shorten
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.load import open_dataset
from catdog_edge.training.runs.lock import hold, is_held

ROOT = Path("runs")
"""Where `train` makes run folders, below the current folder."""

FILES = (
    "args.yaml", "best.pt", "confusion.png", "curves.png", "data.png", "last.pt", "mistakes.png",
    "results.csv", "review.csv", "skipped.csv", "split.csv", "summary.json",
)  # fmt: skip
"""What a training run writes into its folder."""


class Run:
    """One run folder.

    Args:
        folder: For instance `runs/cat_dog-1`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def is_one(self) -> bool:
        """Whether the folder is a run folder at all."""
        return (self.folder / "args.yaml").is_file()

    @property
    def weights(self) -> Path:
        """The best weights of the run."""
        return self.folder / "best.pt"

    @property
    def last(self) -> Path:
        """The newest weights of the run, with what a resume needs."""
        return self.folder / "last.pt"

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: the summary was written after the last weights."""
        try:
            summary = (self.folder / "summary.json").stat().st_mtime_ns
            return not self.last.is_file() or summary >= self.last.stat().st_mtime_ns
        except OSError:
            return False

    @property
    def can_go_on(self) -> bool:
        """Whether a resume has something to do, and something to do it with."""
        return self.is_one and self.last.is_file() and not self.finished

    @property
    def busy(self) -> bool:
        """Whether a process is training it, where the file system can tell."""
        return is_held(self.folder)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training the run for the length of a block.

        What processes that were killed in the middle of a file have left is removed.

        Raises:
            CatdogError: Another process is training it.
        """
        with hold(self.folder) as mine:
            if not mine:
                raise CatdogError(
                    f"{self.folder} is being trained by another process; wait until it ends, or "
                    "stop it first"
                )
            for name in FILES:
                remove_leftovers(self.folder / name)
            yield

    @property
    def split_csv(self) -> Path:
        """Which picture is on which side."""
        return self.folder / "split.csv"

    def args(self) -> dict[str, Any]:
        """What the run was started with; `data` is an absolute path or `sample`.

        Raises:
            CatdogError: `args.yaml` is missing or damaged, or a value is not what it must be.
        """
        file = self.folder / "args.yaml"
        try:
            document = parse_yaml(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise CatdogError(
                f"{self.folder} is not a run folder ({file.name}: {error.strerror}); "
                "make one with: catdog-edge train"
            ) from error
        except ValueError as error:
            raise CatdogError(f"{file} is damaged; train again") from error
        if not isinstance(document, dict) or "data" not in document:
            raise CatdogError(f"{file} is damaged (it names no data); train again")
        for key, (fits, wanted) in _VALUES.items():
            if key in document and not fits(document[key]):
                raise CatdogError(
                    f"{file}: {key} is {shorten(document[key])}, {wanted} is wanted; put back "
                    "what was there, or train again"
                )
        return document

    def settings(self) -> dict[str, Any]:
        """What `args` gives, with all that a resume needs.

        Raises:
            CatdogError: See `args`, or something is missing.
        """
        args = self.args()
        missing = [key for key in _NEEDED if key not in args]
        if missing:
            raise CatdogError(
                f"{self.folder / 'args.yaml'}: {missing[0]} is missing; put it back, or train again"
            )
        return args

    def write_args(self, args: dict[str, Any]) -> None:
        """Write `args.yaml`."""
        write_text(
            self.folder / "args.yaml", yaml.safe_dump(args, sort_keys=False, allow_unicode=True)
        )

    def dataset(self, progress: Callable[[int, int], None] | None = None) -> Dataset:
        """Open the run's data again, with the split that the run recorded.

        Args:
            progress: Called with the pictures read so far and their number.

        Raises:
            DataError: The data is not where it was, or is damaged.
        """
        args = self.args()
        split_csv = self.split_csv if self.split_csv.is_file() else None
        return open_dataset(
            args["data"],
            labels=tuple(args["labels"]) if args.get("labels") else None,
            split=tuple(args.get("split") or (80, 10, 10)),
            limit=args.get("limit"),
            seed=args.get("seed", 0),
            split_csv=split_csv,
            progress=progress,
        )


def _whole(value: object, least: int, most: int = 2**64 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _labels(value: object) -> bool:
    return value is None or (
        isinstance(value, list)
        and len(value) >= 2
        and all(isinstance(one, str) and one for one in value)
        and len(set(value)) == len(value)
    )


def _split(value: object) -> bool:
    return value is None or (
        isinstance(value, list)
        and len(value) == 3
        and all(_whole(one, 0, 100) for one in value)
        and sum(value) == 100
    )


def _rate(value: object) -> bool:
    # YAML 1.1 reads 1e-3 as text.
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 < value <= sys.float_info.max


def _teacher(value: object) -> bool:
    return value is None or (
        isinstance(value, dict) and all(isinstance(value.get(k), str) for k in ("file", "sha256"))
    )


_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "data": (lambda value: isinstance(value, str) and value != "", "a path or sample"),
    "labels": (_labels, "a list of two or more different names"),
    "split": (_split, "a list of three shares that sum to 100"),
    "limit": (lambda value: value is None or _whole(value, 1), "a whole number above 0, or null"),
    "other": (lambda value: value is None or isinstance(value, str), "a path, drawn or null"),
    "epochs": (lambda value: _whole(value, 1), "a whole number above 0"),
    "batch_size": (lambda value: _whole(value, 2), "a whole number above 1"),
    "lr": (_rate, "a number above 0 (of the form 1.0e-3)"),
    "seed": (lambda value: _whole(value, 0), "a whole number"),
    "patience": (lambda value: _whole(value, 0), "a whole number"),
    "precision": (lambda value: value in ("float32", "bfloat16"), "float32 or bfloat16"),
    "device": (lambda value: isinstance(value, str), "cpu, cuda or cuda:NUMBER"),
    "threads": (lambda value: _whole(value, 1, MOST), f"a whole number in 1..{MOST}"),
    "teacher": (_teacher, "null, or file and sha256"),
    "recipe": (lambda value: isinstance(value, str | dict), "a table of values"),
}
"""What each value of `args.yaml` that a command reads must be, and how to say it."""

_NEEDED = (
    "labels", "epochs", "batch_size", "lr", "seed", "patience", "precision", "device", "recipe",
)  # fmt: skip
"""Without these a run cannot be gone on with."""


def newest_unfinished(root: Path = ROOT) -> Run:
    """The run that was begun or saved last of those that something is left to do of.

    Runs that another process is training are passed over.

    Args:
        root: The folder that holds the runs.

    Raises:
        ModelError: There is none.
    """
    known = [Run(found.parent) for found in root.glob("*/args.yaml")]
    if not known:
        raise ModelError(
            f"there is no run under {root.absolute()}; train one with: catdog-edge train"
        )

    def touched(run: Run) -> int:
        files = (run.folder / "args.yaml", run.last)
        return max(file.stat().st_mtime_ns for file in files if file.is_file())

    open_ones = [run for run in known if run.can_go_on]
    free = [run for run in open_ones if not run.busy]
    if free:
        return max(free, key=touched)
    if open_ones:
        newest = max(open_ones, key=touched)
        raise ModelError(
            f"{newest.folder} is being trained by another process, and no other run under "
            f"{root.absolute()} is left to go on with; wait until it ends, or stop it first"
        )
    newest = max(known, key=touched)
    if not newest.finished:
        raise ModelError(
            f"no run under {root.absolute()} can be gone on with, {newest.name} has no last.pt; "
            "start another with: catdog-edge train"
        )
    raise ModelError(
        f"every run under {root.absolute()} is finished, the newest is {newest.name}; "
        "start another with: catdog-edge train"
    )


def newest_run(root: Path = ROOT) -> Run:
    """The run whose best weights were written last.

    Args:
        root: The folder that holds the runs.

    Raises:
        ModelError: There is none.
    """
    candidates = [found for found in root.glob("*/best.pt") if Run(found.parent).is_one]
    if not candidates:
        raise ModelError(
            f"there is no trained model under {root.absolute()}; train one with: "
            "catdog-edge train, or name one with --weights"
        )
    return Run(max(candidates, key=lambda found: found.stat().st_mtime_ns).parent)


def run_of(weights: Path) -> Run | None:
    """The run folder that a weights file or an exported file lies in, if it does."""
    run = Run(weights.resolve().parent)
    return run if run.is_one else None


def check_name(name: str | None, root: Path = ROOT) -> None:
    """Refuse a name that `new_run` would not take, before any work is done.

    Raises:
        CatdogError: It is taken.
    """
    if name is not None and os.path.lexists(root / name):
        raise _taken(Run(root / name))


def _taken(run: Run) -> CatdogError:
    if run.busy:
        otherwise = " (another process is training it)"
    elif run.is_one and run.last.is_file():
        name = shlex.quote(run.name)
        otherwise = f", or go on with it: catdog-edge train --resume --name {name}"
    else:
        otherwise = " (nothing in it can be gone on with), or remove it"
    return CatdogError(f"{run.folder} exists already; choose another --name{otherwise}")


def new_run(name: str | None, stem: str, root: Path = ROOT) -> Run:
    """Make a fresh run folder.

    Args:
        name: The folder's name; `None` takes the first free `STEM-1`, `STEM-2`, ...
        stem: See `name`.
        root: The folder that holds the runs.

    Raises:
        CatdogError: The name is taken, or the folder cannot be made.
    """
    number = 1
    while True:
        folder = root / (name or f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            if name is not None:
                raise _taken(Run(folder)) from error
            number += 1
        except OSError as error:
            raise CatdogError(
                f"cannot make the run folder {folder.absolute()}: {error.strerror}; "
                "change to a folder that you may write to"
            ) from error
        else:
            return Run(folder)
