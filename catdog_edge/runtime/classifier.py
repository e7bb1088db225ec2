"""`Classifier`: camera frames in, `Prediction` out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import ModelError
from catdog_edge.images.preprocess import Image, to_bgr
from catdog_edge.runtime.model_file import Pickled, find_model, from_pickle
from catdog_edge.runtime.predictions import checked, rejection_in_force, to_predictions
from catdog_edge.runtime.providers import GPU, Asked, Settings
from catdog_edge.runtime.session import ModelSession
from catdog_edge.spec import ModelSpec, Prediction, Rejection
from catdog_edge.system import packages
from catdog_edge.system.threads import choose_threads

SPIN = 1000
"""Default of `spin` in microseconds; measured in `docs/runtime.md`."""

CHUNK = 32
"""Frames per call of the session, so that a batch of any length needs bounded memory; on a GPU it
is `GPU_CHUNK`."""

GPU_CHUNK = 256


class Classifier:
    """A model that classifies camera frames; safe to call from several threads.

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
            sleep at once; `True`: ONNX Runtime's default, 5 ms and more. See
            `docs/runtime.md`.

    What it was made with can be read and not changed: `spec`, `path`, `provider`, `reason`,
    `threads` and `reject`.

    Raises:
        ModelError: The model is missing, damaged, too new, or has no spec.
        ProviderError: A provider asked for by name does not run here.
        TypeError: `model` is none of these.
        ValueError: Another argument is of another kind or out of range.

    Examples:
        >>> pets = Classifier()
        >>> print(pets(frame))
        cat 0.97
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | None = None,
        provider: Asked = "auto",
        threads: int | None = None,
        reject: float | bool | None = None,
        *,
        spin: bool | int = SPIN,
    ) -> None:
        packages.opencv()
        file = find_model(model)
        self._threads = choose_threads(threads)
        asked = self._threads.count if threads is not None else None
        self._options = (provider, asked, _python(reject), _python(spin))
        settings = Settings(self._threads.count, self._options[3])
        self._session = ModelSession(file, provider, settings)
        self._reject = rejection_in_force(self._options[2], self._session.spec)

    @property
    def spec(self) -> ModelSpec:
        """The spec of the model."""
        return self._session.spec

    @property
    def path(self) -> Path | None:
        """The file, absolute; `None` for a model given as bytes."""
        return self._session.file.path

    @property
    def provider(self) -> str:
        """Short name of the provider that runs."""
        return self._session.provider

    @property
    def reason(self) -> str:
        """Why it is this one."""
        return self._session.reason

    @property
    def threads(self) -> int:
        """Threads of the session."""
        return self._threads.count

    @property
    def reject(self) -> Rejection | None:
        """The rejection in force; `None`: never `neither`."""
        return self._reject

    def __call__(self, frame: Any) -> Prediction:
        """Classify one frame.

        Args:
            frame: `uint8`, `[H,W,3]` BGR, `[H,W]` grey or `[H,W,4]` BGRA, contiguous or not,
                any size from 1x1.

        Raises:
            ValueError: It is something else; the message says what came.
            ModelError: The classifier is closed, ONNX Runtime cannot run it (where memory is
                short, for instance), or its outputs are no probabilities.
        """
        session = self._session
        return to_predictions(session, session.run([session.image(frame)]), self._reject)[0]

    def batch(self, frames: Iterable[Any]) -> list[Prediction]:
        """Classify several frames; sizes and kinds may differ from frame to frame.

        Args:
            frames: A list or another iterable of frames, or one array `uint8 [N,H,W,3]`.

        Returns:
            As many predictions as frames, in their order; none for none.

        Raises:
            ValueError: One of them is not a frame; the message says which. Or it is not
                several frames.
            ModelError: See `__call__`.
        """
        predictions: list[Prediction] = []
        for images in self._chunks(frames):
            outputs = self._session.run(images)
            predictions += to_predictions(self._session, outputs, self._reject)
        return predictions

    def search(self, frame: Any) -> Prediction:
        """Look for something small in a still: classify a frame and overlapping squares of it.

        The squares have two scales, the short side and half of it, as far as that is no smaller
        than the model's input: 25 images for a frame of 16:9. A square counts where another
        part that overlaps it has the same label; of those the one with the highest score wins.

        Args:
            frame: See `__call__`; at its full resolution.

        Returns:
            The winner, `box` says which part; without one, the prediction for the whole frame.

        Raises:
            ValueError: See `__call__`.
            ModelError: See `__call__`.

        Examples:
            >>> found = Classifier("accurate").search(cv2.imread("garden.jpg"))
            >>> print(found, found.box)
            cat 0.99 (840, 360, 360, 360)
        """
        from catdog_edge.runtime.tiled_search import best_part, cut, tiles

        image = to_bgr(frame)
        height, width = image.shape[:2]
        boxes = [(0, 0, width, height), *tiles(height, width, max(self.spec.size))]
        return best_part(self.batch(cut(image, box) for box in boxes), boxes)

    def explain(self, frame: Any, label: str | None = None) -> npt.NDArray[np.float32]:
        """Show where the model looked: how much each position speaks for a class.

        It is the class activation map (Zhou et al., 2016), enlarged from the few positions of the
        last maps. Computed on the CPU, by a session of its own that the first call opens. The file
        must be made with `export --heat-map`; the shipped models are.

        Args:
            frame: See `__call__`.
            label: A class of the model; `None`: the likeliest, for `neither` the nearest.

        Returns:
            `float32 [H,W]` in the size of the frame, 0..1: the share of the largest value. 0 where
            a position adds nothing to the class or speaks against it, and where the resize rule
            cuts the frame off.

        Raises:
            ValueError: It is no frame, or no class of the model.
            ModelError: The file has no heat map; or see `__call__`.

        Examples:
            >>> heat = Classifier().explain(frame, "cat")
            >>> cv2.imwrite("where.jpg", overlay(frame, heat))
        """
        from catdog_edge.runtime.heat_map import on_frame

        labels = self.spec.labels
        if label is not None and label not in labels:
            raise ValueError(f"{label!r} is no class of the model; choose one of {_few(labels)}")
        image = to_bgr(frame)
        session = self._session.heat_map()
        probabilities, maps = session.run([session.image(image)])
        index = int(probabilities[0].argmax()) if label is None else labels.index(label)
        return on_frame(maps[0, index], image.shape[0], image.shape[1], self.spec.resize)

    def probabilities(self, frames: Iterable[Any]) -> npt.NDArray[np.float32]:
        """Calibrated probabilities of several frames, before any rejection.

        Args:
            frames: See `batch`.

        Returns:
            `float32 [N,K]`, 0..1, columns in the order of `spec.labels`.

        Raises:
            ValueError: See `batch`.
            ModelError: See `__call__`.
        """
        session = self._session
        parts = [checked(session, session.run(images)[0]) for images in self._chunks(frames)]
        if not parts:
            return np.zeros((0, len(self.spec.labels)), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def scores(self, frames: Iterable[Any]) -> npt.NDArray[np.float32]:
        """How sure the model is that it sees one of its classes at all.

        Rejection compares this with its threshold. A model whose spec has the score `known`
        has an output of its own for it; any other gives its largest probability.

        Args:
            frames: See `batch`.

        Returns:
            `float32 [N]`, 0..1.

        Raises:
            ValueError: See `batch`.
            ModelError: See `__call__`.
        """
        session, rejection = self._session, self.spec.rejection
        knows = rejection is not None and rejection.score == "known"
        parts = [
            checked(session, outputs[1].reshape(-1) if knows else outputs[0].max(axis=1))
            for outputs in map(session.run, self._chunks(frames))
        ]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def warmup(self, calls: int = 3, batch: int = 1) -> None:
        """Run a few empty frames, so that the first real one is not slower than the rest.

        On CUDA this is when cuDNN searches for its fastest kernels and the CUDA graph is captured,
        once per batch size.
        """
        blank = np.zeros((*self.spec.size, 3), np.uint8)
        for _ in range(calls):
            self.probabilities([blank] * batch)

    def close(self) -> None:
        """Give the session back. A later call raises `ModelError`.

        A call that is under way in another thread ends as usual, and the session with it; of a
        batch it is the chunk under way that ends, and the next one that raises.
        """
        self._session.close()

    def __enter__(self) -> Self:
        self._session.ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        model = str(self.path) if self.path is not None else "bytes"
        return (
            f"Classifier({model!r}, {self.spec.architecture} {self.spec.precision} "
            f"{self.spec.height}x{self.spec.width}, labels={_few(self.spec.labels)}, "
            f"provider={self.provider!r} ({self.reason}), threads={self.threads} "
            f"(from {self._threads.source}){', closed' if self._session.closed else ''})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        if self._session.closed:
            raise ModelError("this classifier is closed and cannot travel; make a new one")
        # The copy opens the same model again, and chooses provider and threads for its machine.
        added = {name: value for name, value in vars(self).items() if name not in _OWN}
        model = self._session.file.to_pickle()
        return _restored, (type(self), model, *self._options), added or None

    def _chunks(self, frames: Iterable[Any]) -> Iterator[list[Image]]:
        """Frames in the model's size, a chunk at a time."""
        self._session.ready()  # no frames are an error, too, where it is closed
        wanted = "wanted several frames, a list of them or uint8 [N,H,W,3]"
        if isinstance(frames, np.ndarray) and frames.ndim != 4:
            raise ValueError(
                f"{wanted}, got one array of shape {list(frames.shape)}; for one frame call the "
                "classifier itself"
            )
        if isinstance(frames, (str, bytes)) or not isinstance(frames, Iterable):
            raise ValueError(f"{wanted}, got {type(frames).__name__}")
        images: list[Image] = []
        chunk = GPU_CHUNK if self.provider in GPU else CHUNK
        for index, frame in enumerate(frames):
            try:
                images.append(self._session.image(frame))
            except ValueError as error:
                raise ValueError(f"frame {index}: {error}") from error
            if len(images) == chunk:
                yield images
                images = []
        if images:
            yield images


_OWN = frozenset({"_options", "_reject", "_session", "_threads"})
"""Attributes that a copy makes itself; those that a subclass or a caller added travel along."""


def _restored(
    kind: type[Classifier],
    pickled: Pickled,
    provider: Asked,
    threads: int | None,
    reject: float | bool | None,
    spin: bool | int,
) -> Classifier:
    # Not by calling the class: a subclass may want other arguments.
    made = kind.__new__(kind)
    Classifier.__init__(made, from_pickle(pickled), provider, threads, reject, spin=spin)
    return made


def _python(value: Any) -> Any:
    """A NumPy scalar as Python's own number or truth."""
    return value.item() if isinstance(value, np.generic) else value


def _few(labels: Sequence[str]) -> str:
    """The first labels, and how many there are where that is not all."""
    if len(labels) <= 10:
        return str(list(labels))
    return f"{str(list(labels[:5]))[:-1]}, ... {len(labels)} in all]"
