"""Draw a prediction onto an image: its label and a confidence bar."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.images.preprocess import Image, to_bgr
from catdog_edge.spec import NEITHER, Box, Prediction

COLOURS = ((80, 175, 76), (43, 141, 245), (216, 129, 66), (176, 39, 156), (54, 67, 229))
"""Of the bars, BGR, by class index; repeated where there are more classes."""

GREY = (150, 150, 150)  # colour of the bar of `neither`, BGR

WHITE = (255, 255, 255)

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_prediction(frame: Any, prediction: Prediction) -> Image:
    """Draw label, confidence, bar and box, if any, onto a copy.

    Args:
        frame: See `catdog_edge.images.preprocess.to_bgr`; it is not changed.
        prediction: The prediction for the frame.

    Examples:
        >>> annotated = draw_prediction(frame, classifier(frame))
    """
    image = to_bgr(frame).copy()
    height, width = image.shape[:2]
    strip = max(1, min(height, round(max(0.11 * min(height, width), 14))))
    top = height - strip
    # Darkened, so that the background stays visible.
    image[top:] = (image[top:] * np.float32(0.35)).astype(np.uint8)
    colour = colour_of(prediction)
    if prediction.box is not None:
        draw_box(image, prediction.box, colour)
    bar = max(1, round(0.16 * strip))
    certainty = prediction.confidence
    if prediction.label == NEITHER and prediction.score is not None:
        certainty = prediction.score
    length = max(1, round(width * min(1.0, certainty)))
    # Hershey fonts are 22 pixels high at scale 1, and know ASCII alone.
    text = str(prediction).encode("ascii", "replace").decode()
    scale = 0.60 * (strip - bar) / 22
    thick = max(1, round(2 * scale))
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, scale, thick)
    margin = max(2, round(0.3 * strip))
    if text_width > width - 2 * margin:
        scale *= max(0.2, (width - 2 * margin) / text_width)
        thick = max(1, round(2 * scale))
        (_, text_height), _ = cv2.getTextSize(text, _FONT, scale, thick)
    baseline = top + (strip - bar + text_height) // 2
    cv2.putText(image, text, (margin, baseline), _FONT, scale, WHITE, thick, cv2.LINE_AA)
    # After the text, which in a small image reaches into it.
    image[height - bar :] = (image[height - bar :] * np.float32(0.5)).astype(np.uint8)
    image[height - bar :, :length] = colour
    return image


def overlay(frame: Any, heat: npt.NDArray[np.float32]) -> Image:
    """Overlay a heat map, see `Classifier.explain`, on a copy of a frame: `uint8 [H,W,3]` BGR.

    Args:
        frame: The frame, see `to_bgr`.
        heat: `float32 [H,W]`, 0..1, of the frame's size. 0 leaves the frame unchanged; the
            colours go from blue over green and yellow to red.
    """
    image = to_bgr(frame)
    colours = cv2.applyColorMap(np.rint(255 * heat).astype(np.uint8), cv2.COLORMAP_JET)
    share = np.minimum(heat, 0.5)[:, :, None]
    mixed: Image = (image * (1 - share) + colours * share + 0.5).astype(np.uint8)
    return mixed


def draw_box(image: Image, box: Box, colour: tuple[int, int, int]) -> None:
    """Draw the outline of a box into an image, `uint8 [H,W,3]` BGR, in place; the colour is BGR."""
    left, top, width, height = box
    thick = max(1, round(min(image.shape[:2]) / 200))
    cv2.rectangle(image, (left, top), (left + width - 1, top + height - 1), colour, thick)


def colour_of(prediction: Prediction) -> tuple[int, int, int]:
    """Return the colour of a prediction, BGR."""
    if prediction.label == NEITHER:
        return GREY
    return COLOURS[prediction.labels.index(prediction.label) % len(COLOURS)]
