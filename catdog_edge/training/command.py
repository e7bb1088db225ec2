"""What `catdog-edge train` and `catdog-edge eval` do, from options to files and words.

Joins the rooms of training; knows nothing of click's options. Words go to stderr.
"""

from __future__ import annotations

import platform
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from catdog_edge import __version__
from catdog_edge.errors import CatdogError
from catdog_edge.spec import ModelSpec, squash
from catdog_edge.training import loop
from catdog_edge.training.checkpoint import load_checkpoint
from catdog_edge.training.data import Dataset, open_dataset, pixels
from catdog_edge.training.evaluate import Evaluation, Weights, check_labels, evaluate
from catdog_edge.training.models import architecture
from catdog_edge.training.overview import save_overview
from catdog_edge.training.processors import torch_threads
from catdog_edge.training.progress import Progress, Reading
from catdog_edge.training.recipes import recipe
from catdog_edge.training.results import finish
from catdog_edge.training.runs import Run, new_run, newest_run, run_of
from catdog_edge.training.words import say, source_name


@dataclass(frozen=True)
class TrainOptions:
    """The options of `catdog-edge train`; `None` leaves the choice to the recipe."""

    data: str | None
    labels: tuple[str, ...] | None
    split: tuple[int, int, int]
    limit: int | None
    arch: str
    recipe: str | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    name: str | None
    seed: int
    patience: int
    device: str
    precision: str


def train(options: TrainOptions) -> Run:
    """Train from fresh weights, into a new run folder.

    Raises:
        CatdogError: The data, the device or a folder is not what it must be, the loss
            diverged, or the run was interrupted (it says how to go on).
    """
    with torch_threads() as threads:
        return _train(options, threads)


def _train(options: TrainOptions, threads: int) -> Run:
    device = choose_device(options.device)
    arch = architecture(options.arch)
    chosen = recipe(options.recipe or arch.recipe)
    steps = squash(arch.size, arch.size)
    dataset = open_dataset(
        options.data,
        labels=options.labels,
        split=options.split,
        limit=options.limit,
        seed=options.seed,
        steps=steps,
        progress=Reading(),
    )
    describe(dataset)
    train_set = pixels(dataset, "train", steps)
    batch_size = options.batch_size or chosen.batch_size
    spec = ModelSpec(
        architecture=arch.name,
        labels=dataset.labels,
        height=arch.size,
        width=arch.size,
        resize=steps,
        normalization=arch.normalization,
        tool_version=__version__,
        git_commit=git_commit(),
    )
    torch.manual_seed(options.seed)
    network = arch.build(len(dataset.labels))
    precision = options.precision
    if precision == "auto":
        precision, gain = loop.choose_precision(
            network, spec, train_set[0][: min(loop.trial_batch(arch.size), batch_size)], device
        )
        say(f"train: {precision} (a bfloat16 step was timed {gain:.2f} times as fast as float32)")
    plan = loop.Plan(
        recipe=chosen,
        epochs=options.epochs or chosen.epochs_for(len(train_set[1]), batch_size),
        batch_size=batch_size,
        lr=options.lr or chosen.lr * min(1.0, batch_size / chosen.batch_size),
        seed=options.seed,
        patience=options.patience,
        precision=precision,
        device=device,
    )
    run = new_run(options.name, f"{Path(dataset.source).stem}-{arch.name}")
    spec = spec.replace(trained_on=_trained_on(dataset, plan))
    save_overview(run.folder / "data.png", dataset)
    dataset.write_split_csv(run.split_csv)
    dataset.write_skipped_csv(run.folder / "skipped.csv")
    run.write_args(_args(dataset, options, plan, threads))
    passes = f"{plan.epochs} epoch{'s' * (plan.epochs != 1)}"
    say(
        f"train: {arch.name}, recipe {chosen.name}, {passes}, batch {batch_size}, "
        f"learning rate {plan.lr:g}, {precision} on {device}, into {run.folder}"
    )
    return _fit(run, dataset, spec, plan, network, resume=False)


def resume(name: str | None, device: str) -> Run:
    """Go on with an interrupted run, with the settings it was started with.

    Args:
        name: The run's name below `runs/`; `None` takes the newest.
        device: Where to train; the result is the same figures only on the same device.

    Raises:
        CatdogError: There is no such run, or nothing is left to do, or see `train`.
    """
    run = Run(Path("runs") / name) if name else newest_run(file="last.pt")
    args = run.args()
    if not run.last.is_file():
        raise CatdogError(
            f"{run.folder} has no last.pt to go on from; start again with: catdog-edge train"
        )
    dataset = run.dataset(progress=Reading())
    network, spec = load_checkpoint(run.last)
    plan = loop.Plan(
        recipe=recipe(args["recipe"]),
        epochs=args["epochs"],
        batch_size=args["batch_size"],
        lr=args["lr"],
        seed=args["seed"],
        patience=args["patience"],
        precision=args["precision"],
        device=choose_device(args["device"] if device == "auto" else device),
    )
    say(f"train: going on with {run.folder}")
    describe(dataset)
    with torch_threads(args.get("threads")):
        return _fit(run, dataset, spec, plan, network, resume=True)


