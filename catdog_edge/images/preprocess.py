"""Image to tensor: the one function that training, calibration, checks and the runtime call.

The frame is resized to the model's size by the steps in the spec, ignoring the aspect ratio. The
tensor stays `uint8`, BGR: colour order, scaling and normalisation are inside the exported graph,
so they are the same in training and on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.system import packages

if TYPE_CHECKING:
    from catdog_edge.spec import Box, Layout, ResizeStep

packages.import_complete("cv2")  # fail here where it is incomplete, not at the first frame

Image = npt.NDArray[np.uint8]  # `uint8 [H,W,3]`, BGR, 0..255


def to_bgr(frame: Any) -> Image:
    """Return a camera frame as contiguous `uint8 [H,W,3]` BGR, without a copy if it is already.

    Args:
        frame: `uint8`, `[H,W,3]` BGR, `[H,W,4]` BGRA (alpha is dropped), `[H,W]` or
            `[H,W,1]` grey; any size from 1x1, contiguous or not.

    Raises:
        ValueError: The dtype, the shape or the size is wrong.
    """
    wanted = "expected uint8 [H,W,3] BGR, [H,W,4] BGRA or [H,W] grey"
    if not isinstance(frame, np.ndarray):
        hint = " (did the camera's read() fail?)" if frame is None else ""
        raise ValueError(f"a frame is a NumPy array, got {type(frame).__name__}{hint}; {wanted}")
    if frame.dtype != np.uint8:
        raise ValueError(f"got a frame of dtype {frame.dtype}; {wanted}")
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] not in (1, 3, 4)):
        raise ValueError(f"got a frame of shape {list(frame.shape)}; {wanted}")
    if frame.size == 0:
        raise ValueError(f"got an empty frame of shape {list(frame.shape)}; {wanted}")
    if frame.ndim == 3 and frame.shape[2] == 3:
        return frame if frame.flags.c_contiguous else np.ascontiguousarray(frame)
    code = cv2.COLOR_BGRA2BGR if frame.ndim == 3 and frame.shape[2] == 4 else cv2.COLOR_GRAY2BGR
    return cv2.cvtColor(np.ascontiguousarray(frame), code)  # type: ignore[return-value]


def resize(frame: Image, steps: Sequence[ResizeStep]) -> Image:
    """Resize a frame, `uint8 [H,W,3]` and contiguous, by the steps of `ModelSpec.resize`.

    See `ResizeStep`; OpenCV's area filter is defined for shrinking only. If the frame already has
    the right size, the same array is returned.
    """
    for step in steps:
        if step.crop:
            frame = crop(frame, _centre(frame.shape[0], frame.shape[1], step.crop))
        height, width = frame.shape[:2]
        to_height, to_width = _size_after(step, height, width)
        if (to_height, to_width) == (height, width):
            continue
        shrinks = to_height <= height and to_width <= width
        # For a half both are the mean of 2x2 pixels, but on Arm `linear` rounds it another way.
        halves = (height, width) == (2 * to_height, 2 * to_width)
        area = (step.interpolation == "area" and shrinks) or halves
        how = cv2.INTER_AREA if area else cv2.INTER_LINEAR
        frame = cv2.resize(frame, (to_width, to_height), interpolation=how)  # type: ignore[assignment]
    return frame if frame.flags.c_contiguous else np.ascontiguousarray(frame)


def _size_after(step: ResizeStep, height: int, width: int) -> tuple[int, int]:
    if step.shrink_only:
        return min(height, step.height), min(width, step.width)
    return step.height, step.width


def crop(image: Image, box: Box) -> Image:
    """Return a part of an image, `uint8 [H,W,3]`, as a view.

    It is smaller than the box where the box reaches beyond the right or the lower edge.
    """
    left, top, width, height = box
    return image[top : top + height, left : left + width]


def _centre(height: int, width: int, share: float) -> Box:
    kept = round(min(height, width) * (max(height, width) / min(height, width)) ** (1 - share))
    if width > height:
        return (width - kept) // 2, 0, kept, height
    return 0, (height - kept) // 2, width, kept


def kept_part(height: int, width: int, steps: Sequence[ResizeStep]) -> Box:
    """Return the part of a frame of this size that the resize steps keep."""
    rows, columns, down, across = height, width, 1.0, 1.0
    for step in steps:
        _, _, kept_columns, kept_rows = _centre(rows, columns, step.crop)
        down, across = down * kept_rows / rows, across * kept_columns / columns
        rows, columns = _size_after(step, kept_rows, kept_columns)
    kept_height, kept_width = round(down * height), round(across * width)
    return (width - kept_width) // 2, (height - kept_height) // 2, kept_width, kept_height


def preprocess(frame: Any, steps: Sequence[ResizeStep]) -> Image:
    """Turn one camera frame, see `to_bgr`, into the model's input: `uint8 [height,width,3]` BGR.

    Examples:
        >>> batch = preprocess(frame, spec.resize)[None]
    """
    return resize(to_bgr(frame), steps)


def to_nchw(images: Image) -> npt.NDArray[np.float32]:
    """Convert `uint8 [N,H,W,3]` BGR to `float32 [N,3,H,W]` RGB, 0..1: the layout `nchw-float`."""
    planes = np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2), dtype=np.float32)
    return planes / np.float32(255)


def to_layout(images: Image, layout: Layout) -> npt.NDArray[Any]:
    """Convert a batch, `uint8 [N,H,W,3]` BGR, to the input of a model with this layout."""
    return to_nchw(images) if layout == "nchw-float" else np.ascontiguousarray(images)
