"""The rows of a bench; torch is imported where a PyTorch row is opened, and nowhere else."""

from __future__ import annotations

import contextlib
import io
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from catdog_edge.errors import CatdogError, ModelError, ProviderError, first_line
from catdog_edge.images.preprocess import Image, preprocess
from catdog_edge.runtime.model_file import ZOO
from catdog_edge.runtime.providers.nvidia import fp16_file
from catdog_edge.runtime.providers.start import GPU
from catdog_edge.spec import ModelSpec
from catdog_edge.training.array_types import Float32, Pixels

Variant = Literal["eager", "channels-last", "half", "compile"]

REFERENCE = "pytorch"  # PyTorch eager on the CPU
MOST_ON_CPU = 32  # images of a call: `Classifier` gives a session on the CPU no more
TF32 = True  # whether float32 convolutions of PyTorch on a GPU may use TF32: ONNX Runtime's default


@dataclass(frozen=True)
class BenchRow:
    """One row of the table: a file and how it is run.

    `base` is the name without threads and batch (docs/bench.md), `suffix` (`:t1`, `:b8`, `:t1:b8`)
    tells rows of one base apart. `compared_with` is the base of an imported file, which no PyTorch
    network is behind, where that is the reference.
    """

    base: str
    engine: Literal["pytorch", "onnxruntime"]
    file: str
    threads: int
    batch: int = 1
    suffix: str = ""
    variant: Variant = "eager"
    provider: str = "cpu"
    compared_with: str = ""

    @property
    def name(self) -> str:
        """The name in tables, files and gates; without spaces."""
        return self.base + self.suffix

    @property
    def device(self) -> str:
        """PyTorch's name of the device that it runs on: `cpu` or `cuda`."""
        return _device(self.provider)

    @property
    def is_reference(self) -> bool:
        """Whether the times of other rows are compared with its."""
        eager = self.engine == "pytorch" and self.variant == "eager"
        return eager or self.base == self.compared_with

    @property
    def references(self) -> list[str]:
        """The PyTorch rows with the same threads and batch: on its device, else on the CPU."""
        if self.compared_with:
            return [self.compared_with + self.suffix]
        return [
            _torch_base("eager", one) + self.suffix for one in dict.fromkeys((self.device, "cpu"))
        ]


class Runner(ABC):
    """An opened row.

    `fixed_batch` are the images that every call takes, `None`: any number; `tf32` says whether
    float32 on a GPU was computed in TF32, `None` where that does not apply.
    """

    row: BenchRow
    spec: ModelSpec
    fixed_batch: int | None = None
    tf32: bool | None = None

    @abstractmethod
    def probabilities(self, frames: Sequence[Image]) -> Float32:
        """Classify frames of any size, `uint8 [H,W,3]` BGR: `float32 [N,K]`."""

    @abstractmethod
    def infer(self, pixels: Pixels) -> object:
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
    """List the rows for each batch and thread count: PyTorch's by device, then each file's.

    Batches above `MOST_ON_CPU` have rows on other devices alone.
    """
    devices = dict.fromkeys(["cpu", *map(_device, providers)])
    names = list(zip(files, _base_names(files), strict=True))
    imported = names[0][1] if weights in files else ""
    rows = []
    for batch in batches:
        for count in threads:
            suffix = f":t{count}" if len(threads) > 1 else ""
            suffix += f":b{batch}" if batch > 1 else ""
            found = [
                BenchRow(
                    _torch_base(variant, device), "pytorch", str(weights), count, batch, suffix,
                    variant, device,
                )
                for device in devices
                if not imported
                for variant in _variants(device, compiled)
            ]  # fmt: skip
            for file, stem in names:
                for provider in providers:
                    base = stem if provider == "cpu" else f"{stem}@{provider}"
                    # Of a shipped model the file that `Classifier` takes on the provider.
                    half = fp16_file(file) if provider in GPU and file.parent == ZOO else None
                    row = BenchRow(base, "onnxruntime", str(half or file), count, batch, suffix)
                    found.append(replace(row, provider=provider, compared_with=imported))
            rows += [row for row in found if batch <= MOST_ON_CPU or row.device != "cpu"]
    return rows


def references(rows: Sequence[BenchRow]) -> dict[str, str]:
    """Map each row to the first of its `references` among `rows`; omit rows without one."""
    names = {row.name for row in rows}
    found = {row.name: next(iter(filter(names.__contains__, row.references)), "") for row in rows}
    return {name: reference for name, reference in found.items() if reference}


def _device(provider: str) -> str:
    return "cuda" if provider in GPU else "cpu"


def _variants(device: str, compiled: bool) -> list[Variant]:
    found: list[Variant] = ["eager", "channels-last"]
    if device != "cpu":
        found.append("half")
    return [*found, "compile"] if compiled else found


def _torch_base(variant: Variant, device: str) -> str:
    base = REFERENCE if variant == "eager" else f"{REFERENCE}-{variant}"
    return base if device == "cpu" else f"{base}@{device}"


def _base_names(files: Sequence[Path]) -> list[str]:
    """Return a file's stem (`.onnx`) or whole name (others), after the folder where two clash."""
    short = [file.stem if file.suffix == ".onnx" else file.name for file in files]
    return [
        f"{file.parent.name}/{name}" if short.count(name) > 1 else name
        for file, name in zip(files, short, strict=True)
    ]


