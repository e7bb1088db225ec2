"""The provenance of weights: `args.yaml` of a run, and `trained_on` of the spec."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from catdog_edge.system.version import __version__
from catdog_edge.training.config.train_options import TrainOptions
from catdog_edge.training.data.open_dataset import NEGATIVES_SPLIT
from catdog_edge.training.data.splits import DEFAULT_SPLIT
from catdog_edge.training.engine.distillation import Teacher
from catdog_edge.training.engine.trainer import Plan, Trainer
from catdog_edge.training.runs.run_data import RunData


def git_commit() -> str:
    """Return the commit of the checkout that this package runs from; empty if installed."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def trained_on(
    data: RunData, plan: Plan, teacher: Teacher | None, options: TrainOptions
) -> dict[str, Any]:
    """Return the spec's `trained_on`, without paths of this machine."""
    negatives, datasets = data.negatives, data.datasets
    names = ["sample" if one.is_sample else Path(one.source).name for one in datasets]
    counts = [one.counts() for one in datasets]
    split = options.split
    return {
        "data": ", ".join(names),
        "drawings": datasets[0].is_sample,
        "pictures": {side: sum(sum(one[side].values()) for one in counts) for side in counts[0]},
        **({"left_out": list(options.leave_out)} if options.leave_out else {}),
        # For a later test on the same data: nothing that was trained on may be in it.
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
        **({"other": negatives.name, "other_split": list(NEGATIVES_SPLIT)} if negatives else {}),
        **({"reject_at": options.reject_at} if negatives else {}),
    }


def arguments(
    data: RunData, options: TrainOptions, trainer: Trainer, machine: Mapping[str, int]
) -> dict[str, Any]:
    """Return the content of `args.yaml`: settings for a resume, and further information."""
    plan, teacher, datasets = trainer.plan, None, data.datasets
    if options.teacher and trainer.teacher:
        teacher = {"file": str(options.teacher.resolve()), "sha256": trainer.teacher.sha256}
    return {
        "data": datasets[0].source,
        "more_data": [one.source for one in datasets[1:]],
        "leave_out": list(options.leave_out),
        "labels": list(datasets[0].labels),
        "split": list(options.split),
        "limit": options.limit,
        "keep_damaged": options.keep_damaged,
        "other": data.negatives.sources if data.negatives else None,
        "reject_at": options.reject_at,
        "arch": options.arch,
        **{name: value for name, value in vars(plan).items() if name != "recipe"},
        **machine,
        "teacher": teacher,
        "command": shlex.join(["catdog-edge", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "catdog_edge": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "recipe": plan.recipe.to_dict(),
    }
