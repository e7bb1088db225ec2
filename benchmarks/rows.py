"""What is measured: PyTorch and exported files, each asked for answers in the same way.

Knows how a row is named and how it is opened. Knows nothing of clocks, statistics or data
sets. Imports torch only when a PyTorch row is opened, so that a fresh process of an ONNX row
has none of it in its memory.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import CatdogError, first_line
from catdog_edge.images.preprocess import Frame, preprocess, to_layout
from catdog_edge.runtime.model_file import PROBABILITIES
from catdog_edge.spec import ModelSpec

REFERENCE = "pytorch"
"""The row that all others are compared with."""

Engine = Literal["pytorch", "onnxruntime"]
Variant = Literal["eager", "channels-last", "compile"]


@dataclass(frozen=True)
class Row:
    """One row of the table: a file, and how it is run.

    Attributes:
        base: The name without threads and batch: `pytorch`, `pytorch-channels-last`,
            `pytorch-compile`, or the file's stem, with `@PROVIDER` behind it for another
            provider than the CPU's.
        engine: Who runs it.
        file: The checkpoint or the exported file.
        threads: Threads of the engine.
        batch: Pictures per call.
        suffix: `:t1`, `:b8`, `:t1:b8`: what sets it apart from rows of the same base.
        variant: How PyTorch runs it.
        provider: The execution provider that ONNX Runtime is asked for.
    """

    base: str
    engine: Engine
    file: str
    threads: int
    batch: int = 1
    suffix: str = ""
    variant: Variant = "eager"
    provider: str = "cpu"

    @property
    def name(self) -> str:
        """The name in tables, files and gates; without spaces."""
        return self.base + self.suffix

    @property
    def is_reference(self) -> bool:
        """Whether others are compared with it."""
        return self.engine == "pytorch" and self.variant == "eager"

    @property
    def reference(self) -> str:
        """The PyTorch row with the same threads and batch."""
        return REFERENCE + self.suffix

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `Row(**document)` reads it back."""
        return asdict(self)


class Subject(Protocol):
    """An opened row."""

    row: Row
    spec: ModelSpec
    fixed_batch: int | None
    """Pictures that every call of the engine takes; `None`: any number."""

    def probabilities(self, frames: Sequence[Frame]) -> npt.NDArray[np.float32]:
        """Frames of any size, `uint8 [H,W,3]` BGR, to `float32 [N,K]`."""

    def session(self, pixels: npt.NDArray[np.uint8]) -> object:
        """The engine alone, on resized pictures `uint8 [N,H,W,3]` BGR."""


def plan_rows(
    weights: Path,
    files: Sequence[Path],
    *,
    providers: Sequence[str] = ("cpu",),
    threads: Sequence[int],
    batches: Sequence[int] = (1,),
    compiled: bool = False,
) -> list[Row]:
    """Name the rows: PyTorch's first, then each file on each provider.

    Args:
        weights: The checkpoint that PyTorch runs.
        files: The exported files.
        providers: Short names of execution providers.
        threads: Thread counts; the names tell them apart where there are several.
        batches: Batch sizes; the names tell those that are not 1.
        compiled: Whether `torch.compile` gets a row.
    """
    variants: list[Variant] = ["eager", "channels-last"]
    if compiled:
        variants.append("compile")
    stems = base_names(files)
    rows = []
    for batch in batches:
        for count in threads:
            suffix = (f":t{count}" if len(threads) > 1 else "") + (
                f":b{batch}" if batch > 1 else ""
            )
            for variant in variants:
                base = REFERENCE if variant == "eager" else f"{REFERENCE}-{variant}"
                rows.append(
                    Row(base, "pytorch", str(weights), count, batch, suffix, variant=variant)
                )
            for file, stem in zip(files, stems, strict=True):
                for provider in providers:
                    base = stem if provider == "cpu" else f"{stem}@{provider}"
                    rows.append(
                        Row(base, "onnxruntime", str(file), count, batch, suffix, provider=provider)
                    )
    return rows


