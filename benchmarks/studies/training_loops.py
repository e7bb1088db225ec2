"""The two training loops of `train_throughput`, each in a process of its own.

`ours` is the tool's `Trainer`: cached pixels, augmentation ahead of the step, channels last, the
faster precision. `plain` is the loop that people write: a `DataLoader` without workers over JPEG
files that are decoded anew every epoch, float32, NCHW. A process steps when it is told to and
otherwise sleeps on a pipe, so neither shares memory allocator, oneDNN's caches or threads with
the other.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from catdog_edge.errors import CatdogError, first_line
from catdog_edge.spec import ModelSpec, Normalization, squash
from catdog_edge.training.config.recipes import Policy, recipe
from catdog_edge.training.data.open_dataset import open_dataset, pixels
from catdog_edge.training.engine.augment import augment
from catdog_edge.training.engine.device import torch_threads
from catdog_edge.training.engine.precision import choose_precision
from catdog_edge.training.engine.trainer import Plan, Trainer, TrainingData
from catdog_edge.training.models.registry import UNIT_RANGE, architecture

RECIPE = "classic"
"""Adam, no schedule, no averaging: what the plain loop does in a line."""


@dataclass(frozen=True)
class LoopConfig:
    """What both loops are given.

    `files` are the training images as JPEG files in the order of the data set, whole batches;
    `scratch` is a folder for checkpoints; `seed` is of weights, order and augmentation.
    """

    source: str
    limit: int | None
    arch: str
    batch_size: int
    policy: Policy
    threads: int
    files: tuple[str, ...]
    labels: tuple[int, ...]
    classes: int
    scratch: str
    seed: int = 0

    @property
    def lr(self) -> float:
        """The recipe's learning rate, adapted to the batch size as `train` does it."""
        found = recipe(RECIPE)
        return found.lr * min(1.0, self.batch_size / found.batch_size)

    def network(self) -> nn.Module:
        """A network with initial weights, the same for both."""
        torch.manual_seed(self.seed)
        return architecture(self.arch).build(self.classes)


