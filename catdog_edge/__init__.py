"""catdog-edge: train a small image classifier, export it to ONNX, run it on a device.

Public names are imported on first use (PEP 562), so that `catdog-edge --help` works where
neither onnxruntime nor OpenCV is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from catdog_edge.system.version import __version__ as __version__

if TYPE_CHECKING:
    from catdog_edge.camera.camera import Camera as Camera
    from catdog_edge.errors import CameraError as CameraError
    from catdog_edge.errors import CatdogError as CatdogError
    from catdog_edge.errors import ModelError as ModelError
    from catdog_edge.errors import PictureError as PictureError
    from catdog_edge.errors import ProviderError as ProviderError
    from catdog_edge.events.events import Events as Events
    from catdog_edge.runtime.classifier import Classifier as Classifier
    from catdog_edge.spec import ModelSpec as ModelSpec
    from catdog_edge.spec import Prediction as Prediction

_HOMES = {
    "Camera": "catdog_edge.camera.camera",
    "CameraError": "catdog_edge.errors",
    "CatdogError": "catdog_edge.errors",
    "Classifier": "catdog_edge.runtime.classifier",
    "Events": "catdog_edge.events.events",
    "ModelError": "catdog_edge.errors",
    "ModelSpec": "catdog_edge.spec",
    "PictureError": "catdog_edge.errors",
    "Prediction": "catdog_edge.spec",
    "ProviderError": "catdog_edge.errors",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except Exception as error:  # a broken package raises what it likes
        from catdog_edge.system.packages import import_error

        known = import_error(error)
        if known is None or known is error:
            raise
        raise known from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
