"""Run folders: their files, their lock, and how a later command finds them."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from catdog_edge.errors import CatdogError, ModelError
from catdog_edge.runtime.threads import MOST
from catdog_edge.system.files import remove_leftovers, write_text
from catdog_edge.training.config.recipe_schema import shorten
from catdog_edge.training.config.recipes import parse_yaml
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.open_dataset import open_dataset
from catdog_edge.training.data.source_groups import without_sources

ROOT = Path("runs")
"""Parent of the run folders, below the current folder."""

LOCK = ".lock"

FILES = (
    "args.yaml", "best.pt", "confusion.png", "curves.png", "data.png", "last.pt", "mistakes.png",
    "results.csv", "review.csv", "skipped.csv", "split.csv", "summary.json",
)  # fmt: skip
"""Files of a training run."""


class Run:
    """One run folder.

    Args:
        folder: For instance `runs/cat_dog-1`.

    Example:
        >>> run = newest_run()
        >>> network, spec = load_checkpoint(run.weights)
        >>> dataset = run.dataset()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def exists(self) -> bool:
        """Whether the folder is a run folder."""
        return (self.folder / "args.yaml").is_file()

    @property
    def weights(self) -> Path:
        """The best weights."""
        return self.folder / "best.pt"

    @property
    def last(self) -> Path:
        """The newest weights, with the state that a resume needs."""
        return self.folder / "last.pt"

    @property
    def split_csv(self) -> Path:
        """The split of each image."""
        return self.folder / "split.csv"

    @property
    def finished(self) -> bool:
        """Whether the summary was written after the last weights."""
        try:
            summary = (self.folder / "summary.json").stat().st_mtime_ns
            return not self.last.is_file() or summary >= self.last.stat().st_mtime_ns
        except OSError:
            return False

    @property
    def resumable(self) -> bool:
        """Whether there is something left to do, and a `last.pt` to resume from."""
        return self.exists and self.last.is_file() and not self.finished

    @property
    def locked(self) -> bool:
        """Whether a process is training it, where the file system can tell."""
        if not (self.folder / LOCK).is_file():
            return False
        try:
            with FileLock(self.folder / LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a file system without locks
            return False

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training the run for the duration of a block.

        Temporary files of killed processes are removed.

        Raises:
            CatdogError: Another process is training it.
        """
        with contextlib.ExitStack() as stack:
            try:
                # One that only looks whether it is locked holds the lock for an instant.
                stack.enter_context(FileLock(self.folder / LOCK, timeout=1))
            except Timeout as error:
                raise CatdogError(
                    f"{self.folder} is being trained by another process; wait until it ends, or "
                    "stop it first"
                ) from error
            except OSError:
                pass  # a file system without locks
            for name in FILES:
                remove_leftovers(self.folder / name)
            yield

    def args(self) -> dict[str, Any]:
        """Read what the run was started with; `data` is an absolute path or `sample`.

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
        """Read `args` and check that all that a resume needs is there.

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
        text = yaml.safe_dump(args, sort_keys=False, allow_unicode=True)
        write_text(self.folder / "args.yaml", text)

    def dataset(self, progress: Callable[[int, int], None] | None = None) -> Dataset:
        """Open the run's data again, with the split that the run recorded.

        Args:
            progress: Called with the number of images read and of all.

        Raises:
            DataError: The data is not where it was, or is damaged.
        """
        args = self.args()
        first = open_dataset(
            args["data"],
            labels=tuple(args["labels"]) if args.get("labels") else None,
            split=tuple(args.get("split") or (80, 10, 10)),
            limit=args.get("limit"),
            seed=args.get("seed", 0),
            split_csv=self.split_csv if self.split_csv.is_file() else None,
            progress=progress,
        )
        return without_sources(first, self.left_out)

    def more_datasets(
        self, progress: Callable[[int, int], None] | None = None
    ) -> tuple[Dataset, ...]:
        """Open the run's other data sets again, where it had several.

        Raises:
            DataError: See `dataset`.
        """
        args = self.args()
        opened = (
            open_dataset(
                source,
                labels=tuple(args["labels"]),
                split=tuple(args.get("split") or (80, 10, 10)),
                limit=args.get("limit"),
                seed=args.get("seed", 0),
                progress=progress,
                required=("train",),
                keep_damaged=bool(args.get("keep_damaged")),
            )
            for source in args.get("more_data") or ()
        )
        return tuple(without_sources(one, self.left_out) for one in opened)

    @property
    def left_out(self) -> list[str]:
        """The sources that the run was not to see."""
        return list(self.args().get("leave_out") or ())

    @property
    def negatives(self) -> list[str]:
        """The values of `--other`."""
        return as_list(self.args().get("other"))


def as_list(value: Any) -> list[str]:
    """A value of `args.yaml` that is null, text or, of a newer version, a list of texts."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _whole(low: int, high: int = 2**64 - 1) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _labels(value: Any) -> bool:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        return value is None
    return len(value) >= 2 and len(set(value)) == len(value)


def _texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _split(value: Any) -> bool:
    if not isinstance(value, list) or not all(map(_whole(0, 100), value)):
        return value is None
    return len(value) == 3 and sum(value) == 100


def _rate(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= sys.float_info.max


def _teacher(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and all(isinstance(value.get(k), str) for k in ("file", "sha256"))
    )


_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "data": (lambda value: isinstance(value, str) and value != "", "a path or sample"),
    "labels": (_labels, "a list of two or more different names"),
    "split": (_split, "a list of three shares that sum to 100"),
    "limit": (lambda value: value is None or _whole(1)(value), "a whole number above 0, or null"),
    "more_data": (lambda value: _texts(value), "a list of paths"),
    "leave_out": (lambda value: _texts(value), "a list of names"),
    "other": (
        lambda value: isinstance(value, str) or _texts(value),
        "a path, drawn, a list of these, or null",
    ),
    "epochs": (_whole(1), "a whole number above 0"),
    "batch_size": (_whole(2), "a whole number above 1"),
    "lr": (_rate, "a number above 0 (of the form 1.0e-3)"),  # YAML 1.1 reads 1e-3 as text
    "seed": (_whole(0), "a whole number"),
    "patience": (_whole(0), "a whole number"),
    "precision": (lambda value: value in ("float32", "bfloat16"), "float32 or bfloat16"),
    "device": (lambda value: isinstance(value, str), "cpu, cuda or cuda:NUMBER"),
    "threads": (_whole(1, MOST), f"a whole number in 1..{MOST}"),
    "teacher": (_teacher, "null, or file and sha256"),
    "recipe": (lambda value: isinstance(value, dict), "a table of values"),
}
"""The values of `args.yaml` that a command reads: their check and its description."""

_NEEDED = (
    "labels", "epochs", "batch_size", "lr", "seed", "patience", "precision", "device", "recipe",
)  # fmt: skip
"""Values of `args.yaml` that a resume needs."""


def newest_unfinished(root: Path = ROOT) -> Run:
    """Return the unfinished run that was started or saved last and that no process is training.

    Raises:
        ModelError: There is none.
    """
    runs = [Run(found.parent) for found in root.glob("*/args.yaml")]
    if not runs:
        raise ModelError(
            f"there is no run under {root.absolute()}; train one with: catdog-edge train"
        )

    def modified(run: Run) -> int:
        files = (run.folder / "args.yaml", run.last)
        return max(file.stat().st_mtime_ns for file in files if file.is_file())

    runs.sort(key=modified, reverse=True)
    resumable = [run for run in runs if run.resumable]
    for run in resumable:
        if not run.locked:
            return run
    if resumable:
        raise ModelError(
            f"{resumable[0].folder} is being trained by another process, and no other run under "
            f"{root.absolute()} can be resumed; wait until it ends, or stop it first"
        )
    if not runs[0].finished:
        raise ModelError(
            f"no run under {root.absolute()} can be resumed, {runs[0].name} has no last.pt; "
            "start another with: catdog-edge train"
        )
    raise ModelError(
        f"every run under {root.absolute()} is finished, the newest is {runs[0].name}; "
        "start another with: catdog-edge train"
    )


def newest_run(root: Path = ROOT) -> Run:
    """Return the run whose best weights were written last.

    Raises:
        ModelError: There is none.
    """
    candidates = [found for found in root.glob("*/best.pt") if Run(found.parent).exists]
    if not candidates:
        raise ModelError(
            f"there is no trained model under {root.absolute()}; train one with: "
            "catdog-edge train, or name one with --weights"
        )
    return Run(max(candidates, key=lambda found: found.stat().st_mtime_ns).parent)


def run_of(weights: Path) -> Run | None:
    """Return the run folder that a file lies in, if it does."""
    run = Run(weights.resolve().parent)
    return run if run.exists else None


def check_name(name: str | None, root: Path = ROOT) -> None:
    """Reject a name that `new_run` would not take.

    Raises:
        CatdogError: It is taken.
    """
    if name is not None and os.path.lexists(root / name):
        raise _taken(Run(root / name))


def _taken(run: Run) -> CatdogError:
    if run.locked:
        otherwise = " (another process is training it)"
    elif run.exists and run.last.is_file():
        name = shlex.quote(run.name)
        otherwise = f", or resume it: catdog-edge train --resume --name {name}"
    else:
        otherwise = " (nothing in it can be resumed), or remove it"
    return CatdogError(f"{run.folder} exists already; choose another --name{otherwise}")


def new_run(name: str | None, stem: str, root: Path = ROOT) -> Run:
    """Create a run folder.

    Args:
        name: The folder's name; `None` takes the first free `STEM-1`, `STEM-2`, ...
        stem: See `name`.
        root: Its parent.

    Raises:
        CatdogError: The name is taken, or the folder cannot be created.
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
