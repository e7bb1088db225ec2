"""Where weights come from: what `args.yaml` keeps of a run, and what travels with the weights."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from catdog_edge import __version__
from catdog_edge.training.config.options import TrainOptions
from catdog_edge.training.data.dataset import Dataset
from catdog_edge.training.data.negatives import DRAWN, Negatives
from catdog_edge.training.data.splits import DEFAULT_SPLIT
from catdog_edge.training.engine.distillation import Teacher
from catdog_edge.training.engine.distributed import Ranks
from catdog_edge.training.engine.trainer import Plan


def git_commit() -> str:
    """The commit of the checkout that this package runs from; empty where it is installed."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def trained_on(
    dataset: Dataset,
    plan: Plan,
    teacher: Teacher | None,
    others: Negatives | None,
    split: tuple[int, int, int],
) -> dict[str, Any]:
    """What the spec says of the training; it travels with the weights."""
    # The name alone: the path of this machine is nobody's business on the device.
    return {
        "data": "sample" if dataset.is_sample else Path(dataset.source).name,
        "drawings": dataset.is_sample,
        "pictures": {side: sum(n.values()) for side, n in dataset.counts().items()},
        # Who measures elsewhere must not test on what was learnt.
        **({"split": list(split)} if split != DEFAULT_SPLIT else {}),
        "recipe": plan.recipe.name,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "lr": plan.lr,
        "seed": plan.seed,
        "precision": plan.precision,
        **({"pretrained": True} if plan.recipe.pretrained else {}),
        **({"freeze": True} if plan.recipe.freeze else {}),
        **({"teacher": teacher.spec.architecture} if teacher else {}),
        **({"other": others.name} if others else {}),
    }


def arguments(
    dataset: Dataset,
    options: TrainOptions,
    plan: Plan,
    threads: int,
    teacher: Teacher | None,
    me: Ranks,
) -> dict[str, Any]:
    """What `args.yaml` keeps: all that a resume needs, and what a person wants to look up.

    Args:
        dataset: What is trained on.
        options: What was asked for.
        plan: What it came to.
        threads: Of PyTorch.
        teacher: The one of `options.teacher`.
        me: This process among those that train together.
    """
    other = options.other
    if other is not None and other != DRAWN:
        other = str(Path(other).resolve())
    known = None
    if options.teacher and teacher:
        known = {"file": str(options.teacher.resolve()), "sha256": teacher.digest}
    return {
        "data": dataset.source,
        "labels": list(dataset.labels),
        "split": list(options.split),
        "limit": options.limit,
        "other": other,
        "arch": options.arch,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "lr": plan.lr,
        "seed": plan.seed,
        "patience": plan.patience,
        "precision": plan.precision,
        "device": plan.device,
        "threads": threads,
        "processes": me.processes,
        "teacher": known,
        "command": shlex.join(["catdog-edge", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "catdog_edge": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "recipe": plan.recipe.to_dict(),
    }
