"""The piece that people embed: camera frames in, `Prediction` out.

One ONNX Runtime session and its spec. Knows nothing of cameras, files of pictures or torch.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import ModelError
from catdog_edge.images.preprocess import Image, preprocess, to_nchw
from catdog_edge.runtime import providers
from catdog_edge.runtime.forks import Inherited, keep_for_ever
from catdog_edge.runtime.io_binding import BoundRunner
from catdog_edge.runtime.model_file import (
    KNOWN,
    PROBABILITIES,
    Travelled,
    arrived,
    find_model,
    is_runtimes,
    not_run,
    spec_of,
)
from catdog_edge.runtime.process_guard import enter, leave
from catdog_edge.runtime.threads import choose_threads
from catdog_edge.spec import NEITHER, ModelSpec, Prediction, Rejection
from catdog_edge.system import packages

Probabilities = npt.NDArray[np.float32]

SPIN = 1000
"""Microseconds that idle threads of a session spin before they sleep, unless the caller says
otherwise; measured in `docs/runtime.md`."""

CHUNK = 32
"""Frames per call of the session, so that a batch of any length needs bounded memory."""

LOWEST, HIGHEST = -0.01, 1.01
"""What half floats and int8 may make of the probabilities 0 and 1; beyond, it is none."""


class Classifier(Inherited):
    """A model that answers camera frames; safe to call from several threads.

    Args:
        model: A path, the bytes of an ONNX file, the name of a shipped model, or `None` for
            the default one.
        provider: `auto` (the best that really starts here), `cpu`, `cuda`, `tensorrt`,
            `openvino`, `coreml`, or a list of names and `(name, options)` pairs.
        threads: Threads of the session; `None`: `$CATDOG_EDGE_THREADS`, or what the process
            may really use.
        reject: When to answer `neither`. `None`: as the spec says. A threshold above 0, up
            to 1: where the spec's score (without one: the largest probability) is below it.
            `False` or 0: never.
        spin: Microseconds that idle threads spin before they sleep; `False` or 0: they
            sleep at once; `True`: as long as ONNX Runtime does of itself, 5 ms and more. See
            `docs/runtime.md`.

    What it was made with can be read and not changed: `spec`, `path`, `provider`, `reason`,
    `threads` and `reject`.

    Raises:
        ModelError: The model is missing, damaged, too new, or has no spec.
        ProviderError: A provider asked for by name does not run here.
        TypeError: `model` is none of these.
        ValueError: Another argument is of another kind or out of range.

    Example:
        >>> pets = Classifier()
        >>> print(pets(frame))
        cat 0.97
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | None = None,
        provider: providers.Asked = "auto",
        threads: int | None = None,
        reject: float | bool | None = None,
        *,
        spin: bool | int = SPIN,
    ) -> None:
        packages.opencv()
        self._file = find_model(model)
        self._stamp = self._file.stamp()
        self._asked = provider
        self._threads = choose_threads(threads)
        self._asked_reject = _python(reject)
        self._spin = _python(spin)
        self._closed = False
        # Held while the session is exchanged, never during a call. A signal handler may close
        # what its own thread is about to open, hence the R.
        self._lock = threading.RLock()
        self._open()
        self._reject = _rejection(self._asked_reject, self._spec)
        super().__init__()

    def _open(self) -> Any:
        """Make the session; gives it back.

        Raises:
            ModelError: The file is another one than at the first time.
        """
        if self._file.stamp() != self._stamp:
            raise ModelError(
                f"{self._file.name} has changed since it was opened and has to be opened again; "
                "make a new Classifier"
            )
        settings = providers.Settings(self._threads.count, self._spin)
        me = enter()
        try:
            opened = providers.open_session(self._file, self._asked, settings)
        finally:
            leave(me)
        self._spec: ModelSpec = spec_of(opened.session, self._file)
        self._provider: str = opened.provider
        self._reason: str = opened.reason
        one = opened.session.get_inputs()[0]
        self._input = one.name
        self._fixed: int | None = one.shape[0] if isinstance(one.shape[0], int) else None
        known = any(output.name == KNOWN for output in opened.session.get_outputs())
        self._outputs = [PROBABILITIES, KNOWN] if known else [PROBABILITIES]
        self._bound: BoundRunner | None = None
        if opened.provider in ("cuda", "tensorrt"):
            options = opened.session.get_provider_options()
            device_id = options[providers.NAMES[opened.provider]].get("device_id", "0")
            self._bound = BoundRunner(opened.session, self._outputs, "cuda", int(device_id))
        # Last: another thread that sees a session finds the rest complete.
        self._session: Any = opened.session
        return opened.session

    @property
    def spec(self) -> ModelSpec:
        """What the model is."""
        return self._spec

    @property
    def path(self) -> Path | None:
        """The file, absolute; `None` for a model given as bytes."""
        return self._file.path

    @property
    def provider(self) -> str:
        """Short name of the provider that runs."""
        return self._provider

    @property
    def reason(self) -> str:
        """Why it is this one."""
        return self._reason

    @property
    def threads(self) -> int:
        """Threads of the session."""
        return self._threads.count

    @property
    def reject(self) -> Rejection | None:
        """The rejection in force; `None`: never `neither`."""
        return self._reject

    def __call__(self, frame: Any) -> Prediction:
        """Answer one frame.

        Args:
            frame: `uint8`, `[H,W,3]` BGR, `[H,W]` grey or `[H,W,4]` BGRA, contiguous or not,
                any size from 1x1.

        Raises:
            ValueError: It is something else; the message says what came.
            ModelError: The classifier is closed, ONNX Runtime cannot run it (where memory is
                short, for instance), or what it answers is no probability.
        """
        return self._predictions(*self._run(self._batch_of([self._picture(frame)])))[0]

    def batch(self, frames: Iterable[Any]) -> list[Prediction]:
        """Answer several frames; sizes and kinds may differ from frame to frame.

        Args:
            frames: A list or another iterable of frames, or one array `uint8 [N,H,W,3]`.

        Returns:
            As many answers as frames, in their order; none for none.

        Raises:
            ValueError: One of them is not a frame; the message says which. Or it is not
                several frames.
            ModelError: See `__call__`.
        """
        answers: list[Prediction] = []
        for chunk in self._chunks(frames):
            answers += self._predictions(*self._run(chunk))
        return answers

    def probabilities(self, frames: Iterable[Any]) -> Probabilities:
        """Calibrated probabilities of several frames, before any rejection.

        Args:
            frames: Frames as `__call__` takes them, or one array `uint8 [N,H,W,3]`.

        Returns:
            `float32 [N,K]`, 0..1, columns in the order of `spec.labels`; `[0,K]` for no
            frames.

        Raises:
            ValueError: One of them is not a frame; the message says which. Or it is not
                several frames.
            ModelError: See `__call__`.
        """
        parts = [self._checked(self._run(chunk)[0]) for chunk in self._chunks(frames)]
        if not parts:
            return np.zeros((0, len(self.spec.labels)), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def scores(self, frames: Iterable[Any]) -> Probabilities:
        """How sure the model is that it sees one of its classes at all.

        Rejection compares this with its threshold. A model whose spec has the score `known`
        has an output of its own for it; any other gives its largest probability.

        Args:
            frames: See `probabilities`.

        Returns:
            `float32 [N]`, 0..1.

        Raises:
            ValueError: See `probabilities`.
            ModelError: See `__call__`.
        """
        rejection = self.spec.rejection
        knows = rejection is not None and rejection.score == "known"
        parts = [
            self._checked(results[1].reshape(-1) if knows else results[0].max(axis=1))
            for results in map(self._run, self._chunks(frames))
        ]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def warmup(self, calls: int = 3, batch: int = 1) -> None:
        """Run a few empty frames, so that the first real one is not slower than the rest.

        On CUDA this is when cuDNN searches for its fastest kernels, once per batch size.
        """
        blank = np.zeros((*self.spec.size, 3), np.uint8)
        for _ in range(calls):
            self.probabilities([blank] * batch)

    def close(self) -> None:
        """Give the session back. A later call raises `ModelError`.

        A call that is under way in another thread ends as usual, and the session with it; of a
        batch it is the chunk under way that ends, and the next one that raises.
        """
        with self._lock:
            session = self._session, self._bound
            self._closed = True
            self._session = self._bound = None
        del session  # its threads end here or, where it is in use, with the last call

    def __enter__(self) -> Self:
        self._ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        model = str(self.path) if self.path is not None else "bytes"
        state = ", closed" if self._closed else ""
        return (
            f"Classifier({model!r}, {self.spec.architecture} {self.spec.precision} "
            f"{self.spec.height}x{self.spec.width}, labels={_few(self.spec.labels)}, "
            f"provider={self.provider!r} ({self.reason}), threads={self.threads} "
            f"(from {self._threads.source}){state})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        if self._closed:
            raise ModelError("this classifier is closed and cannot travel; make a new one")
        # A session cannot travel; its ingredients can. The copy opens the same file again
        # and chooses provider and threads anew, for the machine that it wakes up on. A shipped
        # model goes by its name: over there the package lies elsewhere.
        threads = self._threads.count if self._threads.source == "the argument" else None
        rest = (self._asked, threads, self._asked_reject, self._spin)
        more = {name: value for name, value in vars(self).items() if name not in _OWN}
        return _restored, (type(self), self._file.travels(), *rest), more or None

    def _chunks(self, frames: Iterable[Any]) -> Iterator[npt.NDArray[Any]]:
        """Batches that the session takes, `CHUNK` frames or the fixed batch at a time."""
        self._ready()  # no frames are an error, too, where it is closed
        wanted = "wanted several frames, a list of them or uint8 [N,H,W,3]"
        if isinstance(frames, np.ndarray) and frames.ndim != 4:
            raise ValueError(
                f"{wanted}, got one array of shape {list(frames.shape)}; for one frame call the "
                "classifier itself"
            )
        if isinstance(frames, (str, bytes)) or not isinstance(frames, Iterable):
            raise ValueError(f"{wanted}, got {type(frames).__name__}")
        pictures: list[Image] = []
        for index, frame in enumerate(frames):
            try:
                pictures.append(self._picture(frame))
            except ValueError as error:
                raise ValueError(f"frame {index}: {error}") from error
            if len(pictures) == CHUNK:
                yield self._batch_of(pictures)
                pictures = []
        if pictures:
            yield self._batch_of(pictures)

    def _picture(self, frame: Any) -> Image:
        """A frame in the model's size."""
        me = enter()
        try:
            return preprocess(frame, self._spec.resize)
        finally:
            leave(me)

    def _batch_of(self, pictures: Sequence[Image]) -> npt.NDArray[Any]:
        """`[N,H,W,3]` of the pictures; a single one is not copied.

        Raises:
            ModelError: There is not enough memory for all of them at a time.
        """
        try:
            batch: npt.NDArray[Any]
            batch = pictures[0][None] if len(pictures) == 1 else np.stack(pictures)
            if self._spec.layout == "nchw-float":
                batch = to_nchw(batch)
        except MemoryError as error:
            free = len(pictures) if self._fixed is None else 1
            raise not_run(self._file, error, free, self._elsewhere()) from error
        return batch

    def _run(self, batch: npt.NDArray[Any]) -> list[Probabilities]:
        """Run the session on `[N,...]`: probabilities `[N,K]` and, if there, `known` `[N]`.

        Raises:
            ModelError: The classifier is closed, or ONNX Runtime cannot run it.
        """
        # Taken once each: another thread may close the classifier from here on.
        session, bound = self._ready(), self._bound
        if self._fixed is not None and len(batch) != self._fixed:
            return self._run_fixed(batch, self._fixed)
        me = enter()
        try:
            if bound is not None:
                return bound(batch)
            results: list[Probabilities] = session.run(self._outputs, {self._input: batch})
            return results
        except Exception as error:
            if not is_runtimes(error):
                raise
            free = len(batch) if self._fixed is None else 1
            raise not_run(self._file, error, free, self._elsewhere()) from error
        finally:
            leave(me)

    def _run_fixed(self, batch: npt.NDArray[Any], size: int) -> list[Probabilities]:
        """Run a graph whose batch is fixed: in pieces, the last one filled up with itself."""
        parts = []
        for start in range(0, len(batch), size):
            piece = batch[start : start + size]
            missing = size - len(piece)
            full = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)])
            parts.append([result[: len(piece)] for result in self._run(full)])
        return [np.concatenate(results) for results in zip(*parts, strict=True)]

    def _ready(self) -> Any:
        """The session; opened again at the first call in a forked child.

        Raises:
            ModelError: The classifier is closed.
        """
        session = self._session
        if session is not None:
            return session
        with self._lock:
            if self._closed:
                raise ModelError("this classifier is closed; make a new one")
            session = self._session
            return session if session is not None else self._open()

    def _forked(self) -> None:
        """Let go of the parent's session, in a child that was just forked.

        Its threads did not come along, so it can neither run nor be ended: to end it waits for
        them, for ever. It is kept beyond the end of the interpreter instead.
        """
        for lost in (self._session, self._bound):
            keep_for_ever(lost)
        self._session = self._bound = None
        self._lock = threading.RLock()  # whoever held the old one did not come along either

    def _predictions(
        self, probabilities: Probabilities, known: Probabilities | None = None
    ) -> list[Prediction]:
        labels = self._spec.labels
        answers = []
        for index, row in enumerate(probabilities.tolist()):
            confidence = max(row)
            # NaN may hide from the first two, not from the sum.
            if not (confidence <= HIGHEST and min(row) >= LOWEST and math.isfinite(sum(row))):
                raise self._no_probabilities(row)
            label = labels[row.index(confidence)]
            nearness = 1.0
            if self._reject is not None:
                score, knows = confidence, self._reject.score == "known" and known is not None
                if knows and known is not None:
                    score = float(known.reshape(-1)[index])
                    if not LOWEST <= score <= HIGHEST:
                        raise self._no_probabilities([score])
                if score < self._reject.threshold:
                    label = NEITHER
                    nearness = score / self._reject.threshold if knows else 0.0
            answers.append(Prediction(label, confidence, tuple(row), labels, nearness))
        return answers

    def _checked(self, values: Probabilities) -> Probabilities:
        if not (values.min() >= LOWEST and values.max() <= HIGHEST):
            raise self._no_probabilities(values)
        return values

    def _no_probabilities(self, values: npt.ArrayLike) -> ModelError:
        found = np.asarray(values)
        if np.isfinite(found).all():
            odd = float(found.max() if found.max() > HIGHEST else found.min())
            return ModelError(
                f"{self._file.name}: its answers are not probabilities (0..1), one is {odd:.4g}; "
                f"export the model again, with the softmax in its graph{self._elsewhere()}"
            )
        return ModelError(
            f"{self._file.name}: its answers are not numbers; export the model again"
            f"{self._elsewhere()}"
        )

    def _elsewhere(self) -> str:
        """One more remedy where it is not the CPU that runs."""
        return "" if self._provider == "cpu" else " or take the provider cpu"