def open_row(row: BenchRow) -> Runner:
    """Open a row; `CatdogError` if file, provider or `torch.compile` do not work here."""
    return TorchRunner(row) if row.engine == "pytorch" else OnnxRunner(row)


class OnnxRunner(Runner):
    """An exported file in the runtime's `Classifier`."""

    def __init__(self, row: BenchRow) -> None:
        from catdog_edge.runtime.classifier import Classifier

        self.row = row
        self.classifier = Classifier(
            row.file, provider=row.provider, threads=row.threads, reject=False
        )
        self.spec = self.classifier.spec
        self.fixed_batch = self.classifier._session.fixed_batch
        if row.provider == "cuda" and self.spec.precision == "fp32":
            options = self.classifier._session.ready().get_provider_options()
            self.tf32 = options["CUDAExecutionProvider"].get("use_tf32", "1") == "1"

    def probabilities(self, frames: Sequence[Image]) -> Float32:
        """See `Runner`."""
        return self.classifier.probabilities(frames)

    def infer(self, pixels: Pixels) -> object:
        """See `Runner`."""
        # The classifier's own session: the time of a second one would differ by percents.
        return self.classifier._session.run(list(pixels))


class TorchRunner(Runner):
    """A checkpoint in PyTorch, with the runtime's preprocessing.

    Images go to the device as `uint8` and the answers come back within each call.
    """

    def __init__(self, row: BenchRow) -> None:
        import torch

        from catdog_edge.training.models.checkpoint import load_checkpoint

        self.row, self._torch = row, torch
        network, self.spec = load_checkpoint(row.file)
        if row.device != "cpu":
            if not torch.cuda.is_available():
                built = "finds no CUDA device" if torch.version.cuda else "built without CUDA"
                raise ProviderError(f"PyTorch {torch.__version__} {built}")
            if row.variant != "half":
                self.tf32 = TF32
                with warnings.catch_warnings():  # of another interface to the same settings
                    warnings.simplefilter("ignore")
                    torch.backends.cuda.matmul.allow_tf32 = TF32
                    torch.backends.cudnn.allow_tf32 = TF32
        last = row.variant in ("channels-last", "half")
        self._format = torch.channels_last if last else torch.contiguous_format
        self._network = network.to(row.device).to(memory_format=self._format)
        normalization = self.spec.normalization
        self._mean = torch.tensor(normalization.mean, device=row.device).view(1, 3, 1, 1)
        self._std = torch.tensor(normalization.std, device=row.device).view(1, 3, 1, 1)
        self._run = self._compiled() if row.variant == "compile" else self._forward

    def probabilities(self, frames: Sequence[Image]) -> Float32:
        """See `Runner`."""
        return self.infer(np.stack([preprocess(frame, self.spec.resize) for frame in frames]))

    def infer(self, pixels: Pixels) -> Float32:
        """See `Runner`."""
        torch = self._torch
        if torch.get_num_threads() != self.row.threads:
            torch.set_num_threads(self.row.threads)  # rows with other counts share the process
        half: Any = contextlib.nullcontext()
        if self.row.variant == "half":
            half = torch.autocast(self.row.device, torch.float16)
        try:
            with torch.inference_mode(), half:
                images = torch.from_numpy(np.asarray(pixels)).to(self.row.device)
                # To the CPU: this waits for the device.
                result: Float32 = self._run(images).cpu().numpy()
                return result
        except torch.OutOfMemoryError:
            pass
        torch.cuda.empty_cache()  # for the rows of ONNX Runtime
        raise ModelError(
            f"{self.row.name}: the GPU's memory is too small for {len(pixels)} images a call; "
            "give a smaller --batch"
        )

    def _forward(self, pixels: Any) -> Any:
        """Return probabilities, `float32 [N,K]`, of `uint8 [N,H,W,3]`."""
        inputs = pixels.permute(0, 3, 1, 2).flip(1)
        inputs = inputs.to(self._torch.float32, memory_format=self._format)
        inputs = inputs.sub_(self._mean).div_(self._std)
        # A network trained with negatives has one more logit, for none of the classes.
        logits = self._network(inputs)[:, : len(self.spec.labels)]
        return self._torch.softmax(logits / self.spec.temperature, dim=1)

    def _compiled(self) -> Any:
        # For this batch and these threads alone: another number of threads makes it compile
        # again, and the default limit counts the compilations of all rows.
        torch, device = self._torch, self.row.device
        torch._dynamo.config.recompile_limit = 256
        torch.set_num_threads(self.row.threads)
        mode = None if device == "cpu" else "reduce-overhead"  # with CUDA graphs
        compiled: Any = torch.compile(self._forward, dynamic=False, mode=mode)
        blank = torch.zeros(self.row.batch, *self.spec.size, 3, dtype=torch.uint8, device=device)
        try:
            with torch.inference_mode(), contextlib.redirect_stderr(io.StringIO()):
                for _ in range(3):  # CUDA graphs: a call to warm up, one to record, one to replay
                    compiled(blank)
        except Exception as error:  # no C++ compiler, an unsupported operator
            reason = first_line(error)
            raise CatdogError(
                f"torch.compile does not work here ({reason}); leave --compile out"
            ) from error
        return compiled
