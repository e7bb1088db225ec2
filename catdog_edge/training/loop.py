"""The training loop: batches in, `best.pt`, `last.pt` and `results.csv` out.

Knows nothing of where pictures come from, nor of how progress is shown. Everything random
depends on seed, epoch and step alone, so that a resumed run repeats what an uninterrupted
one would have done.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from catdog_edge.errors import CatdogError
from catdog_edge.files import write_text
from catdog_edge.spec import ModelSpec
from catdog_edge.training.batches import batches, steps_per_epoch
from catdog_edge.training.checkpoint import read_checkpoint, save_checkpoint
from catdog_edge.training.inference import logits, softmax, to_input
from catdog_edge.training.metrics import log_loss
from catdog_edge.training.muon import Muon
from catdog_edge.training.recipes import Recipe

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """A recipe with every value settled, for one run."""

    recipe: Recipe
    epochs: int
    batch_size: int
    lr: float
    seed: int
    patience: int
    precision: str
    device: str


@dataclass(frozen=True)
class EpochRow:
    """One line of `results.csv`. The training figures are those of the augmented pictures."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    pictures_per_second: float


@dataclass(frozen=True)
class StepReport:
    """What is known after a step; `loss` and `accuracy` are means over the epoch so far."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    pictures_per_second: float
    seconds_left: float


class Trainer:
    """One training run.

    Args:
        network: Fresh weights, or weights to go on from.
        spec: Describes the network; what it was trained on is filled in already.
        plan: The settled recipe.
        train: Pictures `uint8 [N,H,W,3]` BGR and labels `int64 [N]`.
        val: The same, for choosing the best epoch.
        folder: The run folder.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: ModelSpec,
        plan: Plan,
        train: tuple[Pixels, Labels],
        val: tuple[Pixels, Labels],
        folder: Path,
    ) -> None:
        self.device = torch.device(plan.device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.network).eval() if plan.recipe.ema else None
        self.spec, self.plan, self.folder = spec, plan, folder
        self.train, self.val = train, val
        self.optimizer = make_optimizer(self.network, plan.recipe, plan.lr)
        self.loss = nn.CrossEntropyLoss(label_smoothing=plan.recipe.label_smoothing)
        self.steps = steps_per_epoch(len(train[1]), plan.batch_size)
        self.epoch = self.step = self.seen = self.correct = 0
        self.loss_sum = self.seconds = 0.0
        self.rows: list[EpochRow] = []

    @property
    def finished(self) -> bool:
        """All epochs are done, or `patience` epochs went by without a better one."""
        if self.epoch >= self.plan.epochs:
            return True
        best = self.best_epoch()
        return bool(self.plan.patience and best and self.epoch - best.epoch >= self.plan.patience)

    def best_epoch(self) -> EpochRow | None:
        """The epoch whose weights are in `best.pt`: highest accuracy, then lowest loss."""
        return max(self.rows, key=lambda row: (row.val_accuracy, -row.val_loss), default=None)

    def run(
        self,
        stop: Callable[[], bool],
        on_step: Callable[[StepReport], None],
        on_epoch: Callable[[EpochRow, bool], None],
    ) -> bool:
        """Train until finished or stopped.

        Args:
            stop: Asked after every step; where it says yes, the state is saved and the run
                can be resumed from that very step.
            on_step: Called after every step.
            on_epoch: Called after every epoch with its row and whether it is the best so far.

        Returns:
            Whether the run is finished.

        Raises:
            CatdogError: The loss is not finite any more, or a file cannot be written.
        """
        while not self.finished:
            if not self._run_epoch(stop, on_step):
                self.save()
                return False
            row = self._close_epoch()
            on_epoch(row, row is self.best_epoch())
            if stop() and not self.finished:
                return False
        return True

    def save(self) -> None:
        """Write `last.pt`: weights that can be used, and all that a resume needs."""
        training = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rows": [dataclasses.asdict(row) for row in self.rows],
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        save_checkpoint(self.folder / "last.pt", self._kept_weights(), self.spec, training)

    def restore(self, path: Path) -> None:
        """Go on from a `last.pt`.

        Raises:
            ModelError: The file is damaged.
            CatdogError: It holds no state to go on from.
        """
        document, _ = read_checkpoint(path)
        training = document.get("training")
        if training is None:
            raise CatdogError(f"{path} holds no training state; only last.pt can be resumed")
        self.network.load_state_dict(training["network"])
        if self.averaged is not None:
            self.averaged.load_state_dict(document["state_dict"])
        self.optimizer.load_state_dict(training["optimizer"])
        self.rows = [EpochRow(**row) for row in training["rows"]]
        for name in _COUNTERS:
            setattr(self, name, training[name])

    def _run_epoch(self, stop: Callable[[], bool], on_step: Callable[[StepReport], None]) -> bool:
        self.network.train()
        source = batches(
            *self.train,
            batch_size=self.plan.batch_size,
            policy=self.plan.recipe.augment,
            seed=self.plan.seed,
            epoch=self.epoch,
            first_step=self.step,
        )
        started = time.perf_counter()
        for pixels, labels in source:
            self._train_step(pixels, labels)
            now = time.perf_counter()
            self.seconds += now - started  # waiting for the batch is part of it
            started = now
            on_step(self._report())
            if self.step < self.steps and stop():
                source.close()
                return False
        return True

    def _train_step(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        total = self.plan.epochs * self.steps
        position = self.epoch * self.steps + self.step
        # Dropout draws from torch's own generator.
        torch.manual_seed(self.plan.seed * 1_000_003 + position)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr * self.plan.recipe.rate(position, total)
        labels = labels.to(self.device)
        inputs = to_input(pixels.to(self.device), self.spec.normalization)
        with autocast(self.device, self.plan.precision):
            outputs = self.network(inputs)
        loss = self.loss(outputs.float(), labels)
        if not math.isfinite(loss.item()):
            raise CatdogError(
                f"the loss is not finite in epoch {self.epoch + 1}, step {self.step + 1}; the "
                f"weights so far are in {self.folder}; train again with a lower --lr"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.averaged is not None:
            # While few steps are done the average would hold on to the random start.
            decay = min(self.plan.recipe.ema, (1 + position) / (10 + position))
            update_average(self.averaged, self.network, decay)
        self.step += 1
        self.seen += len(labels)
        self.loss_sum += loss.item() * len(labels)
        self.correct += int((outputs.argmax(1) == labels).sum())

    def _report(self) -> StepReport:
        speed = self.seen / max(self.seconds, 1e-9)
        left = (self.plan.epochs - self.epoch) * len(self.train[1]) - self.seen
        return StepReport(
            epoch=self.epoch + 1,
            step=self.step,
            steps=self.steps,
            loss=self.loss_sum / self.seen,
            accuracy=self.correct / self.seen,
            pictures_per_second=speed,
            seconds_left=left / speed,
        )

    def _close_epoch(self) -> EpochRow:
        values = logits(
            self.averaged if self.averaged is not None else self.network,
            self.spec.normalization,
            self.val[0],
            device=self.device,
        )
        row = EpochRow(
            epoch=self.epoch + 1,
            lr=self.optimizer.param_groups[0]["lr"],
            train_loss=self.loss_sum / self.seen,
            train_accuracy=self.correct / self.seen,
            val_loss=float(log_loss(softmax(values), self.val[1])),
            val_accuracy=float((values.argmax(1) == self.val[1]).mean()),
            seconds=self.seconds,
            pictures_per_second=self.seen / max(self.seconds, 1e-9),
        )
        self.rows.append(row)
        self.epoch += 1
        self.step = self.seen = self.correct = 0
        self.loss_sum = self.seconds = 0.0
        # best.pt first: a run killed between the two repeats this epoch and writes it again.
        if row is self.best_epoch():
            save_checkpoint(self.folder / "best.pt", self._kept_weights(), self.spec)
        self.save()
        write_results(self.folder / "results.csv", self.rows)
        return row

    def _kept_weights(self) -> dict[str, torch.Tensor]:
        kept = self.averaged if self.averaged is not None else self.network
        return dict(kept.state_dict())


_COUNTERS = ("epoch", "step", "seen", "correct", "loss_sum", "seconds")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a forward pass runs at `float32` or `bfloat16`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def make_optimizer(network: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """The recipe's optimiser; biases and normalisation layers get no weight decay.

    Under Muon the convolutions and hidden layers take orthogonal steps; the last layer, what
    has one dimension, and depthwise convolutions (nothing to orthogonalise) take AdamW's.
    """
    parameters = list(network.parameters())
    last = [parameter for parameter in parameters if parameter.ndim >= 2][-1:]
    hidden, plain, small = [], [], []
    for parameter in parameters:
        depthwise = parameter.ndim == 4 and parameter.shape[1] == 1
        if parameter.ndim < 2:
            small.append(parameter)
        elif depthwise or any(parameter is one for one in last):
            plain.append(parameter)
        else:
            hidden.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": hidden, "weight_decay": recipe.weight_decay, "orthogonal": True},
        {"params": plain, "weight_decay": recipe.weight_decay, "orthogonal": False},
        {"params": small, "weight_decay": 0.0, "orthogonal": False},
    ]
    if recipe.optimizer == "muon":
        return Muon(groups, lr=lr, momentum=recipe.momentum)
    for group in groups:
        del group["orthogonal"]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.Adam(groups, lr=lr)


@torch.no_grad()
def update_average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an exponential moving average of the weights one step, batch-norm figures included."""
    current = network.state_dict()
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])


def trial_batch(size: int) -> int:
    """Pictures of `size` x `size` for `choose_precision`: enough to be typical, done in seconds."""
    return max(8, 64 * 128 * 128 // (size * size))


def choose_precision(
    network: nn.Module, spec: ModelSpec, pixels: Pixels, device: str
) -> tuple[str, float]:
    """Time a few training steps in float32 and in bfloat16, in turns, and name the faster.

    bfloat16 pays on processors with matrix units and costs time elsewhere, also from one
    network to the next; nothing short of trying tells.

    Args:
        network: Left as it is: a copy is trained.
        spec: Describes the network.
        pixels: `uint8 [N,H,W,3]`: a small batch to try with.
        device: Where to train.

    Returns:
        `float32` or `bfloat16` (only where it is at least 10 % faster), and how many times
        faster bfloat16 was.
    """
    place = torch.device(device)
    trial = copy.deepcopy(network).to(place).to(memory_format=torch.channels_last).train()
    inputs = to_input(torch.from_numpy(np.array(pixels)).to(place), spec.normalization)
    spent: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for attempt in range(5):
        for precision, times in spent.items():
            started = time.perf_counter()
            with autocast(place, precision):
                outputs = trial(inputs)
            outputs.float().square().mean().backward()
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            if attempt:  # the first is warm-up
                times.append(time.perf_counter() - started)
            trial.zero_grad(set_to_none=True)
    gain = float(np.median(spent["float32"]) / np.median(spent["bfloat16"]))
    return ("bfloat16" if gain > 1.1 else "float32"), gain


def write_results(path: Path, rows: list[EpochRow]) -> None:
    """Write `results.csv`: a row an epoch."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(EpochRow)])
    for row in rows:
        writer.writerow(
            [f"{value:.6g}" if isinstance(value, float) else value for value in vars(row).values()]
        )
    write_text(path, stream.getvalue())