def evaluate_weights(weights: Path | None, data: str | None) -> tuple[Evaluation, Path]:
    """Measure a checkpoint or an ONNX file on a test split.

    Args:
        weights: A `.pt` or `.onnx` file; `None` takes `best.pt` of the newest run.
        data: A folder, a `.zip` or `sample`; `None` takes the data and the split of the run
            that the weights lie in.

    Raises:
        CatdogError: Weights or data are missing, damaged, or do not fit each other.
    """
    run = run_of(weights) if weights else newest_run()
    path = weights or newest_run().weights
    model = Weights(path)
    if data is not None or run is None:
        dataset = open_dataset(data, progress=Reading())
    else:
        dataset = run.dataset(progress=Reading())
    check_labels(model.spec, dataset.labels, path, dataset.source)
    pictures, truth, _ = pixels(dataset, "test", model.spec.resize)
    say(f"eval: {path} on the {len(truth):,} test pictures of {source_name(dataset)}")
    return evaluate(model.probabilities(pictures), truth, model.spec.labels), path


def choose_device(name: str) -> str:
    """`auto` is CUDA where it works, else the CPU.

    Raises:
        CatdogError: CUDA was asked for by name and is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        build = "is built without CUDA" if torch.version.cuda is None else "finds no CUDA device"
        raise CatdogError(
            f"--device {name}: PyTorch {torch.__version__} {build}; "
            "train with --device cpu, or mend the driver (nvidia-smi tells whether it works)"
        )
    return name


def describe(dataset: Dataset) -> None:
    """Say what the data is."""
    for line in dataset.describe():
        say(line)


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


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one acts at once."""
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        asked.set()
        signal.signal(number, before[signal.Signals(number)])
        say("\nstopping after this step (again: at once)")

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fit(
    run: Run,
    dataset: Dataset,
    spec: ModelSpec,
    plan: loop.Plan,
    network: torch.nn.Module,
    *,
    resume: bool,
) -> Run:
    train_pixels, train_labels, _ = pixels(dataset, "train", spec.resize)
    val_pixels, val_labels, val_items = pixels(dataset, "val", spec.resize)
    trainer = loop.Trainer(
        network, spec, plan, (train_pixels, train_labels), (val_pixels, val_labels), run.folder
    )
    if resume:
        trainer.restore(run.last)
        if trainer.finished:
            say(f"train: {run.folder} has done its {trainer.epoch} epochs; nothing left to train")
        else:
            say(f"train: at epoch {trainer.epoch + 1}, step {trainer.step + 1}")
    progress = Progress(plan.epochs)
    with stop_requests() as asked:
        finished = trainer.run(asked.is_set, progress.step, progress.epoch)
    if not finished:
        raise CatdogError(
            f"stopped in epoch {trainer.epoch + 1} of {plan.epochs}; all is saved, go on with: "
            f"catdog-edge train --resume --name {run.name}"
        )
    finish(run, dataset, trainer, (val_pixels, val_labels), [item.file for item in val_items])
    return run


def _trained_on(dataset: Dataset, plan: loop.Plan) -> dict[str, Any]:
    # The name alone: the path of this machine is nobody's business on the device.
    return {
        "data": "sample" if dataset.is_sample else Path(dataset.source).name,
        "drawings": dataset.is_sample,
        "pictures": {side: sum(n.values()) for side, n in dataset.counts().items()},
        "recipe": plan.recipe.name,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "lr": plan.lr,
        "seed": plan.seed,
        "precision": plan.precision,
    }


def _args(dataset: Dataset, options: TrainOptions, plan: loop.Plan, threads: int) -> dict[str, Any]:
    return {
        "data": dataset.source,
        "labels": list(dataset.labels),
        "split": list(options.split),
        "limit": options.limit,
        "arch": options.arch,
        "recipe": plan.recipe.name,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "lr": plan.lr,
        "seed": plan.seed,
        "patience": plan.patience,
        "precision": plan.precision,
        "device": plan.device,
        "threads": threads,
        "command": shlex.join(["catdog-edge", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "catdog_edge": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
