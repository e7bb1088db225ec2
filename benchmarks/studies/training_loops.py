"""Two ways to train one network, each in a process of its own that steps when it is told to.

`ours` is the tool's own `Trainer`: cached pixels, augmentation ahead of the step, channels
last, the precision that is timed to be the faster. `plain` is the loop that people write: a
`DataLoader` without workers over JPEG files that are decoded anew every epoch, float32, NCHW.
Knows nothing of how steps are timed or told about.

A process each, because that is how either is run: neither finds its memory allocator or
oneDNN's caches full of the other's blocks, nor waits for the other's threads. What waits for
its turn sleeps on a pipe.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as changed
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from catdog_edge.errors import CatdogError, first_line
from catdog_edge.spec import ModelSpec, Normalization, squash
from catdog_edge.training.config.recipe_files import recipe
from catdog_edge.training.config.recipes import Policy
from catdog_edge.training.data.load import open_dataset, pixels
from catdog_edge.training.engine.augment import augment
from catdog_edge.training.engine.device import torch_threads
from catdog_edge.training.engine.precision import choose_precision, trial_batch
from catdog_edge.training.engine.trainer import Plan, Trainer, TrainingData
from catdog_edge.training.models.registry import UNIT_RANGE, architecture

RECIPE = "classic"
"""Adam, no schedule, no averaging: what the plain loop can do in a line."""


@dataclass(frozen=True)
class Setting:
    """What both loops are given.

    Attributes:
        source: What `open_dataset` takes.
        limit: Likewise.
        arch: Name of the network.
        batch_size: Pictures per step.
        policy: The augmentation.
        threads: Of PyTorch, in either process.
        files: The training pictures as JPEG files, in the order of the data set; a whole
            number of batches.
        labels: Of these files.
        classes: How many there are.
        scratch: A folder for what the tool's loop saves.
        seed: Of weights, order and augmentation.
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
        """The recipe's learning rate, as `train` adapts it to the batch size."""
        found = recipe(RECIPE)
        return found.lr * min(1.0, self.batch_size / found.batch_size)

    def network(self) -> nn.Module:
        """Fresh weights, the same for both."""
        torch.manual_seed(self.seed)
        return architecture(self.arch).build(self.classes)


# ---- in the process of a loop ------------------------------------------------------------


class Turns:
    """The loop's end of the pipe: it steps, says so, and waits to be told to step again."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.over = False

    def ready(self, notes: dict[str, str]) -> None:
        """Say how the loop computes, and wait for the first turn."""
        self._tell("ready", notes)

    def stepped(self) -> None:
        """Say that a step is done, and wait for the next turn; see `over` afterwards."""
        if not self.over:  # a step that was under way when the end was told
            self._tell("stepped")

    def _tell(self, what: str, content: object = None) -> None:
        try:
            self._connection.send((what, content))
            self.over = not self._connection.recv()
        except (EOFError, OSError):  # whoever started this process is gone
            self.over = True


def ours(setting: Setting, turns: Turns) -> None:
    """The tool's own training steps, as `catdog-edge train` makes them."""
    arch = architecture(setting.arch)
    steps = squash(arch.size, arch.size)
    dataset = open_dataset(setting.source, limit=setting.limit, steps=steps)
    frames, truth, _ = pixels(dataset, "train", steps)
    frames, truth = frames[: len(setting.labels)], truth[: len(setting.labels)]
    val_frames, val_truth, _ = pixels(dataset, "val", steps)
    spec = ModelSpec(
        architecture=arch.name,
        labels=dataset.labels,
        height=arch.size,
        width=arch.size,
        resize=steps,
        normalization=arch.normalization,
    )
    network = setting.network()
    tried = frames[: min(trial_batch(arch.size), setting.batch_size)]
    precision, gain = choose_precision(network, spec, tried, "cpu")
    chosen = changed(recipe(RECIPE), augment=setting.policy)
    plan = Plan(
        recipe=chosen,
        epochs=chosen.epochs,
        batch_size=setting.batch_size,
        lr=setting.lr,
        seed=setting.seed,
        patience=0,
        precision=precision,
        device="cpu",
    )
    # Two pictures to validate on: the plain loop validates nothing.
    data = TrainingData((frames, truth), (val_frames[:2], val_truth[:2]))

    def step(_metrics: object) -> None:
        turns.stepped()

    def epoch(*_metrics: object) -> None:
        pass

    turns.ready(
        {
            "precision": precision,
            "memory": "channels last",
            "pictures": "cached pixels",
            "tried": f"a bfloat16 step was timed {gain:.2f} times as fast as float32",
        }
    )
    while not turns.over:  # run after run, each as long as the recipe has it
        trainer = Trainer(network, spec, plan, data, Path(setting.scratch))
        trainer.run(lambda: turns.over, step, epoch)


