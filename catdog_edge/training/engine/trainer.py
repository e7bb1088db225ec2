"""The training loop: batches in, `best.pt`, `last.pt` and `results.csv` out.

All randomness depends on seed, epoch and step alone, so that a resumed run gives the weights of an
uninterrupted one.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from catdog_edge.errors import CatdogError
from catdog_edge.spec import ModelSpec
from catdog_edge.training.config.recipes import Recipe
from catdog_edge.training.data.negatives import NegativeSampler
from catdog_edge.training.engine.allocator import keep_freed_memory
from catdog_edge.training.engine.batches import Batch, BatchLoader
from catdog_edge.training.engine.distillation import Reference, Teacher
from catdog_edge.training.engine.distributed import ProcessGroup
from catdog_edge.training.engine.history import (
    EpochMetrics,
    StepMetrics,
    best_epoch,
    write_results,
)
from catdog_edge.training.engine.loss import CrossEntropy, class_weights
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
from catdog_edge.training.models.imagenet_head import class_groups

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

SINGLE = ProcessGroup()

SAVE_INTERVAL = 120.0
"""Seconds between writes of `last.pt` within an epoch: what a kill costs at most."""


@dataclass(frozen=True)
class Plan:
    """A recipe with every value of one run settled."""

    recipe: Recipe
    epochs: int
    batch_size: int
    lr: float
    seed: int
    patience: int
    precision: str
    device: str


@dataclass(frozen=True)
class TrainingData:
    """The images of a run: `uint8 [N,H,W,3]`, BGR, and their labels `int64 [N]`.

    Attributes:
        train: To learn from, at the recipe's `detail` times the network's size.
        val: To choose the best epoch by, at the network's size.
        negatives: Sampled into the batches; the network's last logit is theirs.
        shares: How often each training image is drawn, see `BatchLoader`.
    """

    train: tuple[Pixels, Labels]
    val: tuple[Pixels, Labels]
    negatives: NegativeSampler | None = None
    shares: npt.NDArray[np.float64] | None = None


class Trainer:
    """One training run.

    Args:
        network: Random or trained weights.
        spec: Of the network.
        plan: The settled recipe.
        data: Images and labels.
        folder: The run folder; only the main process writes into it.
        teacher: For distillation.
        group: This process among those that train together.

    Example:
        >>> trainer = Trainer(network, spec, plan, data, Path("runs/mine"))
        >>> trainer.run(lambda: False, print, lambda epoch, is_best, seconds_left: None)
    """

    def __init__(
        self,
        network: nn.Module,
        spec: ModelSpec,
        plan: Plan,
        data: TrainingData,
        folder: Path,
        teacher: Teacher | None = None,
        group: ProcessGroup = SINGLE,
    ) -> None:
        self.spec, self.plan, self.data, self.folder = spec, plan, data, folder
        self.teacher, self._group = teacher, group
        self.device = torch.device(plan.device)
        on_cuda = self.device.type == "cuda"
        if plan.recipe.norms == "folded":
            network = add_batch_norms(network)
        if plan.recipe.freeze:
            freeze_features(network)
        if on_cuda and not group.is_single:
            # Each process sees a part of the batch; the statistics are those of the whole.
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self._class_groups = class_groups(self.network)
        self._reference: Reference | None = None
        if self._class_groups is not None and plan.recipe.keep_imagenet:
            self._reference = Reference(self.network, plan.precision)
        self._start = (
            {name: value.clone() for name, value in self.network.state_dict().items()}
            if plan.recipe.start_share
            else None
        )
        self.averaged = copy.deepcopy(self.network).eval() if plan.recipe.ema else None
        self._forward = self.network if group.is_single else DistributedDataParallel(self.network)
        self.optimizer = make_optimizer(self.network, plan.recipe, plan.lr)
        weights = None
        if plan.recipe.balance == "auto":
            weights = class_weights(data.train[1], len(spec.labels), data.shares)
        if weights is not None:
            ratio = weights.max() / weights.min()
            log.info(
                f"train: the largest class has {ratio:.1f} times the images of the smallest: the "
                "loss is weighted by class (balance: none in a recipe leaves it as it is)"
            )
        self.criterion = CrossEntropy(plan.recipe.label_smoothing, weights)
        self._loader = BatchLoader(
            *data.train,
            batch_size=plan.batch_size,
            policy=plan.recipe.augment,
            seed=plan.seed,
            detail=plan.recipe.detail,
            rank=group.rank,
            processes=group.world_size,
            pin_memory=on_cuda,
            negatives=data.negatives,
            shares=data.shares,
        )
        self._saved = time.monotonic()
        self.epoch = self.step = self.seen = self.correct = 0
        self.loss_sum = self.seconds = 0.0
        self.history: list[EpochMetrics] = []

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` epochs went by without a better one."""
        if self.epoch >= self.plan.epochs:
            return True
        best = self.best_epoch()
        return bool(self.plan.patience and best and self.epoch - best.epoch >= self.plan.patience)

    def best_epoch(self) -> EpochMetrics | None:
        """Return the epoch whose weights are in `best.pt`."""
        return best_epoch(self.history, len(self.data.val[1]))

    def run(
        self,
        stop: Callable[[], bool],
        on_step: Callable[[StepMetrics], None],
        on_epoch: Callable[[EpochMetrics, bool, float], None],
    ) -> bool:
        """Train until finished or stopped.

        Args:
            stop: Polled after every step; where it is true in any process, the state is saved and
                the run can be resumed from that step.
            on_step: Called after every step.
            on_epoch: Called after every epoch with its metrics, whether it is the best so far,
                and the seconds that are left.

        Returns:
            Whether the run is finished.

        Raises:
            CatdogError: The loss is not finite, or a file cannot be written.
        """
        while not self.finished:
            with keep_freed_memory() if self.device.type == "cpu" else nullcontext():
                completed = self._run_epoch(stop, on_step)
            if not completed:
                self.save()
                return False
            metrics = self._close_epoch()
            left = self._seconds_after(self.epoch - 1, metrics.seconds)
            on_epoch(metrics, metrics is self.best_epoch(), left)
            if self._any(stop()) and not self.finished:
                return False
        return True

    def save(self) -> None:
        """Write `last.pt`: weights that can be used, and the state that a resume needs."""
        if not self._group.is_main:
            return
        training = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "rows": [dataclasses.asdict(epoch) for epoch in self.history],
            "recipe": self.plan.recipe.to_dict(),
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        save_checkpoint(self.folder / "last.pt", self._weights_to_keep(), self.spec, training)
        self._saved = time.monotonic()

    def restore(self, path: Path) -> None:
        """Load the state of a `last.pt`.

        Raises:
            ModelError: The file is damaged.
            CatdogError: It holds no training state, or that of another recipe.
        """
        # The other processes may be on machines that do not have the file.
        document = self._group.broadcast(read_checkpoint(path)[0] if self._group.is_main else {})
        training = document.get("training")
        if training is None:
            raise CatdogError(f"{path} holds no training state; only last.pt can be resumed")
        try:
            # What the optimizer's state holds as well would override the recipe.
            then, now = training["recipe"], self.plan.recipe.to_dict()
            for name in ("optimizer", "momentum", "weight_decay"):
                if then[name] != now[name]:
                    raise _misfit(path, f" ({name} was {then[name]})")
            self.network.load_state_dict(training["network"])
            if self.averaged is not None:
                self.averaged.load_state_dict(training["averaged"])
            self.optimizer.load_state_dict(training["optimizer"])
            self.history = [EpochMetrics(**epoch) for epoch in training["rows"]]
            for name in _COUNTERS:
                setattr(self, name, training[name])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise _misfit(path) from error

    def _run_epoch(self, stop: Callable[[], bool], on_step: Callable[[StepMetrics], None]) -> bool:
        recipe = self.plan.recipe
        self.network.train()
        if recipe.freeze or recipe.norms == "frozen":
            freeze_batch_norms(self.network)
        scales = recipe.scales(self.epoch, self.plan.epochs)
        batches = self._loader.epoch(self._view, self.step, scales)
        started = time.perf_counter()
        for batch in batches:
            stopping = self._train_step(batch, stop())
            now = time.perf_counter()
            self.seconds += now - started  # waiting for the batch is part of it
            on_step(self._step_metrics())
            if self.step < self._loader.steps:
                if stopping:
                    batches.close()
                    return False
                if time.monotonic() - self._saved > SAVE_INTERVAL:
                    self.save()
            started = time.perf_counter()
        return True

    @property
    def _view(self) -> int:
        """The epoch whose batches are drawn: where views repeat, an earlier one."""
        views = self.plan.recipe.views
        return self.epoch % views if views else self.epoch

    def _train_step(self, batch: Batch, stop: bool) -> bool:
        """Learn from this process's part of a batch; return whether any process is to stop."""
        recipe, plan = self.plan.recipe, self.plan
        position = self.epoch * self._loader.steps + self.step
        # Dropout draws from torch's own generator.
        torch.manual_seed(((plan.seed * 1_000_003 + position) * 1009 + self._group.rank) % 2**63)
        for group in self.optimizer.param_groups:
            group["lr"] = plan.lr * recipe.rate(position, plan.epochs * self._loader.steps)
        labels = batch.labels.to(self.device)
        pixels = batch.pixels.to(self.device, non_blocking=True)
        with autocast(self.device, plan.precision):
            outputs = self._forward(to_input(pixels, self.spec.normalization))
        outputs = outputs.float()
        loss = self.criterion(outputs, labels)
        categories = self._class_groups.take_categories() if self._class_groups else None
        if self._reference is not None and categories is not None:
            kept = self._reference.loss(pixels, categories, labels, self.spec.normalization)
            loss = loss + recipe.keep_imagenet * kept
        if self.teacher is not None:
            view = (self._view, self.step)
            by_teacher = self.teacher.loss(batch, outputs, self.criterion, recipe, view, categories)
            loss = (1 - recipe.distillation) * loss + recipe.distillation * by_teacher
        right = int((outputs.argmax(1) == labels).sum())
        sums = torch.tensor(
            [loss.item() * len(labels), right, len(labels), stop], dtype=torch.float64
        )
        loss_sum, correct, seen, stopping = self._all_reduce(sums)
        if not math.isfinite(loss_sum):
            raise CatdogError(
                f"the loss is not finite in epoch {self.epoch + 1}, step {self.step + 1}; the "
                f"weights so far are in {self.folder}; train again with a lower --lr"
            )
        self.optimizer.zero_grad(set_to_none=True)
        # The processes' gradients are averaged; their parts of the batch differ in size.
        (loss * (len(labels) * self._group.world_size / seen)).backward()
        self.optimizer.step()
        if self.averaged is not None:
            # A rising decay, so that the random initial weights are soon forgotten.
            decay = min(recipe.ema, (1 + position) / (10 + position))
            update_average(self.averaged, self.network, decay)
        self.step += 1
        self.seen += int(seen)
        self.loss_sum += loss_sum
        self.correct += int(correct)
        return stopping > 0

    def _all_reduce(self, values: torch.Tensor) -> list[float]:
        if not self._group.is_single:  # nccl takes only tensors on CUDA
            values = self._group.all_reduce(values.to(self.device))
        summed: list[float] = values.tolist()
        return summed

    def _any(self, value: bool) -> bool:
        return self._all_reduce(torch.tensor([float(value)]))[0] > 0

    def _seconds_after(self, epoch: int, seconds: float) -> float:
        """Estimate the time of the epochs after one that took `seconds`."""

        def work(number: int) -> float:
            scales = self.plan.recipe.scales(number, self.plan.epochs)
            return sum(scale**2 for scale in scales) / len(scales)

        rest = sum(work(number) for number in range(epoch + 1, self.plan.epochs))
        return seconds * rest / work(epoch)

    def _step_metrics(self) -> StepMetrics:
        epoch_seconds = self.seconds * self._loader.steps / self.step
        later = self._seconds_after(self.epoch, epoch_seconds)
        return StepMetrics(
            epoch=self.epoch + 1,
            step=self.step,
            steps=self._loader.steps,
            loss=self.loss_sum / self.seen,
            accuracy=self.correct / self.seen,
            pictures_per_second=self.seen / max(self.seconds, 1e-9),
            seconds_left=epoch_seconds - self.seconds + later,
        )

    def _close_epoch(self) -> EpochMetrics:
        values, labels = self._validate(), self.data.val[1]
        metrics = EpochMetrics(
            epoch=self.epoch + 1,
            lr=self.optimizer.param_groups[0]["lr"],
            train_loss=self.loss_sum / self.seen,
            train_accuracy=self.correct / self.seen,
            val_loss=float(log_loss(softmax(values), labels)),
            val_accuracy=float((values.argmax(1) == labels).mean()),
            seconds=self.seconds,
            pictures_per_second=self.seen / max(self.seconds, 1e-9),
        )
        self.history.append(metrics)
        self.epoch += 1
        self.step = self.seen = self.correct = 0
        self.loss_sum = self.seconds = 0.0
        if self._group.is_main:
            # best.pt first: a run killed between the two repeats this epoch and writes it again.
            if metrics is self.best_epoch():
                save_checkpoint(self.folder / "best.pt", self._weights_to_keep(), self.spec)
            self.save()
            write_results(self.folder / "results.csv", self.history)
        return metrics

    def _validate(self) -> npt.NDArray[np.float32]:
        """Compute the classes' logits of the validation images, `float32 [N,K]`."""
        rank, processes = self._group.rank, self._group.world_size
        network = self._network_to_keep()
        self._group.broadcast_buffers(network)
        pixels, labels = self.data.val
        values = logits(
            network, self.spec.normalization, pixels[rank::processes], device=self.device
        )
        whole = np.empty((len(labels), values.shape[1]), np.float32)
        for other, part in enumerate(self._group.all_gather(values)):
            whole[other::processes] = part
        return whole[:, : len(self.spec.labels)]

    def _network_to_keep(self) -> nn.Module:
        network = self.averaged if self.averaged is not None else self.network
        if self._start is None:
            return network
        share, mixed = self.plan.recipe.start_share, copy.deepcopy(network)
        with torch.no_grad():
            for name, value in mixed.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(self._start[name].to(value.device), share)
        return mixed

    def _weights_to_keep(self) -> dict[str, torch.Tensor]:
        network = self._network_to_keep()
        if self.plan.recipe.norms == "folded":
            network = fold_batch_norms(network)
        return dict(network.state_dict())


_COUNTERS = ("epoch", "step", "seen", "correct", "loss_sum", "seconds")


def _misfit(path: Path, reason: str = "") -> CatdogError:
    return CatdogError(
        f"{path} does not fit the recipe in args.yaml beside it{reason}; put back what was "
        "changed there, or start again with: catdog-edge train"
    )
