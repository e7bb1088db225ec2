"""Run folders: their files, their lock, and how a later command finds them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from filelock import FileLock, Timeout

from catdog_edge.errors import CatdogError, ModelError
from catdog_edge.system.files import remove_leftovers, write_text
from catdog_edge.system.threads import MOST
from catdog_edge.training.config.recipe_schema import Bounds, bad_value, check_value
from catdog_edge.training.config.recipes import parse_yaml
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.open_dataset import open_dataset, open_datasets
from catdog_edge.training.data.source_groups import kept_apart
from catdog_edge.training.data.source_names import file_sources
from catdog_edge.training.data.splits import DEFAULT_SPLIT

ROOT = Path("runs")  # parent of the run folders, below the current folder
LOCK = ".lock"
FILES = (
    "args.yaml", "best.pt", "confusion.png", "curves.png", "data.png", "last.pt", "mistakes.png",
    "results.csv", "review.csv", "skipped.csv", "split.csv", "summary.json",
)  # fmt: skip
"""Files of a training run."""


class Run:
    """One run folder, for instance `runs/cat_dog-1`.

    Examples:
        >>> run = newest_run()
        >>> network, spec = load_checkpoint(run.weights)
        >>> first, *others = run.datasets()
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        self.weights = folder / "best.pt"  # the best
        self.last = folder / "last.pt"  # the newest, with the state that a resume needs
        self.split_csv = folder / "split.csv"  # the split of each image of the first data set
        self._args = folder / "args.yaml"

    @property
    def exists(self) -> bool:
        """Whether the folder is a run folder."""
        return self._args.is_file()

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
        """Whether the run is unfinished and has a `last.pt` to resume from."""
        return self.exists and self.last.is_file() and not self.finished

    @property
    def locked(self) -> bool:
        """Whether a process is training the run; false on a file system without locks."""
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
        """Lock the run for the duration of a block, and remove files of killed processes.

        Raises:
            CatdogError: Another process is training the run.
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
        """Read `args.yaml`, the options of the run; `data` is an absolute path or `sample`.

        Raises:
            CatdogError: The file is missing, damaged, or has an invalid value.
        """
        file = self._args
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
        if isinstance(document.get("other"), str):  # of an earlier version
            document["other"] = [document["other"]]
        try:
            for name in _KINDS.keys() & document.keys():
                document[name] = check_value(_KINDS[name], document[name], name)
            for name, (fits, wanted) in _CHECKS.items():
                value = document.get(name)
                if value is not None and not fits(value):
                    raise bad_value(name, value, wanted)
        except CatdogError as error:
            raise CatdogError(
                f"{file}: {error}; put back what was there, or train again"
            ) from error
        return document

    def settings(self) -> dict[str, Any]:
        """Read `args`; raises `CatdogError` if a value that a resume needs is missing."""
        args = self.args()
        for key in _NEEDED:
            if args.get(key) is None:
                raise CatdogError(f"{self._args}: {key} is missing; put it back, or train again")
        return args

    def write_args(self, args: dict[str, Any]) -> None:
        """Write `args.yaml`."""
        write_text(self._args, yaml.safe_dump(args, sort_keys=False, allow_unicode=True))

    def split_file(self, number: int) -> Path:
        """Return the file with the split of each image of a data set, counted from 0."""
        return self.folder / f"split-{number + 1}.csv" if number else self.split_csv

    def datasets(self) -> tuple[Dataset, ...]:
        """Open the run's data again, with the splits that the run recorded; see `open_datasets`."""
        return kept_apart(self._opened(self.args().get("limit")), self.left_out)

    def opened(self) -> tuple[Dataset, ...]:
        """Open `datasets` with all images of the sources that are left out, whatever the limit.

        Copies of images that the run was trained on are no test and stay out.
        """
        return self._opened(None)

    def _opened(self, limit: int | None) -> tuple[Dataset, ...]:
        """Open `datasets` with images left out: up to a limit, which is `None` or the run's."""
        args, left_out = self.args(), self.left_out
        sources = (args["data"], *(args.get("more_data") or ()))
        files = [self.split_file(number) for number in range(len(sources))]
        recorded = [file if file.is_file() else None for file in files]  # not all in older runs
        settings: dict[str, Any] = {
            "labels": args.get("labels"),
            "split": args.get("split") or DEFAULT_SPLIT,
            "limit": args.get("limit"),
            "seed": args.get("seed", 0),
            "keep_damaged": self.keep_damaged,
            # Without the sources left out, the first one may lack a class that another one has.
            "required": () if left_out else None,
        }
        if not left_out:
            return open_datasets(sources, split_csvs=recorded, **settings)
        every = open_datasets(sources, known=left_out, **settings | {"limit": limit})
        limited = every
        if settings["limit"] != limit and None in recorded:
            limited = open_datasets(sources, known=left_out, **settings)
        # The recorded split lacks what is left out, which counts for names and copies.
        settings["labels"] = every[0].labels
        recalled = [
            None if file is None else open_dataset(source, split_csv=file, **settings)
            for source, file in zip(sources, recorded)
        ]
        # A run with a limit did not see all copies of its training images.
        items = (item for one in recalled if one is not None for item in one.items)
        trained = {item.digest for item in items if item.split != "test"}
        found = []
        for one, two, again in zip(every, limited, recalled):
            used = two if again is None else again
            known, names = {item.file for item in used.items}, file_sources(one)
            out = (item for item in one.items if names[item.file] in left_out)
            new = (item for item in out if item.file not in known and item.digest not in trained)
            found.append(replace(one, items=(*used.items, *new), skipped=used.skipped))
        return tuple(found)

    @property
    def left_out(self) -> list[str]:
        """Names of the sources held out of training."""
        return list(self.args().get("leave_out") or ())

    @property
    def keep_damaged(self) -> bool:
        """Whether the run also uses images that the decoder reports as damaged."""
        return bool(self.args().get("keep_damaged"))

    @property
    def negatives(self) -> list[str]:
        """The values of `--other`."""
        return list(self.args().get("other") or ())


