"""The training loop: trains on batches, writes `best.pt`, `last.pt` and `results.csv`.

All randomness depends on seed, epoch and step alone, so that a resumed run gives the weights of an
uninterrupted one.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from catdog_edge.errors import CatdogError
from catdog_edge.spec import ModelSpec
from catdog_edge.training.array_types import Float32, Float64, Labels, Pixels
from catdog_edge.training.config.recipes import Recipe
from catdog_edge.training.data.negatives import NegativeSampler
from catdog_edge.training.engine.batches.gpu_loader import GpuBatchLoader, augments_on, resident
from catdog_edge.training.engine.batches.loader import Batch, BatchLoader
from catdog_edge.training.engine.distillation import Reference, Teacher, distillation_loss
from catdog_edge.training.engine.distributed import ProcessGroup
from catdog_edge.training.engine.history import EpochMetrics, StepMetrics, best_epoch, write_results
from catdog_edge.training.engine.loss import CrossEntropy, class_weights
from catdog_edge.training.engine.malloc_tuning import keep_freed_memory
from catdog_edge.training.engine.optim import align_gradients, make_optimizer
from catdog_edge.training.engine.precision import autocast
from catdog_edge.training.engine.step_graph import StepGraphs
from catdog_edge.training.engine.weight_average import update_average
from catdog_edge.training.evaluation.inference import logits, to_input
from catdog_edge.training.evaluation.metrics import log_loss, softmax
from catdog_edge.training.models import batch_norm
from catdog_edge.training.models.checkpoint import read_checkpoint, save_checkpoint
from catdog_edge.training.models.imagenet_head import class_groups

log = logging.getLogger(__name__)

SINGLE = ProcessGroup()
SAVE_INTERVAL = 120.0  # seconds between writes of `last.pt` within an epoch
READ_INTERVAL = 0.5  # seconds between reads of the loss on a GPU: each waits for the device


@dataclass(frozen=True)
class Plan:
    """A recipe with all values of one run resolved."""

    recipe: Recipe
    epochs: int
    batch_size: int  # over all processes
    lr: float  # peak learning rate
    seed: int
    patience: int  # epochs without a better one after which training stops; 0: never
    precision: str  # `float32` or `bfloat16`
    device: str  # `cpu`, `cuda` or `cuda:N`


@dataclass(frozen=True)
class TrainingData:
    """The images of a run: `uint8 [N,H,W,3]`, BGR, and their labels `int64 [N]`."""

    train: tuple[Pixels, Labels]  # at the recipe's `detail` times the network's size
    val: tuple[Pixels, Labels]  # at the network's size
    negatives: NegativeSampler | None = None  # the network's last logit is theirs
    shares: Float64 | None = None  # how often each training image is drawn, see `BatchLoader`


class Trainer:
    """One training run; only the main process of a group writes into the run folder.

    Examples:
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
            network = batch_norm.add_batch_norms(network)
        if plan.recipe.freeze:
            batch_norm.freeze_features(network)
        if on_cuda and not group.is_single:
            # Each process sees a part of the batch; the statistics are those of the whole.
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self._class_groups = class_groups(self.network)
        self._reference: Reference | None = None
        if self._class_groups is not None and plan.recipe.keep_imagenet:
            self._reference = Reference(self.network, plan.precision)
        self._start: dict[str, torch.Tensor] | None = None
        if plan.recipe.start_share:
            self._start = {name: one.clone() for name, one in self.network.state_dict().items()}
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
        self._graphs: StepGraphs | None = None
        if on_cuda and group.is_single:
            self._graphs = StepGraphs(self._backward, self.network)
        self._loader = self._make_loader()
        self._val = resident([data.val[0]], self.device) if on_cuda else None
        # A device is asked for the sums now and then: to ask is to wait for it.
        self._interval = READ_INTERVAL if on_cuda and group.is_single else 0.0
        self._unread = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._read, self._summed = time.monotonic(), 0
        self._saved = time.monotonic()
        self.epoch = self.step = self.seen = self.correct = 0
        self.loss_sum = self.seconds = 0.0
        self.history: list[EpochMetrics] = []

    def _make_loader(self) -> BatchLoader:
        plan, data, group = self.plan, self.data, self._group
        loader = BatchLoader(
            *data.train,
            batch_size=plan.batch_size,
            policy=plan.recipe.augment,
            seed=plan.seed,
            detail=plan.recipe.detail,
            rank=group.rank,
            processes=group.world_size,
            pin_memory=self.device.type == "cuda",
            negatives=data.negatives,
            shares=data.shares,
        )
        if augments_on(self.device):
            return GpuBatchLoader(**vars(loader), device=self.device)
        return loader

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the last `patience` epochs had no better one."""
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
        """Train until finished or stopped; return whether the run is finished.

        Args:
            stop: Polled after every step; where it is true in any process, the state is saved,
                and the run can be resumed from that step.
            on_step: Gets the metrics of each step.
            on_epoch: Gets the metrics, whether they are the best so far, and the seconds left.

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
            if self._all_reduce([stop()])[0] > 0 and not self.finished:
                return False
        return True

    def save(self) -> None:
        """Write `last.pt`: weights that can be used, and the state that a resume needs."""
        if self._interval:
            self._read_sums()
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
        """Load the state of a `last.pt`; raises `CatdogError` if it is of another recipe."""
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
                    raise _mismatch_error(path, f" ({name} was {then[name]})")
            self.network.load_state_dict(training["network"])
            if self.averaged is not None:
                self.averaged.load_state_dict(training["averaged"])
            self.optimizer.load_state_dict(training["optimizer"])
            self.history = [EpochMetrics(**epoch) for epoch in training["rows"]]
            for name in _COUNTERS:
                setattr(self, name, training[name])
            self._summed = self.seen
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise _mismatch_error(path) from error

    def _run_epoch(self, stop: Callable[[], bool], on_step: Callable[[StepMetrics], None]) -> bool:
        recipe = self.plan.recipe
        self.network.train()
        if recipe.freeze or recipe.norms == "frozen":
            batch_norm.freeze_batch_norms(self.network)
        scales = recipe.scales(self.epoch, self.plan.epochs)
        started = time.perf_counter()
        # Closed at once: a traceback would keep the loader's thread alive after a failed step.
        with closing(self._loader.epoch(self._view, self.step, scales)) as batches:
            for batch in batches:
                stopping = self._train_step(batch, stop())
                now = time.perf_counter()
                self.seconds += now - started  # waiting for the batch is part of it
                on_step(self._step_metrics())
                if self.step < self._loader.steps:
                    if stopping:
                        return False
                    if time.monotonic() - self._saved > SAVE_INTERVAL:
                        self.save()
                started = time.perf_counter()
        return True

    @property
    def _view(self) -> int:
        """Return the epoch whose batches are used: an earlier one if views repeat."""
        return self.epoch % (self.plan.recipe.views or self.plan.epochs)

    def _train_step(self, batch: Batch, stop: bool) -> bool:
        """Train on this process's part of a batch; return whether any process must stop."""
        recipe, plan = self.plan.recipe, self.plan
        position = self.epoch * self._loader.steps + self.step
        # Dropout draws from torch's own generator.
        torch.manual_seed(((plan.seed * 1_000_003 + position) * 1009 + self._group.rank) % 2**63)
        for group in self.optimizer.param_groups:
            group["lr"] = plan.lr * recipe.rate(position, plan.epochs * self._loader.steps)
        seen, stopping = self._all_reduce([len(batch.labels), stop])
        # The processes' gradients are averaged; their parts of the batch differ in size.
        self._learn(batch, len(batch.labels) * self._group.world_size / seen)
        if self.averaged is not None:
            # A rising decay, so that the random initial weights are soon forgotten.
            decay = min(recipe.ema, (1 + position) / (10 + position))
            update_average(self.averaged, self.network, decay)
        self.seen += int(seen)
        last = self.step + 1 == self._loader.steps
        due = time.monotonic() - self._read >= self._interval
        if stopping or last or due or not self._summed:
            self._read_sums()
        self.step += 1
        return stopping > 0

    def _learn(self, batch: Batch, weight: float) -> None:
        """Update the weights with the gradient of a batch, without waiting for a GPU."""
        labels = batch.labels.to(self.device, non_blocking=True)
        pixels = batch.pixels.to(self.device, non_blocking=True)
        view = (self._view, self.step)
        inputs, taught = [pixels, labels], self.teacher is not None
        if self.teacher is not None and self.teacher.teaches_categories(self._class_groups):
            inputs.append(self.teacher.targets(batch, self.plan.recipe, view))
            taught = False
        if self._graphs is not None and not taught:
            self._unread += self._graphs(*inputs)
        else:
            self.optimizer.zero_grad(set_to_none=True)
            self._unread += partial(self._backward, batch=batch, weight=weight)(*inputs)
        self.optimizer.step()

    def _backward(
        self,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        targets: torch.Tensor | None = None,
        batch: Batch | None = None,
        weight: float = 1.0,
    ) -> torch.Tensor:
        """Compute the gradients of a batch; return its summed loss and its right answers.

        The targets are the teacher's logits of ImageNet's categories; a teacher without them
        needs the batch.
        """
        recipe, normalization = self.plan.recipe, self.spec.normalization
        with autocast(self.device, self.plan.precision):
            outputs = self._forward(to_input(pixels, normalization))
        outputs = outputs.float()
        loss = self.criterion(outputs, labels)
        categories = self._class_groups.take_categories() if self._class_groups else None
        if self._reference is not None and categories is not None:
            kept = self._reference.loss(pixels, categories, labels, normalization)
            loss = loss + recipe.keep_imagenet * kept
        if self.teacher is not None:
            if targets is not None and categories is not None:
                temperature = recipe.distillation_temperature
                by_teacher = distillation_loss(categories, targets, temperature)
            else:
                assert batch is not None
                view = (self._view, self.step)
                by_teacher = self.teacher.loss(batch, outputs, self.criterion, recipe, view)
            loss = (1 - recipe.distillation) * loss + recipe.distillation * by_teacher
        (loss * weight).backward()
        if self.device.type == "cuda":
            align_gradients(self.network)
        right = (outputs.argmax(1) == labels).sum()
        return torch.stack([loss.detach().double() * len(labels), right.double()])

    def _read_sums(self) -> None:
        """Add up what the steps since the last call found; raises `CatdogError` if not finite."""
        loss_sum, correct = self._all_reduce(self._unread.tolist())
        self._unread.zero_()
        self._read = time.monotonic()
        if not math.isfinite(loss_sum):
            raise CatdogError(
                f"the loss is not finite in epoch {self.epoch + 1}, step {self.step + 1}; the "
                f"weights so far are in {self.folder}; train again with a lower --lr"
            )
        self.loss_sum += loss_sum
        self.correct += int(correct)
        self._summed = self.seen

    def _all_reduce(self, values: Sequence[float]) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64)
        if not self._group.is_single:  # nccl takes only tensors on CUDA
            tensor = self._group.all_reduce(tensor.to(self.device))
        summed: list[float] = tensor.tolist()
        return summed

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
            loss=self.loss_sum / self._summed,
            accuracy=self.correct / self._summed,
            pictures_per_second=self.seen / self.seconds,
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
            pictures_per_second=self.seen / self.seconds,
        )
        self.history.append(metrics)
        self.epoch += 1
        self.step = self.seen = self.correct = self._summed = 0
        self.loss_sum = self.seconds = 0.0
        if self._group.is_main:
            # last.pt last: a run killed before it repeats this epoch and writes all of them again.
            if metrics is self.best_epoch():
                save_checkpoint(self.folder / "best.pt", self._weights_to_keep(), self.spec)
            write_results(self.folder / "results.csv", self.history)
            self.save()
        return metrics

    def _validate(self) -> Float32:
        """Compute the classes' logits of the validation images, `float32 [N,K]`."""
        rank, processes = self._group.rank, self._group.world_size
        network = self._network_to_keep()
        self._group.broadcast_buffers(network)
        pixels, labels = self.data.val
        part = (pixels if self._val is None else self._val)[rank::processes]
        values = logits(network, self.spec.normalization, part, device=self.device)
        whole = np.empty((len(labels), values.shape[1]), np.float32)
        for other, found in enumerate(self._group.all_gather(values)):
            whole[other::processes] = found
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
            network = batch_norm.fold_batch_norms(network)
        return dict(network.state_dict())


_COUNTERS = ("epoch", "step", "seen", "correct", "loss_sum", "seconds")


def _mismatch_error(path: Path, reason: str = "") -> CatdogError:
    return CatdogError(
        f"{path} does not fit the recipe in args.yaml beside it{reason}; put back what was "
        "changed there, or start again with: catdog-edge train"
    )