def base_names(files: Sequence[Path]) -> list[str]:
    """The stem of each `.onnx` file, the whole name of others.

    The folder's name stands before it where two files would have the same name.
    """
    short = [file.stem if file.suffix == ".onnx" else file.name for file in files]
    return [
        f"{file.parent.name}/{name}" if short.count(name) > 1 else name
        for file, name in zip(files, short, strict=True)
    ]


def open_subject(row: Row) -> Subject:
    """Open a row.

    Raises:
        CatdogError: The file cannot be loaded, the provider does not run here, or
            `torch.compile` does not work here.
    """
    return TorchSubject(row) if row.engine == "pytorch" else OnnxSubject(row)


class OnnxSubject:
    """An exported file through the runtime's own `Classifier`.

    Args:
        row: What to open.

    Raises:
        CatdogError: See `open_subject`.
    """

    def __init__(self, row: Row) -> None:
        from catdog_edge.runtime.classifier import Classifier

        self.row = row
        self.classifier = Classifier(
            row.file, provider=row.provider, threads=row.threads, reject=False
        )
        self.spec = self.classifier.spec
        self.fixed_batch = self.classifier._fixed

    def probabilities(self, frames: Sequence[Frame]) -> npt.NDArray[np.float32]:
        """See `Subject`."""
        return self.classifier.probabilities(frames)

    def session(self, pixels: npt.NDArray[np.uint8]) -> object:
        """See `Subject`."""
        # The very session that answers: another one of the same file would differ by percents.
        session = self.classifier._ready()
        batch = to_layout(pixels, self.spec.layout)
        return session.run([PROBABILITIES], {session.get_inputs()[0].name: batch})


class TorchSubject:
    """A checkpoint in PyTorch on the CPU, fed by the runtime's own preprocessing.

    Args:
        row: What to open.

    Raises:
        CatdogError: See `open_subject`.
    """

    def __init__(self, row: Row) -> None:
        import torch

        from catdog_edge.training.models.checkpoint import load_checkpoint

        self.row = row
        self.fixed_batch: int | None = None
        self._torch = torch
        network, self.spec = load_checkpoint(row.file)
        self._format = torch.contiguous_format
        if row.variant == "channels-last":
            self._format = torch.channels_last
            network = network.to(memory_format=torch.channels_last)
        self._network: Any = network
        normalization = self.spec.normalization
        self._mean = torch.tensor(normalization.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(normalization.std).view(1, 3, 1, 1)
        if row.variant == "compile":
            self._network = self._compiled(network)

    def probabilities(self, frames: Sequence[Frame]) -> npt.NDArray[np.float32]:
        """See `Subject`."""
        return self.session(np.stack([preprocess(frame, self.spec.resize) for frame in frames]))

    def session(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `Subject`: colour order, scaling, network, temperature and softmax."""
        torch = self._torch
        if torch.get_num_threads() != self.row.threads:
            torch.set_num_threads(self.row.threads)  # rows of several counts share a process
        with torch.inference_mode():
            pictures = torch.from_numpy(np.asarray(pixels)).permute(0, 3, 1, 2).flip(1)
            pictures = pictures.to(torch.float32, memory_format=self._format)
            pictures.sub_(self._mean).div_(self._std)
            # Behind the classes a network may have a logit for none of them.
            logits = self._network(pictures)[:, : len(self.spec.labels)]
            result: npt.NDArray[np.float32] = torch.softmax(
                logits / self.spec.temperature, dim=1
            ).numpy()
            return result

    def _compiled(self, network: Any) -> Any:
        # For this batch alone, whatever other rows have compiled; and with the threads that it
        # will run with, since another number makes it compile again.
        self._torch._dynamo.config.recompile_limit = 256
        self._torch.set_num_threads(self.row.threads)
        compiled: Any = self._torch.compile(network, dynamic=False)
        try:
            with self._torch.inference_mode(), contextlib.redirect_stderr(io.StringIO()):
                compiled(self._torch.zeros(self.row.batch, 3, *self.spec.size))
        except Exception as error:  # a missing C++ compiler, an operator that it cannot take
            reason = first_line(error)
            raise CatdogError(
                f"torch.compile does not work here ({reason}); leave --compile out"
            ) from error
        return compiled
