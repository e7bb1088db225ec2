"""The rows of a bench: PyTorch and each exported file, called in the same way.

Imports torch only when a PyTorch row is opened, so that the fresh process of an exported file
never loads it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import CatdogError, first_line
from catdog_edge.images.preprocess import Image, preprocess, to_layout
from catdog_edge.runtime.model_file import PROBABILITIES
from catdog_edge.spec import ModelSpec

REFERENCE = "pytorch"
"""The row that all others are compared with."""

Variant = Literal["eager", "channels-last", "compile"]


@dataclass(frozen=True)
class BenchRow:
    """One row of the table: a file and how it is run.

    `base` is the name without threads and batch: `pytorch`, `pytorch-channels-last`,
    `pytorch-compile`, or the file's stem, followed by `@PROVIDER` for a provider other than the
    CPU's. `suffix` (`:t1`, `:b8`, `:t1:b8`) distinguishes rows of the same base.
    """

    base: str
    engine: Literal["pytorch", "onnxruntime"]
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
        """Whether other rows are compared with it."""
        return self.engine == "pytorch" and self.variant == "eager"

    @property
    def reference(self) -> str:
        """The PyTorch row with the same threads and batch."""
        return REFERENCE + self.suffix


class Runner(Protocol):
    """An opened row; `fixed_batch` are the images that every call takes, `None`: any number."""

    row: BenchRow
    spec: ModelSpec
    fixed_batch: int | None

    def probabilities(self, frames: Sequence[Image]) -> npt.NDArray[np.float32]:
        """Classify frames of any size, `uint8 [H,W,3]` BGR: `float32 [N,K]`."""

    def infer(self, pixels: npt.NDArray[np.uint8]) -> object:
        """Run the engine alone on resized images, `uint8 [N,H,W,3]` BGR."""


def plan_rows(
    weights: Path,
    files: Sequence[Path],
    *,
    providers: Sequence[str] = ("cpu",),
    threads: Sequence[int],
    batches: Sequence[int] = (1,),
    compiled: bool = False,
) -> list[BenchRow]:
    """List the rows for each batch and thread count: PyTorch's, then each file's by provider.

    Thread counts are part of the names where there are several, batches where they are not 1;
    `compiled` adds a row for `torch.compile`.
    """
    variants: list[Variant] = ["eager", "channels-last"]
    if compiled:
        variants.append("compile")
    rows = []
    for batch in batches:
        for count in threads:
            suffix = f":t{count}" if len(threads) > 1 else ""
            suffix += f":b{batch}" if batch > 1 else ""
            for variant in variants:
                base = REFERENCE if variant == "eager" else f"{REFERENCE}-{variant}"
                rows.append(BenchRow(base, "pytorch", str(weights), count, batch, suffix, variant))
            for file, stem in zip(files, _base_names(files), strict=True):
                for provider in providers:
                    base = stem if provider == "cpu" else f"{stem}@{provider}"
                    rows.append(
                        BenchRow(
                            base, "onnxruntime", str(file), count, batch, suffix, provider=provider
                        )
                    )
    return rows


def _base_names(files: Sequence[Path]) -> list[str]:
    """The stem of an `.onnx` file, the whole name of others; after the folder where two clash."""
    short = [file.stem if file.suffix == ".onnx" else file.name for file in files]
    return [
        f"{file.parent.name}/{name}" if short.count(name) > 1 else name
        for file, name in zip(files, short, strict=True)
    ]


def open_row(row: BenchRow) -> Runner:
    """Open a row.

    Raises:
        CatdogError: The file cannot be loaded, the provider does not run here, or
            `torch.compile` does not work here.
    """
    return TorchRunner(row) if row.engine == "pytorch" else OnnxRunner(row)


class OnnxRunner:
    """An exported file in the runtime's `Classifier`; see `open_row`."""

    def __init__(self, row: BenchRow) -> None:
        from catdog_edge.runtime.classifier import Classifier

        self.row = row
        self.classifier = Classifier(
            row.file, provider=row.provider, threads=row.threads, reject=False
        )
        self.spec = self.classifier.spec
        self.fixed_batch = self.classifier._session.fixed_batch

    def probabilities(self, frames: Sequence[Image]) -> npt.NDArray[np.float32]:
        """See `Runner`."""
        return self.classifier.probabilities(frames)

    def infer(self, pixels: npt.NDArray[np.uint8]) -> object:
        """See `Runner`."""
        # The classifier's own session: the time of a second one would differ by percents.
        session = self.classifier._session.ready()
        batch = to_layout(pixels, self.spec.layout)
        return session.run([PROBABILITIES], {session.get_inputs()[0].name: batch})


class TorchRunner:
    """A checkpoint in PyTorch on the CPU, with the runtime's preprocessing; see `open_row`."""

    def __init__(self, row: BenchRow) -> None:
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
        normalization = self.spec.normalization
        self._mean = torch.tensor(normalization.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(normalization.std).view(1, 3, 1, 1)
        self._network = self._compile(network) if row.variant == "compile" else network

    def probabilities(self, frames: Sequence[Image]) -> npt.NDArray[np.float32]:
        """See `Runner`."""
        return self.infer(np.stack([preprocess(frame, self.spec.resize) for frame in frames]))

    def infer(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `Runner`: colour order, scaling, network, temperature and softmax."""
        torch = self._torch
        if torch.get_num_threads() != self.row.threads:
            torch.set_num_threads(self.row.threads)  # rows with other counts share the process
        with torch.inference_mode():
            inputs = torch.from_numpy(np.asarray(pixels)).permute(0, 3, 1, 2).flip(1)
            inputs = inputs.to(torch.float32, memory_format=self._format)
            inputs.sub_(self._mean).div_(self._std)
            # A network trained with negatives has one more logit, for none of the classes.
            logits = self._network(inputs)[:, : len(self.spec.labels)]
            result: npt.NDArray[np.float32] = torch.softmax(
                logits / self.spec.temperature, dim=1
            ).numpy()
            return result

    def _compile(self, network: Any) -> Any:
        # For this batch and these threads alone: another number of threads makes it compile
        # again, and the default limit counts the compilations of all rows.
        self._torch._dynamo.config.recompile_limit = 256
        self._torch.set_num_threads(self.row.threads)
        compiled: Any = self._torch.compile(network, dynamic=False)
        try:
            with self._torch.inference_mode(), contextlib.redirect_stderr(io.StringIO()):
                compiled(self._torch.zeros(self.row.batch, 3, *self.spec.size))
        except Exception as error:  # no C++ compiler, an unsupported operator
            reason = first_line(error)
            raise CatdogError(
                f"torch.compile does not work here ({reason}); leave --compile out"
            ) from error
        return compiled