class JpegFiles(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Pictures in files, decoded whenever they are asked for.

    OpenCV reads, resizes and augments (by the tool's own code): it does so faster than Pillow
    and torchvision's transforms, which are what many such loops use.
    """

    def __init__(self, setting: Setting) -> None:
        arch = architecture(setting.arch)
        self._setting, self._size, self._normalization = setting, arch.size, arch.normalization
        self._generator = np.random.default_rng(setting.seed)

    def __len__(self) -> int:
        return len(self._setting.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """`float32 [3,S,S]`, RGB, as the network wants it, and the label."""
        frame = cv2.imread(self._setting.files[index], cv2.IMREAD_COLOR)
        if frame is None:
            raise CatdogError(f"{self._setting.files[index]} was removed while it was in use")
        frame = cv2.resize(frame, (self._size, self._size))
        if self._setting.policy != "none":
            whole = np.asarray(frame, np.uint8)[None]
            frame = augment(whole, self._setting.policy, self._generator)[0]
        rgb = torch.from_numpy(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        # What torchvision's ToTensor does: [3,S,S], contiguous, 0..1.
        picture = rgb.permute(2, 0, 1).contiguous().float().div(255)
        return _normalised(picture, self._normalization), self._setting.labels[index]


def _normalised(picture: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    if normalization == UNIT_RANGE:
        return picture
    mean = torch.tensor(normalization.mean).view(3, 1, 1) / 255
    std = torch.tensor(normalization.std).view(3, 1, 1) / 255
    return picture.sub_(mean).div_(std)


def plain(setting: Setting, turns: Turns) -> None:
    """The loop that people write."""
    network = setting.network().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=setting.lr)
    criterion = nn.CrossEntropyLoss()
    loader = torch.utils.data.DataLoader(
        JpegFiles(setting), batch_size=setting.batch_size, shuffle=True
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


LOOPS: dict[str, Callable[[Setting, Turns], None]] = {"catdog-edge": ours, "plain loop": plain}


def _serve(name: str, setting: Setting, connection: Connection) -> None:
    """What the process of a loop runs."""
    try:
        with torch_threads(setting.threads):
            LOOPS[name](setting, Turns(connection))
    except KeyboardInterrupt:  # Ctrl-C reaches all processes; the one that measures tells
        pass
    except (CatdogError, MemoryError, RuntimeError) as error:
        # RuntimeError: what PyTorch raises where memory does not suffice, among others.
        reason = first_line(error)
        with suppress(OSError):
            connection.send(("failed", reason))


# ---- in the process that measures ----------------------------------------------------------


class Loop:
    """A loop in a process of its own.

    Args:
        name: One of `LOOPS`.
        setting: What it is given.

    Raises:
        CatdogError: It cannot start, and why.
    """

    def __init__(self, name: str, setting: Setting) -> None:
        self.name = name
        # Spawned: a forked process would share its parent's threads' locks.
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, setting, other), daemon=True)
        self._process.start()
        other.close()
        try:
            self.notes: dict[str, str] = self._answer("ready")
        except BaseException:
            self.close()
            raise

    def step(self) -> None:
        """One training step: from the batch to the changed weights.

        Raises:
            CatdogError: The loop has ended.
        """
        with suppress(OSError):  # where the process is gone, the answer tells
            self._connection.send(True)
        self._answer("stepped")

    def close(self) -> None:
        """End the process; its processor time then counts as this one's."""
        with suppress(OSError):
            self._connection.send(False)
        self._connection.close()
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _answer(self, wanted: str) -> Any:
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