_Texts = tuple[str, ...] | None
_Whole = Annotated[int, Bounds(0, 2**64 - 1)]
_KINDS: dict[str, Any] = {
    "data": str, "more_data": _Texts, "leave_out": _Texts, "other": _Texts, "labels": _Texts,
    "split": tuple[_Whole, ...] | None, "limit": Annotated[int, Bounds(1, 2**64 - 1)] | None,
    "recipe": dict, "teacher": dict | None, "epochs": Annotated[int, Bounds(1, 1_000_000)],
    "batch_size": Annotated[int, Bounds(2, 1_000_000)], "lr": Annotated[float, Bounds(1e-9, 1e3)],
    "seed": _Whole, "patience": _Whole,
    "precision": Literal["float32", "bfloat16"], "device": str,
    "threads": Annotated[int, Bounds(1, MOST)],
}  # fmt: skip
"""The values of `args.yaml` that a command reads."""

_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "labels": (lambda names: 2 <= len(set(names)) == len(names), "expected two or more names"),
    "split": (
        lambda shares: len(shares) == 3 and sum(shares) == 100,
        "expected three shares that sum to 100",
    ),
    "teacher": (
        lambda one: all(isinstance(one.get(k), str) for k in ("file", "sha256")),
        "expected file and sha256",
    ),
}
"""What the kinds of values do not say."""

_NEEDED = (
    "labels", "epochs", "batch_size", "lr", "seed", "patience", "precision", "device", "recipe",
)  # fmt: skip
"""Values of `args.yaml` that a resume needs."""


def newest_unfinished(root: Path = ROOT) -> Run:
    """Return the unfinished run that was saved last and that no process is training.

    Raises:
        ModelError: There is none; the message says why.
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
    where, newest = root.absolute(), runs[0]
    if resumable:
        raise ModelError(
            f"{resumable[0].folder} is being trained by another process, and no other run under "
            f"{where} can be resumed; wait until it ends, or stop it first"
        )
    reason = f"no run under {where} can be resumed, {newest.name} has no last.pt"
    if newest.finished:
        reason = f"every run under {where} is finished, the newest is {newest.name}"
    raise ModelError(f"{reason}; start another with: catdog-edge train")


def newest_run(root: Path = ROOT) -> Run:
    """Return the run whose `best.pt` was written last; raises `ModelError` if there is none."""
    candidates = [found for found in root.glob("*/best.pt") if Run(found.parent).exists]
    if not candidates:
        raise ModelError(
            f"there is no trained model under {root.absolute()}; train one with: "
            "catdog-edge train, or name one with --weights"
        )
    return Run(max(candidates, key=lambda found: found.stat().st_mtime_ns).parent)


def find_checkpoint(named: Path | None) -> Path:
    """Return the checkpoint that `--weights` names: a file, or the `best.pt` of a run folder.

    `None` is that of the newest run. Raises `ModelError` if the file is missing.
    """
    if named is None:
        return newest_run().weights
    found = Run(named).weights if named.is_dir() else named
    if not found.is_file():
        kind = f"{named} is a folder without a best.pt" if named.is_dir() else ""
        raise ModelError(
            f"{kind or f'there is no checkpoint {found}'}; name the best.pt of a run, or its "
            "folder, with --weights"
        )
    return found


def run_of(weights: Path) -> Run | None:
    """Return the run folder that a file lies in, if it does."""
    run = Run(weights.resolve().parent)
    return run if run.exists else None


def check_name(name: str | None, root: Path = ROOT) -> None:
    """Raise `CatdogError` for a name that is taken."""
    if name is not None and os.path.lexists(root / name):
        raise _taken(Run(root / name))


def _taken(run: Run) -> CatdogError:
    if run.locked:
        otherwise = " (another process is training it)"
    elif run.exists and run.last.is_file():
        otherwise = f", or resume it: catdog-edge train --resume --name {shlex.quote(run.name)}"
    else:
        otherwise = " (nothing in it can be resumed), or remove it"
    return CatdogError(f"{run.folder} exists already; choose another --name{otherwise}")


def new_run(name: str | None, stem: str, root: Path = ROOT) -> Run:
    """Create a run folder; without a name the first free `STEM-1`, `STEM-2`, ...

    Raises `CatdogError` where the name is taken, or the folder cannot be created.
    """
    for number in itertools.count(1):
        folder = root / (name or f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
            return Run(folder)
        except FileExistsError as error:
            if name is not None:
                raise _taken(Run(folder)) from error
        except OSError as error:
            raise CatdogError(
                f"cannot make the run folder {folder.absolute()}: {error.strerror}; "
                "change to a folder that you may write to"
            ) from error
    raise AssertionError