_OWN = frozenset(
    {"_file", "_stamp", "_asked", "_threads", "_asked_reject", "_spin", "_closed", "_lock"}
    | {"_spec", "_provider", "_reason", "_input", "_fixed", "_outputs", "_bound", "_session"}
    | {"_reject"}
)
"""Attributes that a copy makes itself; those that a subclass or a caller added travel along."""


def _restored(
    kind: type[Classifier],
    travelled: Travelled,
    provider: providers.Asked,
    threads: int | None,
    reject: float | bool | None,
    spin: bool | int,
) -> Classifier:
    # Not by calling the class: a subclass may want other arguments.
    made = kind.__new__(kind)
    Classifier.__init__(made, arrived(travelled), provider, threads, reject, spin=spin)
    return made


def _python(value: Any) -> Any:
    """A NumPy scalar as Python's own number or truth."""
    return value.item() if isinstance(value, np.generic) else value


def _few(labels: Sequence[str]) -> str:
    """The first labels, and how many there are where that is not all."""
    if len(labels) <= 10:
        return str(list(labels))
    return f"{str(list(labels[:5]))[:-1]}, ... {len(labels)} in all]"


def _rejection(asked: float | bool | None, spec: ModelSpec) -> Rejection | None:
    """The rejection in force.

    Raises:
        ValueError: `asked` is neither `None`, `False` nor a number in 0..1.
    """
    if asked is None:
        return spec.rejection
    number = isinstance(asked, (bool, int, float))
    if asked is True or not number or not 0 <= asked <= 1:
        raise ValueError(
            f"reject must be a threshold in 0..1, None (as the model says) or False, got {asked!r}"
        )
    if not asked:
        return None
    score = spec.rejection.score if spec.rejection is not None else "max_probability"
    return Rejection(score, float(asked))
