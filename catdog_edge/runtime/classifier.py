"""`Classifier`: camera frames in, `Prediction` out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import ModelError
from catdog_edge.images.preprocess import Image, crop, to_bgr
from catdog_edge.runtime.model_file import Pickled, find_model, from_pickle
from catdog_edge.runtime.predictions import rejection_in_force, to_predictions, valid_scores
from catdog_edge.runtime.providers.start import GPU, Asked, Settings
from catdog_edge.runtime.session import ModelSession
from catdog_edge.spec import ModelSpec, Prediction, Rejection
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
        provider: `auto` (the best that starts on this machine), `cpu`, `cuda`, `tensorrt`,
            `openvino`, `coreml`, or a list of names and `(name, options)` pairs.
        threads: Threads of the session; `None`: `$CATDOG_EDGE_THREADS`, or the number of CPUs
            available to the process.
        reject: When to predict `neither`. `None`: as the spec says. A threshold above 0, up
            to 1: if the spec's score (or, without one, the largest probability) is below it.
            `False` or 0: never.
        spin: Microseconds that idle threads spin before they sleep; `False` or 0: they
            sleep at once; `True`: ONNX Runtime's default, 5 ms and more. See
            `docs/runtime.md`.

    Read-only properties: `spec`, `path`, `provider`, `reason`, `threads` and `reject`.

    Raises:
        ModelError: The model is missing, damaged, too new, or has no spec.
        ProviderError: A requested provider does not run on this machine.
        TypeError: `model` has another type.
        ValueError: Another argument has the wrong type or is out of range.

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
        file = find_model(model)
        self._threads = choose_threads(threads)
        asked = self._threads.count if threads is not None else None
        self._options = (provider, asked, _to_python(reject), _to_python(spin))
        settings = Settings(self._threads.count, self._options[3])
        self._session = ModelSession(file, provider, settings)
        self._reject = rejection_in_force(self._options[2], self._session.spec)

    @property
    def spec(self) -> ModelSpec:
        """The spec of the model."""
        return self._session.spec

    @property
    def path(self) -> Path | None:
        """Absolute path of the model file; `None` for a model given as bytes."""
        return self._session.file.path

    @property
    def provider(self) -> str:
        """Short name of the provider in use."""
        return self._session.provider

    @property
    def reason(self) -> str:
        """Why this provider was chosen."""
        return self._session.reason

    @property
    def threads(self) -> int:
        """Number of threads of the session."""
        return self._threads.count

    @property
    def reject(self) -> Rejection | None:
        """The rejection rule in use; `None`: the model never predicts `neither`."""
        return self._reject

    def __call__(self, frame: Any) -> Prediction:
        """Classify one frame.

        Args:
            frame: `uint8`, `[H,W,3]` BGR, `[H,W]` grey or `[H,W,4]` BGRA, contiguous or not,
                any size from 1x1.

        Raises:
            ValueError: `frame` is not such an array; the message says what it is.
            ModelError: The classifier is closed, ONNX Runtime cannot run it (out of memory,
                for instance), or its outputs are not probabilities.
        """
        session = self._session
        return to_predictions(session, session.run([session.image(frame)]), self._reject)[0]

    def batch(self, frames: Iterable[Any]) -> list[Prediction]:
        """Classify several frames; their sizes and channel counts may differ.

        Args:
            frames: A list or another iterable of frames, or one array `uint8 [N,H,W,3]`.

        Returns:
            One prediction per frame, in the same order; an empty list for no frames.

        Raises:
            ValueError: `frames` is not a sequence of frames, or one of them is not a frame; the
                message says which.
            ModelError: See `__call__`.

        Examples:
            >>> [str(prediction) for prediction in pets.batch([first, second])]
            ['cat 0.97', 'dog 0.99']
        """
        predictions: list[Prediction] = []
        for images in self._chunks(frames):
            outputs = self._session.run(images)
            predictions += to_predictions(self._session, outputs, self._reject)
        return predictions

    def search(self, frame: Any) -> Prediction:
        """Find small objects: classify a frame and overlapping squares of it.

        The squares have two scales, the short side and half of it, unless that is smaller than
        the model's input: 25 images for a 16:9 frame. A square is a candidate if another part
        that overlaps it has the same label; the candidate with the highest score is returned.

        Args:
            frame: See `__call__`; at its full resolution.

        Returns:
            The best candidate, with its `box`; without one, the prediction for the whole frame.

        Raises:
            ValueError: See `__call__`.
            ModelError: See `__call__`.

        Examples:
            >>> found = Classifier("accurate").search(cv2.imread("garden.jpg"))
            >>> print(found, found.box)
            cat 0.99 (840, 360, 360, 360)
        """
        from catdog_edge.runtime.tiled_search import best_part, tiles

        image = to_bgr(frame)
        height, width = image.shape[:2]
        boxes = [(0, 0, width, height), *tiles(height, width, max(self.spec.size))]
        return best_part(self.batch(crop(image, box) for box in boxes), boxes)

    def explain(self, frame: Any, label: str | None = None) -> npt.NDArray[np.float32]:
        """Compute a heat map: how much each position contributes to a class.

        This is the class activation map (Zhou et al., 2016), enlarged from the last feature maps
        to the frame. It runs on the CPU, in a separate session that the first call opens. The file
        must be made with `export --heat-map`, as the shipped models are.

        Args:
            frame: See `__call__`.
            label: A class of the model; `None`: the class with the highest probability.

        Returns:
            `float32 [H,W]` in the size of the frame, 0..1, relative to the largest value. 0 where
            a position contributes nothing or negatively to the class, and outside the part of the
            frame that the resize rule keeps.

        Raises:
            ValueError: `frame` is not a frame, or `label` is not a class of the model.
            ModelError: The file has no heat map; or see `__call__`.

        Examples:
            >>> heat = Classifier().explain(frame, "cat")
            >>> cv2.imwrite("where.jpg", overlay(frame, heat))
        """
        from catdog_edge.runtime.heat_map import fit_to_frame

        labels = self.spec.labels
        if label is not None and label not in labels:
            raise ValueError(f"{label!r} is not a class of the model; choose one of {_few(labels)}")
        image = to_bgr(frame)
        session = self._session.heat_map()
        probabilities, maps = session.run([session.image(image)])
        index = int(probabilities[0].argmax()) if label is None else labels.index(label)
        return fit_to_frame(maps[0, index], image.shape[0], image.shape[1], self.spec.resize)

    def probabilities(self, frames: Iterable[Any]) -> npt.NDArray[np.float32]:
        """Return calibrated probabilities of several frames, without rejection.

        Args:
            frames: See `batch`.

        Returns:
            `float32 [N,K]`, 0..1, columns in the order of `spec.labels`.

        Raises:
            ValueError: See `batch`.
            ModelError: See `__call__`.

        Examples:
            >>> pets.probabilities([first, second]).argmax(axis=1)
            array([0, 1])
        """
        session = self._session
        parts = [valid_scores(session, session.run(images)[0]) for images in self._chunks(frames)]
        if not parts:
            return np.zeros((0, len(self.spec.labels)), np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def scores(self, frames: Iterable[Any]) -> npt.NDArray[np.float32]:
        """Return the rejection scores: how likely each frame shows any of the classes.

        Rejection compares them with its threshold. A model whose spec has the score `known`
        has a separate output for it; for any other it is the largest probability.

        Args:
            frames: See `batch`.

        Returns:
            `float32 [N]`, 0..1.

        Raises:
            ValueError: See `batch`.
            ModelError: See `__call__`.

        Examples:
            >>> pets.scores([photo, empty_lawn]) >= pets.reject.threshold
            array([ True, False])
        """
        session, rejection = self._session, self.spec.rejection
        knows = rejection is not None and rejection.score == "known"
        parts = [
            valid_scores(session, outputs[1].reshape(-1) if knows else outputs[0].max(axis=1))
            for outputs in map(session.run, self._chunks(frames))
        ]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def warmup(self, calls: int = 3, batch: int = 1) -> None:
        """Run a few blank frames, so that the first real one is not slower than the rest.

        On CUDA, cuDNN then searches for its fastest kernels and the CUDA graph is captured, once
        per batch size.
        """
        blank = np.zeros((*self.spec.size, 3), np.uint8)
        for _ in range(calls):
            self.probabilities([blank] * batch)

    def close(self) -> None:
        """Release the session. A later call raises `ModelError`.

        A call that is running in another thread completes first; a batch completes its current
        chunk, and its next chunk raises.
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
            raise ModelError("this classifier is closed and cannot be pickled; make a new one")
        # The copy opens the same model again, and chooses provider and threads for its machine.
        added = {name: value for name, value in vars(self).items() if name not in _OWN}
        model = self._session.file.to_pickle()
        return _restored, (type(self), model, *self._options), added or None

    def _chunks(self, frames: Iterable[Any]) -> Iterator[list[Image] | Image]:
        """Yield frames in the model's size, in chunks."""
        self._session.ready()  # raises if closed, also without frames
        wanted = "expected several frames, a list of them or uint8 [N,H,W,3]"
        if isinstance(frames, np.ndarray) and frames.ndim != 4:
            raise ValueError(
                f"{wanted}, got one array of shape {list(frames.shape)}; for one frame call the "
                "classifier itself"
            )
        if isinstance(frames, (str, bytes)) or not isinstance(frames, Iterable):
            raise ValueError(f"{wanted}, got {type(frames).__name__}")
        chunk = GPU_CHUNK if self.provider in GPU else CHUNK
        if isinstance(frames, np.ndarray) and self._session.takes(frames):
            for start in range(0, len(frames), chunk):
                yield frames[start : start + chunk]
            return
        images: list[Image] = []
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
"""Attributes that a copy makes itself; those that a subclass or a caller added are pickled."""


def _restored(
    kind: type[Classifier],
    pickled: Pickled,
    provider: Asked,
    threads: int | None,
    reject: float | bool | None,
    spin: bool | int,
) -> Classifier:
    # Not by calling the class: a subclass may take other arguments.
    made = kind.__new__(kind)
    Classifier.__init__(made, from_pickle(pickled), provider, threads, reject, spin=spin)
    return made


def _to_python(value: Any) -> Any:
    """Convert a NumPy scalar to a Python number or `bool`."""
    return value.item() if isinstance(value, np.generic) else value


def _few(labels: Sequence[str]) -> str:
    """List the first labels, and the number of labels if there are more."""
    if len(labels) <= 10:
        return str(list(labels))
    return f"{str(list(labels[:5]))[:-1]}, ... {len(labels)} in all]"
