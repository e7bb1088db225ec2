"""A loaded model: its ONNX Runtime session across calls, close, and `os.fork`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import ModelError
from catdog_edge.images.preprocess import Image, preprocess, resize, to_nchw
from catdog_edge.runtime import onnxruntime_errors
from catdog_edge.runtime.model_file import KNOWN, PROBABILITIES, ModelFile, spec_of
from catdog_edge.runtime.providers import selection
from catdog_edge.runtime.providers.start import GPU, Asked, Settings
from catdog_edge.spec import ModelSpec
from catdog_edge.system.exit_and_fork import at_fork, native_code, never_free

if TYPE_CHECKING:
    from catdog_edge.runtime.providers.io_binding import BoundRunner, Rows

Outputs = list[npt.NDArray[np.float32]]
"""Probabilities `[N,K]` and, where the model has it, `known` `[N]` or `[N,1]`; or as asked."""


class ModelSession:
    """A loaded model; safe to call from several threads. See `selection.open_model`.

    `fixed_batch` is the batch size of the graph; `None`: any.
    """

    spec: ModelSpec
    provider: str
    reason: str
    fixed_batch: int | None

    def __init__(
        self,
        file: ModelFile,
        asked: Asked,
        settings: Settings,
        outputs: Sequence[str] = (PROBABILITIES, KNOWN),
    ) -> None:
        self.file = self._asked_file = file
        self._wanted = outputs
        self._heat_map: ModelSession | None = None
        self.closed = False
        self._asked, self._settings = asked, settings
        self._stamp = file.stamp()
        # Held while the session is replaced, never during a call. A signal handler may close
        # what its own thread is about to open, hence the R.
        self._lock = threading.RLock()
        self._open()
        at_fork(self)

    def _open(self, again: Callable[[], selection.Opened] | None = None) -> Any:
        """Create and return the session, from the same file as the first time."""
        self._check_unchanged()
        asked = self._asked_file, self._asked, self._settings
        with native_code:
            opened = again() if again is not None else selection.open_model(*asked)
        session = opened.session
        self.file = opened.file
        self.spec = spec_of(session, self.file)
        self.provider = opened.provider
        self.reason = opened.reason
        if self.provider in GPU:
            from catdog_edge.runtime.providers.nvidia import faster_form

            form = faster_form(self.file.path, self.provider, self.spec.precision)
            self.reason = "; ".join(filter(None, (self.reason, form)))
        blank = np.empty((*self.spec.size, 3), np.uint8)
        self._kept = blank.shape if resize(blank, self.spec.resize) is blank else None
        one = session.get_inputs()[0]
        self._input = one.name
        self.fixed_batch = one.shape[0] if isinstance(one.shape[0], int) else None
        names = [output.name for output in session.get_outputs()]
        self._outputs = [name for name in self._wanted if name in names]
        self._bound = selection.bind(session, opened.provider, self._outputs)
        self._why, self._again = opened.why, opened.again
        # Last: another thread that sees a session finds the rest complete.
        self._session: Any = session
        return session

    def _check_unchanged(self) -> None:
        if self._asked_file.stamp() != self._stamp:
            changed = "has changed since it was opened"
            raise ModelError(f"{self._asked_file.name} {changed}; make a new Classifier")

    def ready(self) -> Any:
        """Return the ONNX Runtime session; a forked child opens its own at the first call.

        Raises:
            ModelError: The session is closed, or the child cannot open the file.
        """
        if (session := self._session) is not None:
            return session
        with self._lock:
            if self.closed:
                raise ModelError("this classifier is closed; make a new one")
            return self._session if self._session is not None else self._open()

    def close(self) -> None:
        """Release the session; running calls complete first."""
        with self._lock:
            session = self._session, self._bound, self._heat_map
            self.closed = True
            self._session = self._bound = self._heat_map = None
        del session  # its threads end here or, where it is in use, with the last call

    def forked(self) -> None:
        """Drop the parent's session in a forked child: freeing it would wait for lost threads."""
        for lost in (self._session, self._bound):
            never_free(lost)
        self._session = self._bound = None
        self._lock = threading.RLock()  # the thread that held the old one does not exist here

    def heat_map(self) -> ModelSession:
        """Return a session on the CPU with the outputs `probabilities` and `heat_map`.

        It is opened at the first call. See `with_heat_map` for errors.
        """
        from catdog_edge.runtime.heat_map import HEAT_MAP, with_heat_map

        with self._lock:
            session = self.ready()
            if self._heat_map is None:
                self._check_unchanged()  # its nodes would be added to another graph
                file, outputs = with_heat_map(self.file, session), (PROBABILITIES, HEAT_MAP)
                self._heat_map = ModelSession(file, "cpu", self._settings, outputs)
            return self._heat_map

    def takes(self, frames: Any) -> bool:
        """Check whether a frame, or an array of frames, is what the model takes, as it is."""
        return (
            isinstance(frames, np.ndarray)
            and frames.shape[-3:] == self._kept
            and frames.dtype == np.uint8
            and frames.flags.c_contiguous
        )

    def image(self, frame: Any) -> Image:
        """Resize a frame, see `preprocess`, to the model's size: `uint8 [height,width,3]` BGR."""
        if self.takes(frame) and frame.ndim == 3:
            image: Image = frame
            return image
        with native_code:
            return preprocess(frame, self.spec.resize)

    def run(self, images: Rows) -> Outputs:
        """Run the model on images of its size; a single one, or one array, is not copied."""
        rows = images
        if self.spec.layout == "nchw-float":
            try:
                rows = to_nchw(np.stack([*images]))
            except MemoryError as error:
                raise self._call_error(error, len(images)) from error
        size = self.fixed_batch
        if size is None or len(rows) == size:
            return self._call(rows)
        # In chunks; the last one is padded with copies of its last image.
        parts = []
        for start in range(0, len(rows), size):
            piece = list(rows[start : start + size])
            full = piece + piece[-1:] * (size - len(piece))
            parts.append([result[: len(piece)] for result in self._call(full)])
        return [np.concatenate(results) for results in zip(*parts, strict=True)]

    def _call(self, rows: Rows) -> Outputs:
        # Read once each: another thread may close the classifier from here on.
        session, bound = self.ready(), self._bound
        try:
            with native_code:
                if bound is not None:
                    return bound(rows)
                results: Outputs = session.run(self._outputs, {self._input: _batch(rows)})
                return results
        except Exception as error:
            if not onnxruntime_errors.is_runtime_error(error):
                raise
            if bound is None or onnxruntime_errors.is_memory_error(error):
                raise self._call_error(error, len(rows)) from error
            unsuited = error
        self._open_again(bound, unsuited, len(rows))
        return self._call(rows)

    def _open_again(self, failed: BoundRunner, error: Exception, count: int) -> None:
        """Replace a failed session by one with fewer options of the provider."""
        with self._lock:
            if self._bound is not failed:  # another thread replaced or closed it
                return
            again = self._again
            if again is None:
                raise self._call_error(error, count) from error
            self._open(lambda: replace(again(error), why=self._why))

    def _call_error(self, error: Exception, count: int) -> ModelError:
        free = count if self.fixed_batch is None else 1
        return onnxruntime_errors.call_error(self.file.name, error, free, self.provider)


def _batch(rows: Rows) -> npt.NDArray[Any]:
    """Stack images to one array; a single image is not copied."""
    if isinstance(rows, np.ndarray):
        return rows
    return rows[0][None] if len(rows) == 1 else np.stack(rows)