class Turns:
    """The loop's end of the pipe: it reports a step, then waits for permission to step again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.over = False

    def ready(self, notes: dict[str, str]) -> None:
        """Report how the loop computes, and wait for the first turn."""
        self._send("ready", notes)

    def stepped(self) -> None:
        """Report a step and wait for the next turn; `over` says whether there is one."""
        if not self.over:
            self._send("stepped")

    def _send(self, kind: str, content: object = None) -> None:
        try:
            self._connection.send((kind, content))
            self.over = not self._connection.recv()
        except (EOFError, OSError):  # the parent process is gone
            self.over = True


def ours(config: LoopConfig, turns: Turns) -> None:
    """Train as `catdog-edge train` does, run after run of the recipe."""
    arch = architecture(config.arch)
    steps = squash(arch.size, arch.size)
    dataset = open_dataset(config.source, limit=config.limit, steps=steps)
    frames, truth, _ = pixels(dataset, "train", steps)
    frames, truth = frames[: len(config.labels)], truth[: len(config.labels)]
    val_frames, val_truth, _ = pixels(dataset, "val", steps)
    spec = ModelSpec(
        architecture=arch.name,
        labels=dataset.labels,
        height=arch.size,
        width=arch.size,
        resize=steps,
        normalization=arch.normalization,
    )
    network = config.network()
    precision, reason = choose_precision(network, "cpu")
    chosen = replace(recipe(RECIPE), augment=config.policy)
    plan = Plan(
        recipe=chosen,
        epochs=chosen.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        seed=config.seed,
        patience=0,
        precision=precision,
        device="cpu",
    )
    # Two images to validate on: the plain loop does not validate.
    data = TrainingData((frames, truth), (val_frames[:2], val_truth[:2]))

    def step(_metrics: object) -> None:
        turns.stepped()

    turns.ready(
        {
            "precision": precision,
            "memory": "channels last",
            "pictures": "cached pixels",
            "tried": f"{precision}: {reason}",
        }
    )
    while not turns.over:
        trainer = Trainer(network, spec, plan, data, Path(config.scratch))
        trainer.run(lambda: turns.over, step, lambda *_metrics: None)


class JpegFiles(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Image files, decoded whenever they are requested.

    OpenCV decodes, resizes and augments with the tool's own code, which is faster than Pillow and
    torchvision's transforms.
    """

    def __init__(self, config: LoopConfig) -> None:
        arch = architecture(config.arch)
        self._config, self._size, self._normalization = config, arch.size, arch.normalization
        self._generator = np.random.default_rng(config.seed)

    def __len__(self) -> int:
        return len(self._config.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """`float32 [3,S,S]`, RGB, normalised, and the label."""
        frame = cv2.imread(self._config.files[index], cv2.IMREAD_COLOR)
        if frame is None:
            raise CatdogError(f"{self._config.files[index]} was removed while it was in use")
        frame = cv2.resize(frame, (self._size, self._size))
        if self._config.policy != "none":
            whole = np.asarray(frame, np.uint8)[None]
            frame = augment(whole, self._config.policy, self._generator)[0]
        rgb = torch.from_numpy(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        # As torchvision's ToTensor: [3,S,S], contiguous, 0..1.
        picture = rgb.permute(2, 0, 1).contiguous().float().div(255)
        return _normalised(picture, self._normalization), self._config.labels[index]


def _normalised(picture: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    if normalization == UNIT_RANGE:
        return picture
    mean = torch.tensor(normalization.mean).view(3, 1, 1) / 255
    std = torch.tensor(normalization.std).view(3, 1, 1) / 255
    return picture.sub_(mean).div_(std)


def plain(config: LoopConfig, turns: Turns) -> None:
    """The loop that people write."""
    network = config.network().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    criterion = nn.CrossEntropyLoss()
    loader = torch.utils.data.DataLoader(
        JpegFiles(config), batch_size=config.batch_size, shuffle=True
    )
    running = 0.0
    turns.ready({"precision": "float32", "memory": "NCHW", "pictures": "JPEG files"})
    while not turns.over:
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(network(inputs), labels)
            loss.backward()
            optimizer.step()
            running += loss.item()
            turns.stepped()
            if turns.over:
                return


LOOPS: dict[str, Callable[[LoopConfig, Turns], None]] = {"catdog-edge": ours, "plain loop": plain}


def _serve(name: str, config: LoopConfig, connection: Connection) -> None:
    try:
        with torch_threads(config.threads):
            LOOPS[name](config, Turns(connection))
    except KeyboardInterrupt:  # Ctrl-C reaches all processes; the parent reports it
        pass
    except (CatdogError, MemoryError, RuntimeError) as error:  # RuntimeError: PyTorch's, no memory
        with suppress(OSError):
            connection.send(("failed", first_line(error)))


class Loop:
    """A loop of `LOOPS` in a process of its own; a `CatdogError` says why it cannot start."""

    def __init__(self, name: str, config: LoopConfig) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")  # a fork would share the threads' locks
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, config, other), daemon=True)
        self._process.start()
        other.close()
        try:
            self.notes: dict[str, str] = self._receive("ready")
        except BaseException:
            self.close()
            raise

    def step(self) -> None:
        """Make one training step: from the batch to the changed weights.

        Raises:
            CatdogError: The loop has ended.
        """
        with suppress(OSError):  # the process is gone: `_receive` says so
            self._connection.send(True)
        self._receive("stepped")

    def close(self) -> None:
        """End the process; its processor time then counts as this one's."""
        with suppress(OSError):
            self._connection.send(False)
        self._connection.close()
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _receive(self, wanted: str) -> Any:
        try:
            kind, content = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(timeout=5)
            raise CatdogError(
                f"the process of the {self.name} ended with code {self._process.exitcode}; "
                "if memory was short, try a smaller --batch-size"
            ) from None
        if kind != wanted:
            raise CatdogError(f"the {self.name} failed: {content}")
        return content
