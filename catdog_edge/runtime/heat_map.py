"""Class activation maps: load the nodes that compute them, and resize a map to the frame.

A file made with `export --heat-map` stores these nodes outside its graph, so other calls are not
slowed down; a separate session computes the map. See `docs/heat-maps.md`.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from catdog_edge.errors import ModelError
from catdog_edge.images.preprocess import kept_part
from catdog_edge.runtime.model_file import ModelFile
from catdog_edge.spec import ResizeStep

HEAT_MAP = "heat_map"
"""Name of the output, `float32 [N,K,h,w]`: what each position adds to the logit of each class."""

KEY = "catdog_edge_heat_map"
"""The key of `metadata_props` with what follows the bytes of the file, in base64."""


def with_heat_map(file: ModelFile, session: Any) -> ModelFile:
    """Return a model with the output `heat_map`, from a file and its loaded session.

    Raises:
        ModelError: The file was made without it, or can no longer be read.
    """
    more = session.get_modelmeta().custom_metadata_map.get(KEY)
    if more is None:
        how = "make an .onnx file that has one: catdog-edge export --heat-map"
        raise ModelError(f"{file.name} has no heat map; {how}")
    try:
        data = file.path.read_bytes() if file.path is not None else file.data or b""
    except OSError as error:
        what = f"{file.name} cannot be read any more ({error.strerror})"
        raise ModelError(f"{what}; copy it back or make a new Classifier") from error
    return ModelFile(None, data + binascii.a2b_base64(more), called=file.name)


def fit_to_frame(
    values: npt.NDArray[np.float32], height: int, width: int, steps: Sequence[ResizeStep]
) -> npt.NDArray[np.float32]:
    """Resize the map of one class, `float32 [h,w]`, to its frame.

    Returns:
        `float32 [height,width]`, 0..1, relative to the largest value. 0 where a position does not
        contribute to the class, and outside what the resize rule keeps of the frame.
    """
    left, top, across, down = kept_part(height, width, steps)
    laid = np.zeros((height, width), np.float32)
    inside = np.maximum(cv2.resize(values, (across, down), interpolation=cv2.INTER_LINEAR), 0)
    laid[top : top + down, left : left + across] = inside / max(float(inside.max()), 1e-12)
    return laid
