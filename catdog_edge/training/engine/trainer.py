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
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from catdog_edge.errors import CatdogError
from catdog_edge.spec import ModelSpec
from catdog_edge.system.files import write_text
from catdog_edge.training.config.recipes import Recipe
from catdog_edge.training.data.negatives import NegativeSampler
from catdog_edge.training.engine.allocator import kept_freed_memory
from catdog_edge.training.engine.batches import Batch, batches, steps_per_epoch
from catdog_edge.training.engine.distillation import Teacher, distillation_loss
from catdog_edge.training.engine.distributed import Ranks
from catdog_edge.training.engine.optim import make_optimizer, update_average
from catdog_edge.training.engine.precision import autocast
from catdog_edge.training.evaluation.inference import logits, to_input
from catdog_edge.training.evaluation.metrics import log_loss, softmax
from catdog_edge.training.models.batch_norm import (
    add_batch_norms,
    fold_batch_norms,
    freeze_batch_norms,
    freeze_features,
)
from catdog_edge.training.models.checkpoint import read_checkpoint, save_checkpoint

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

ALONE = Ranks()

SAVE_EVERY = 120.0
"""Seconds of a long epoch after which `last.pt` is written: what a kill costs at most."""


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


def best_of(rows: Sequence[EpochRow], pictures: int) -> EpochRow | None:
    """The epoch to keep: the lowest validation loss, where accuracy is as good as the best.

    Accuracies within one standard error of the highest so far count as alike: on two thousand
    pictures one right answer more is chance, and the loss sees how sure every answer is (the
    one-standard-error rule of Breiman and others: Classification and Regression Trees, 1984).
    Decided epoch by epoch, so that the weights of the one that is kept are there.

    Args:
        rows: In the order of the epochs.
        pictures: How many were validated on.
    """
    best: EpochRow | None = None
    highest = 0.0
    for row in rows:
        highest = max(highest, row.val_accuracy)
        enough = highest - math.sqrt(highest * (1 - highest) / pictures)
        if row.val_accuracy < enough:
            continue
        if best is None or best.val_accuracy < enough or row.val_loss < best.val_loss:
            best = row
    return best


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
        train: Pictures `uint8 [N,H,W,3]` BGR, of the recipe's `detail` times the network's
            size, and labels `int64 [N]`.
        val: The same, at the network's size, for choosing the best epoch.
        folder: The run folder; of several processes the first alone writes into it.
        teacher: Whose answers the network learns from as well.
        me: This process among those that train together.
        others: Pictures of none of the classes; the network has a logit for them, the last.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: ModelSpec,
        plan: Plan,
        train: tuple[Pixels, Labels],
        val: tuple[Pixels, Labels],
        folder: Path,
        teacher: Teacher | None = None,
        me: Ranks = ALONE,
        others: NegativeSampler | None = None,
    ) -> None:
        self.device = torch.device(plan.device)
        if plan.recipe.norms == "folded":
            network = add_batch_norms(network)
        if plan.recipe.freeze:
            freeze_features(network)
        if self.device.type == "cuda" and not me.alone:
            # Each process sees a part of the batch; the statistics are those of the whole.
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.network).eval() if plan.recipe.ema else None
        self._answer = self.network if me.alone else DistributedDataParallel(self.network)
        self.teacher, self._me, self._others = teacher, me, others
        self._saved = time.monotonic()
        self._classes = len(spec.labels)
        self._said: dict[tuple[int, int], torch.Tensor] = {}
        self.spec, self.plan, self.folder = spec, plan, folder
        self.train, self.val = train, val
        self.optimizer = make_optimizer(self.network, plan.recipe, plan.lr)
        self.loss = nn.CrossEntropyLoss(label_smoothing=plan.recipe.label_smoothing)
        self.steps = steps_per_epoch(len(train[1]), plan.batch_size, me.processes)
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
        """The epoch whose weights are in `best.pt`, see `best_of`."""
        return best_of(self.rows, len(self.val[1]))

    def run(
        self,
        stop: Callable[[], bool],
        on_step: Callable[[StepReport], None],
        on_epoch: Callable[[EpochRow, bool, float], None],
    ) -> bool:
        """Train until finished or stopped.

        Args:
            stop: Asked after every step; where it says yes in any process, the state is saved
                and the run can be resumed from that very step.
            on_step: Called after every step.
            on_epoch: Called after every epoch with its row, whether it is the best so far,
                and the seconds that are left.

        Returns:
            Whether the run is finished.

        Raises:
            CatdogError: The loss is not finite any more, or a file cannot be written.
        """
        while not self.finished:
            with kept_freed_memory() if self.device.type == "cpu" else nullcontext():
                whole = self._run_epoch(stop, on_step)
            if not whole:
                self.save()
                return False
            row = self._close_epoch()
            on_epoch(row, row is self.best_epoch(), self._later(row.seconds, self.epoch - 1))
            if self._anybody(stop()) and not self.finished:
                return False
        return True

    def save(self) -> None:
        """Write `last.pt`: weights that can be used, and all that a resume needs."""
        if not self._me.first:
            return
        training = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "recipe": self.plan.recipe.to_dict(),
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        save_checkpoint(self.folder / "last.pt", self._kept_weights(), self.spec, training)
        self._saved = time.monotonic()

    def restore(self, path: Path) -> None:
        """Go on from a `last.pt`.

        Raises:
            ModelError: The file is damaged.
            CatdogError: It holds no state to go on from, or that of another recipe.
        """
        # The other processes may be on machines that do not have the file.
        document = self._me.agreed(read_checkpoint(path)[0] if self._me.first else {})
        training = document.get("training")
        if training is None:
            raise CatdogError(f"{path} holds no training state; only last.pt can be resumed")
        try:
            self._check_recipe(training, path)
            self.network.load_state_dict(training["network"])
            if self.averaged is not None:
                # A file of an older version has the averaged weights in one place only.
                self.averaged.load_state_dict(training.get("averaged") or document["state_dict"])
            self.optimizer.load_state_dict(training["optimizer"])
            self.rows = [EpochRow(**row) for row in training["rows"]]
            for name in _COUNTERS:
                setattr(self, name, training[name])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise _misfit(path) from error

    def _check_recipe(self, training: dict[str, Any], path: Path) -> None:
        """Refuse a state that another optimiser left, or the same one with other values."""
        if "recipe" in training:
            recipe = self.plan.recipe.to_dict()
            changed = [name for name in _KEPT if training["recipe"][name] != recipe[name]]
            if changed:
                raise _misfit(path, f" ({changed[0]} was {training['recipe'][changed[0]]})")
        # A file of an older version does not say it; the groups of one optimiser have marks
        # that those of another lack.
        own = self.optimizer.state_dict()["param_groups"]
        marks = [
            [[bool(group.get(name)) for name in _MARKS] for group in groups]
            for groups in (own, training["optimizer"]["param_groups"])
        ]
        if marks[0] != marks[1]:
            raise _misfit(path, " (it is of another optimizer)")

    def _run_epoch(self, stop: Callable[[], bool], on_step: Callable[[StepReport], None]) -> bool:
        self.network.train()
        if self.plan.recipe.freeze or self.plan.recipe.norms == "frozen":
            freeze_batch_norms(self.network)
        source = batches(
            *self.train,
            batch_size=self.plan.batch_size,
            policy=self.plan.recipe.augment,
            seed=self.plan.seed,
            epoch=self._drawn_epoch,
            first_step=self.step,
            scales=self.plan.recipe.scales(self.epoch, self.plan.epochs),
            detail=self.plan.recipe.detail,
            rank=self._me.rank,
            processes=self._me.processes,
            pinned=self.device.type == "cuda",
            others=self._others,
        )
        started = time.perf_counter()
        for batch in source:
            asked = self._train_step(batch, stop())
            now = time.perf_counter()
            self.seconds += now - started  # waiting for the batch is part of it
            on_step(self._report())
            if self.step < self.steps and asked:
                source.close()
                return False
            if self.step < self.steps and time.monotonic() - self._saved > SAVE_EVERY:
                self.save()
            started = time.perf_counter()
        return True

    def _train_step(self, batch: Batch, stop: bool) -> bool:
        """Learn from this process's part of a batch; whether any process wants to stop."""
        recipe = self.plan.recipe
        position = self.epoch * self.steps + self.step
        # Dropout draws from torch's own generator.
        seed = (self.plan.seed * 1_000_003 + position) * 1009 + self._me.rank
        torch.manual_seed(seed % 2**63)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.lr * recipe.rate(position, self.plan.epochs * self.steps)
        labels = batch.labels.to(self.device)
        pixels = batch.pixels.to(self.device, non_blocking=True)
        with autocast(self.device, self.plan.precision):
            outputs = self._answer(to_input(pixels, self.spec.normalization))
        outputs = outputs.float()
        loss = self.loss(outputs, labels)
        if self.teacher is not None:
            loss = (1 - recipe.distillation) * loss + recipe.distillation * self._taught(
                batch, labels, outputs
            )
        right = int((outputs.argmax(1) == labels).sum())
        sums = torch.tensor(
            [loss.item() * len(labels), right, len(labels), stop], dtype=torch.float64
        )
        loss_sum, correct, seen, asked = self._summed(sums)
        if not math.isfinite(loss_sum):
            raise CatdogError(
                f"the loss is not finite in epoch {self.epoch + 1}, step {self.step + 1}; the "
                f"weights so far are in {self.folder}; train again with a lower --lr"
            )
        self.optimizer.zero_grad(set_to_none=True)
        # The processes' gradients are averaged; their parts of the batch differ in size.
        (loss * (len(labels) * self._me.processes / seen)).backward()
        self.optimizer.step()
        if self.averaged is not None:
            # While few steps are done the average would hold on to the random start.
            decay = min(recipe.ema, (1 + position) / (10 + position))
            update_average(self.averaged, self.network, decay)
        self.step += 1
        self.seen += int(seen)
        self.loss_sum += loss_sum
        self.correct += int(correct)
        return asked > 0

    @property
    def _drawn_epoch(self) -> int:
        """What the batches are drawn by: the epoch, or its place among views that come again."""
        views = self.plan.recipe.views
        return self.epoch % views if views else self.epoch

    def _taught(self, batch: Batch, labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """The loss of the answers against the teacher's, the mean over the batch.

        Of pictures that show none of the classes the label is certain, and counts alone.
        """
        assert self.teacher is not None
        recipe, own = self.plan.recipe, labels < self._classes
        detailed = batch.detailed.to(self.device)[own]
        share = len(detailed) / len(labels)
        by_label = self.loss(outputs[~own], labels[~own]) * (1 - share) if share < 1 else 0
        outputs = outputs[own] if self.teacher.knows_others else outputs[own, : self._classes]
        place = (self._drawn_epoch, self.step)
        said = self._said.get(place)
        if said is None:
            said = self.teacher.logits(detailed, recipe.distillation_mirrored)
            if recipe.views:
                self._said[place] = said
        by_teacher = distillation_loss(outputs, said, recipe.distillation_temperature)
        return by_label + share * by_teacher

    def _summed(self, values: torch.Tensor) -> list[float]:
        if not self._me.alone:  # nccl knows tensors on CUDA alone
            values = self._me.summed(values.to(self.device))
        summed: list[float] = values.tolist()
        return summed

    def _anybody(self, answer: bool) -> bool:
        return self._summed(torch.tensor([float(answer)]))[0] > 0

    def _later(self, seconds: float, epoch: int) -> float:
        """Seconds that the epochs after this one take, if this one takes `seconds`."""

        def work(number: int) -> float:
            scales = self.plan.recipe.scales(number, self.plan.epochs)
            return sum(scale**2 for scale in scales) / len(scales)

        rest = sum(work(number) for number in range(epoch + 1, self.plan.epochs))
        return seconds * rest / work(epoch)

    def _report(self) -> StepReport:
        speed = self.seen / max(self.seconds, 1e-9)
        whole = self.seconds * self.steps / self.step
        later = self._later(whole, self.epoch)
        return StepReport(
            epoch=self.epoch + 1,
            step=self.step,
            steps=self.steps,
            loss=self.loss_sum / self.seen,
            accuracy=self.correct / self.seen,
            pictures_per_second=speed,
            seconds_left=whole - self.seconds + later,
        )

    def _close_epoch(self) -> EpochRow:
        values = self._validated()
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
        if self._me.first:
            # best.pt first: a run killed between the two repeats this epoch and writes it again.
            if row is self.best_epoch():
                save_checkpoint(self.folder / "best.pt", self._kept_weights(), self.spec)
            self.save()
            write_results(self.folder / "results.csv", self.rows)
        return row

    def _validated(self) -> npt.NDArray[np.float32]:
        """Logits of the classes, `float32 [N,K]`, for the validation pictures.

        Each process takes its share of them.
        """
        mine = slice(self._me.rank, None, self._me.processes)
        kept = self.averaged if self.averaged is not None else self.network
        self._me.share_buffers(kept)
        values = logits(
            kept,
            self.spec.normalization,
            self.val[0][mine],
            device=self.device,
        )
        whole = np.empty((len(self.val[1]), values.shape[1]), np.float32)
        for rank, part in enumerate(self._me.gathered(values)):
            whole[rank :: self._me.processes] = part
        return whole[:, : self._classes]

    def _kept_weights(self) -> dict[str, torch.Tensor]:
        kept = self.averaged if self.averaged is not None else self.network
        if self.plan.recipe.norms == "folded":
            kept = fold_batch_norms(kept)
        return dict(kept.state_dict())


def _misfit(path: Path, what: str = "") -> CatdogError:
    return CatdogError(
        f"{path} does not fit the recipe in args.yaml beside it{what}; put back what was "
        "changed there, or start again with: catdog-edge train"
    )


_KEPT = ("optimizer", "momentum", "weight_decay")
"""Of a recipe: what the optimiser's state holds, and would win over without a word."""

_MARKS = ("orthogonal", "nesterov", "betas", "decoupled_weight_decay")
"""What tells the parameter groups of Muon, SGD, Adam and AdamW apart."""

_COUNTERS = ("epoch", "step", "seen", "correct", "loss_sum", "seconds")


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
