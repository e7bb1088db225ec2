"""Run folders: where a training run keeps its files, and how a later command finds them.

Knows the names of the files and what `args.yaml` says, nothing of training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from catdog_edge.errors import CatdogError, ModelError
from catdog_edge.files import write_text
from catdog_edge.training.data import Dataset, open_dataset

ROOT = Path("runs")
"""Where `train` makes run folders, below the current folder."""


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
    def split_csv(self) -> Path:
        """Which picture is on which side."""
        return self.folder / "split.csv"

    def args(self) -> dict[str, Any]:
        """What the run was started with; `data` is an absolute path or `sample`.

        Raises:
            CatdogError: `args.yaml` is missing or damaged.
        """
        file = self.folder / "args.yaml"
        try:
            document = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise CatdogError(
                f"{self.folder} is not a run folder ({file.name}: {error.strerror}); "
                "make one with: catdog-edge train"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise CatdogError(f"{file} is damaged; train again") from error
        if not isinstance(document, dict) or "data" not in document:
            raise CatdogError(f"{file} is damaged (it names no data); train again")
        return document

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


def newest_run(root: Path = ROOT, file: str = "best.pt") -> Run:
    """The run whose weights were written last.

    Args:
        root: The folder that holds the runs.
        file: `best.pt`, or `last.pt` for a run that can be resumed.

    Raises:
        ModelError: There is none.
    """
    candidates = [found for found in root.glob(f"*/{file}") if Run(found.parent).is_one]
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
                raise CatdogError(
                    f"{folder} exists already; choose another --name, or go on with it: "
                    f"catdog-edge train --resume --name {name}"
                ) from error
            number += 1
        except OSError as error:
            raise CatdogError(
                f"cannot make the run folder {folder.absolute()}: {error.strerror}; "
                "change to a folder that you may write to"
            ) from error
        else:
            return Run(folder)
