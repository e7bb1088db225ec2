"""Images per second of training: this tool against a plain loop, in one interleaved run.

    python -m benchmarks.studies.train_throughput [--data PATH] [--seconds 60] [--json FILE]

See docs/bench.md for what the two loops do and share. A turn on a GPU is as many steps as the
workers of the plain loop may be ahead; where the budget has three turns a round, the median is of
turns that the workers did not prepare.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import torch
from torch import nn

from benchmarks.measure.environment import ActivityMonitor, Environment, noise_reasons
from benchmarks.measure.gpu import Gpu
from benchmarks.measure.interleaved import PAUSE, Measurement, measure
from benchmarks.report.tables import card
from benchmarks.report.text import milliseconds, plain_table, wrap
from benchmarks.studies.command_line import StudyParser, keep
from catdog_edge.errors import CatdogError, DataError, GateError, first_line
from catdog_edge.spec import ModelSpec, squash
from catdog_edge.system.files import cannot_write
from catdog_edge.system.threads import cgroup_quota, choose_threads, usable_processors
from catdog_edge.training.config.recipes import Policy, recipe
from catdog_edge.training.data.dataset import Dataset, Item
from catdog_edge.training.data.folder_or_zip import open_source
from catdog_edge.training.data.open_dataset import open_dataset, pixels
from catdog_edge.training.engine.batches.augment import augment
from catdog_edge.training.engine.device import choose_device, torch_threads
from catdog_edge.training.engine.precision import choose_precision
from catdog_edge.training.engine.trainer import Plan, Trainer, TrainingData
from catdog_edge.training.models.registry import UNIT_RANGE, architecture

RECIPE = "classic"  # Adam, no schedule, no averaging: what the plain loop does in a line
SEED = 0  # of weights, order and augmentation
EPOCH = 500  # steps of an epoch on a GPU
AHEAD = 2  # batches that a worker of a DataLoader prepares ahead
FIRST = 2  # steps before the measurement: PyTorch imports parts of itself in the first one


@dataclass(frozen=True)
class LoopConfig:
    """Settings of both loops."""

    source: str
    limit: int | None
    arch: str
    batch_size: int
    policy: Policy
    threads: int
    files: tuple[str, ...]  # the training images as JPEG, as ordered in the set, whole batches
    labels: tuple[int, ...]
    classes: int
    scratch: str  # a folder for checkpoints
    device: str = "cpu"
    workers: int = 0  # of the DataLoader
    steps: int = 1  # of a turn

    @property
    def lr(self) -> float:
        """The recipe's learning rate, adapted to the batch size as `train` does it."""
        found = recipe(RECIPE)
        return found.lr * min(1.0, self.batch_size / found.batch_size)

    def network(self) -> nn.Module:
        """Create a network with initial weights, the same for both."""
        torch.manual_seed(SEED)
        return architecture(self.arch).build(self.classes)


class Turns:
    """The loop's end of the pipe: reports the steps of a turn, then waits for the next turn."""

    def __init__(self, connection: Connection, config: LoopConfig) -> None:
        self._connection, self._config = connection, config
        self._left = config.steps
        self.over = False

    def wait(self, notes: dict[str, str] | None = None) -> None:
        """Report a step, or before the first one how the loop computes; wait for the next turn."""
        if notes is None:
            self._left -= 1
            if self._left:
                return
            self._left = self._config.steps
            if self._config.device != "cpu":
                torch.cuda.synchronize(self._config.device)
        if not self.over:
            try:
                self._connection.send(notes)
                self.over = not self._connection.recv()
            except (EOFError, OSError):  # the parent process is gone
                self.over = True


def ours(config: LoopConfig, turns: Turns) -> None:
    """Train as `catdog-edge train` does, run after run of the recipe."""
    choose_device(config.device)  # it is the current one in this process, too
    arch = architecture(config.arch)
    steps = squash(arch.size, arch.size)
    dataset = open_dataset(config.source, limit=config.limit, steps=steps)
    frames, truth, _ = pixels(dataset, "train", steps)
    val_frames, val_truth, _ = pixels(dataset, "val", steps)
    count = len(config.labels)
    if config.device != "cpu":
        # Checkpoints are written after each epoch: as many steps as those of a set of usual size.
        torch.backends.cudnn.deterministic = True
        times = max(1, EPOCH * config.batch_size // count)
        frames, truth = (np.concatenate([one[:count]] * times) for one in (frames, truth))
        count *= times
    # Two images to validate on: the plain loop does not validate.
    data = TrainingData((frames[:count], truth[:count]), (val_frames[:2], val_truth[:2]))
    spec = ModelSpec(
        architecture=arch.name,
        labels=dataset.labels,
        height=arch.size,
        width=arch.size,
        resize=steps,
        normalization=arch.normalization,
    )
    network = config.network()
    precision, reason = choose_precision(network, config.device)
    chosen = replace(recipe(RECIPE), augment=config.policy)
    plan = Plan(
        recipe=chosen,
        epochs=chosen.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        seed=SEED,
        patience=0,
        precision=precision,
        device=config.device,
    )
    notes = {"precision": precision, "memory": "channels last", "pictures": "cached pixels"}
    turns.wait({**notes, "tried": f"{precision}: {reason}"})
    while not turns.over:
        trainer = Trainer(network, spec, plan, data, Path(config.scratch))
        trainer.run(lambda: turns.over, lambda _metrics: turns.wait(), lambda *_metrics: None)


class JpegFiles(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Image files, decoded whenever they are requested: `float32 [3,S,S]` and the label.

    For a GPU torchvision resizes and augments; for the CPU the tool's own code, which is faster.
    """

    def __init__(self, config: LoopConfig) -> None:
        self._config, self._arch = config, architecture(config.arch)
        self._generator = np.random.default_rng(SEED)
        self._transform = _torchvision(config) if config.workers else None

    def __len__(self) -> int:
        return len(self._config.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return `float32 [3,S,S]`, RGB, normalised, and the label."""
        file, label = self._config.files[index], self._config.labels[index]
        frame = cv2.imread(file, cv2.IMREAD_COLOR)
        if frame is None:
            raise CatdogError(f"{file} was removed while it was in use")
        if self._transform is None:
            frame = cv2.resize(frame, (self._arch.size, self._arch.size))
            whole = np.asarray(frame, np.uint8)[None]
            frame = augment(whole, self._config.policy, self._generator)[0]
        picture = torch.from_numpy(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)
        if self._transform is not None:
            return self._transform(picture), label
        # As torchvision's ToTensor: [3,S,S], contiguous, 0..1.
        picture = picture.contiguous().float().div(255)
        normalization = self._arch.normalization
        if normalization != UNIT_RANGE:
            picture.sub_(torch.tensor(normalization.mean).view(3, 1, 1) / 255)
            picture.div_(torch.tensor(normalization.std).view(3, 1, 1) / 255)
        return picture, label


def _torchvision(config: LoopConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the torchvision transforms of `uint8 [3,H,W]` closest to the policy."""
    from torchvision.transforms import v2

    arch = architecture(config.arch)
    normalization = arch.normalization
    steps: list[Any] = [v2.Resize((arch.size, arch.size))]
    if config.policy == "classic":
        steps += [v2.RandomRotation(45), v2.RandomHorizontalFlip(0.3)]
        steps += [v2.RandomVerticalFlip(0.05), v2.RandomGrayscale(0.1)]
    elif config.policy != "none":
        steps += [v2.RandomResizedCrop(arch.size, (0.4, 1.0)), v2.RandomHorizontalFlip()]
        steps += [v2.RandomRotation(12), v2.ColorJitter(0.3, 0.3, 0.4)]
    mean, std = (np.divide(one, 255).tolist() for one in (normalization.mean, normalization.std))
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    found: Callable[[torch.Tensor], torch.Tensor] = v2.Compose(steps)
    return found


def usual_loop(config: LoopConfig, turns: Turns) -> None:
    """Run a typical PyTorch training loop: for the CPU, or with workers for a GPU."""
    device, half = torch.device(config.device), bool(config.workers)
    network = config.network().to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    criterion = nn.CrossEntropyLoss()
    files = JpegFiles(config)
    loader = torch.utils.data.DataLoader(
        files,
        batch_size=config.batch_size,
        # Without end: workers that restart for each epoch of a small set would be slower.
        sampler=torch.utils.data.RandomSampler(files, True, 10_000_000),
        num_workers=config.workers,
        pin_memory=device.type == "cuda",
    )
    precision = "bfloat16" if half else "float32"
    turns.wait({"precision": precision, "memory": "NCHW", "pictures": "JPEG files"})
    for inputs, labels in loader:
        images, truth = (one.to(device, non_blocking=True) for one in (inputs, labels))
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = criterion(network(images), truth)
        loss.backward()
        optimizer.step()
        turns.wait()
        if turns.over:
            return


LOOPS: dict[str, Callable[[LoopConfig, Turns], None]] = {
    "catdog-edge": ours,
    "plain loop": usual_loop,
}
OURS, PLAIN = LOOPS


def _serve(name: str, config: LoopConfig, connection: Connection) -> None:
    try:
        with torch_threads(config.threads):
            LOOPS[name](config, Turns(connection, config))
    except KeyboardInterrupt:  # Ctrl-C reaches all processes; the parent reports it
        pass
    except (CatdogError, MemoryError, RuntimeError) as error:  # RuntimeError: PyTorch's, no memory
        with suppress(OSError):
            connection.send(error)


class Loop:
    """A loop of `LOOPS` in a process of its own, which sleeps until it is told to step.

    So neither shares memory allocator, oneDNN's caches or threads with the other.
    """

    def __init__(self, name: str, config: LoopConfig) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")  # a fork would share the threads' locks
        self._connection, other = context.Pipe()
        # A process with workers of its own cannot be a daemon; it ends when the pipe closes.
        daemon, arguments = not config.workers, (name, config, other)
        self._process = context.Process(target=_serve, args=arguments, daemon=daemon)
        self._process.start()
        other.close()
        try:
            self.notes: dict[str, str] = self._receive()
        except BaseException:
            self.close()
            raise

    def step(self) -> None:
        """Make the training steps of a turn: from the batch to the changed weights."""
        with suppress(OSError):  # the process is gone: `_receive` says so
            self._connection.send(True)
        self._receive()

    def close(self) -> None:
        """End the process; its processor time then counts as this one's."""
        with suppress(OSError):
            self._connection.send(False)
        self._connection.close()
        self._process.join(timeout=30)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _receive(self) -> Any:
        try:
            content = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(timeout=5)
            raise CatdogError(
                f"the process of the {self.name} ended with code {self._process.exitcode}; "
                "if memory was short, try a smaller --batch-size"
            ) from None
        if isinstance(content, Exception):
            raise CatdogError(f"the {self.name} failed: {first_line(content)}")
        return content


def training_images(options: argparse.Namespace, size: int) -> tuple[Dataset, list[Item]]:
    """Return the data set and the training images of whole batches, both splits in the cache."""
    batch, steps = options.batch_size, squash(size, size)
    if batch < 2:
        raise CatdogError(f"--batch-size must be at least 2, got {batch}")
    dataset = open_dataset(options.data, limit=options.limit, steps=steps)
    _, _, items = pixels(dataset, "train", steps)
    pixels(dataset, "val", steps)
    if len(items) < batch:
        raise DataError(
            f"{dataset.source}: {len(items):,} training images make no batch of {batch:,}; "
            "raise --limit or lower --batch-size"
        )
    return dataset, list(items[: len(items) // batch * batch])


def cores() -> int:
    """Count the processors that this process may run on, within its quota."""
    quota, usable = cgroup_quota(), len(usable_processors())
    return usable if quota is None else max(1, min(usable, int(quota)))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure."""
    arch, threads = architecture(options.arch), choose_threads(options.threads)
    device = choose_device(options.device)
    workers = 0 if device == "cpu" else cores()
    dataset, items = training_images(options, arch.size)
    environment = Environment.detect(threads)
    if device in ("cuda", "cuda:0"):  # the one that is described
        environment = replace(environment, gpu=Gpu.detect())
    # Until the loops have ended: only then their processor time counts as this process's own.
    monitor = ActivityMonitor(with_gpu=environment.gpu is not None)
    with tempfile.TemporaryDirectory(prefix="train-throughput-") as scratch:
        config = LoopConfig(
            source=dataset.source,
            limit=options.limit,
            arch=arch.name,
            batch_size=options.batch_size,
            policy=options.augment,
            threads=threads.count,
            files=write_jpegs(dataset, items, Path(scratch)),
            labels=tuple(item.label for item in items),
            classes=len(dataset.labels),
            scratch=scratch,
            device=device,
            workers=workers,
            steps=max(1, AHEAD * workers),
        )
        notes, found = time_loops(config, options.seconds)
    activity = monitor.stop()
    return {
        "kind": "catdog-edge train throughput",
        "schema": 1,
        "settings": {
            "data": "sample" if dataset.is_sample else Path(dataset.source).name,
            "pictures": len(items),
            "arch": arch.name,
            "size": arch.size,
            "batch_size": options.batch_size,
            "augment": options.augment,
            "threads": threads.count,
            "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(device),
            "steps": config.steps,
            "seconds": options.seconds,
            "rounds": found.timing.rounds,
            "pause_ms": 1e3 * PAUSE,
        },
        "ratio": asdict(found.ratios[PLAIN]),
        "rows": [
            {
                "name": name,
                **notes[name],
                "pictures_per_second": 1e3 * options.batch_size * config.steps / summary.p50_ms,
                "step": asdict(summary),
                "warm_up": vars(found.warm_ups[name]),
            }
            for name, summary in found.summaries.items()
        ],
        "environment": asdict(environment),
        "quiet": asdict(activity),
        "noise": noise_reasons(environment, activity, found.drifts),
    }


def time_loops(config: LoopConfig, seconds: float) -> tuple[dict[str, dict[str, str]], Measurement]:
    """Time both loops, interleaved; return by loop how it computes, and the measurement."""
    with ExitStack() as stack:
        loops = [stack.enter_context(closing(Loop(name, config))) for name in LOOPS]
        for loop in loops * FIRST:
            loop.step()
        steps = {loop.name: loop.step for loop in loops}
        found = measure(steps, seconds, references={PLAIN: OURS, OURS: OURS})
        return {loop.name: loop.notes for loop in loops}, found


def write_jpegs(dataset: Dataset, items: Sequence[Item], folder: Path) -> tuple[str, ...]:
    """Copy JPEG files, and encode others at their own size with OpenCV's quality of 95."""
    source = None if dataset.is_sample else open_source(dataset.source)
    paths = []
    for number, item in enumerate(items):
        path = folder / f"{number:06}.jpg"
        data = b"" if source is None else source.read(item.file)
        if not data.startswith(b"\xff\xd8\xff"):
            data = cv2.imencode(".jpg", dataset.decode(item))[1].tobytes()
        try:
            path.write_bytes(data)
        except OSError as error:
            raise cannot_write(path, error) from error
        paths.append(str(path))
    return tuple(paths)


def text(document: dict[str, Any]) -> str:
    """Format the document as a table of at most 100 columns."""
    settings, ratio = document["settings"], document["ratio"]
    rows = [
        [
            *(row[name] for name in ("name", "pictures", "precision", "memory")),
            f"{row['pictures_per_second']:,.1f}",
            *(milliseconds(row["step"][name]) for name in ("p50_ms", "p95_ms")),
            str(row["step"]["calls"]),
        ]
        for row in document["rows"]
    ]
    unit = "step" if settings["steps"] == 1 else f"{settings['steps']} steps"
    heads = ("loop", "from", "precision", "memory", "images/s", f"{unit}, ms", "p95, ms", "turns")
    head = (
        f"{settings['arch']} at {settings['size']}x{settings['size']}, Adam, batch "
        f"{settings['batch_size']}, augmentation {settings['augment']}, {settings['pictures']:,} "
        f"images of {settings['data']}, on {settings['device']}"
    )
    result = (
        f"{OURS} trains {ratio['value']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f}) times as "
        f"many images per second as the {PLAIN} (median of {settings['rounds']} rounds, 95 % "
        "bootstrap interval)"
    )
    notes = [result, f"{OURS}: {document['rows'][0]['tried']}"]
    notes += [f"{name}: {value}" for name, value in card(document)]
    notes += [f"NOISY: {reason}" for reason in document["noise"]] or ["the machine was quiet"]
    lines = [*wrap(head), "", *plain_table(heads, rows), ""]
    return "\n".join(lines + [line for note in notes for line in wrap(note)])


def report(options: argparse.Namespace) -> None:
    """Measure and print."""
    document = run(options)
    print(text(document))
    keep(document, options.json)
    value = document["ratio"]["value"]
    if options.min_ratio is not None and value < options.min_ratio:
        raise GateError(f"the ratio is {value:.2f}, at least {options.min_ratio:g} asked for")


main = StudyParser("train_throughput", __doc__, report)
main.add_argument("--data", help="a folder, a .zip or sample; else $CATDOG_DATA or sample")
main.add_argument("--limit", type=int, default=800, help="images to take, all splits (800)")
main.add_argument("--arch", default="simple_cnn", help="the network (simple_cnn)")
main.add_argument("--batch-size", type=int, default=20, help="images per step (20)")
policies = get_args(Policy)
main.add_argument("--augment", choices=policies, default="classic", help="in both (classic)")
main.add_argument("--device", default="cpu", help="cpu, cuda or cuda:NUMBER (cpu)")
main.threads("of PyTorch, in both")
main.seconds(60.0, "for the rounds")
main.json()
main.add_argument("--min-ratio", type=float, help="exit with code 3 below this")

if __name__ == "__main__":
    sys.exit(main())
