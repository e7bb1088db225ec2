"""The public names: a change here is a change of the interface."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import catdog_edge

PUBLIC = [
    "Camera",
    "CameraError",
    "CatdogError",
    "Classifier",
    "Events",
    "ModelError",
    "ModelSpec",
    "PictureError",
    "Prediction",
    "ProviderError",
    "__version__",
]


def test_the_public_names_are_these() -> None:
    assert catdog_edge.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(catdog_edge))


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_every_public_name_resolves_on_first_use(name: str) -> None:
    for module in ("cv2", "numpy", "onnxruntime"):
        pytest.importorskip(module)
    home = importlib.import_module(catdog_edge._HOMES[name])
    assert getattr(catdog_edge, name) is getattr(home, name)
    program = f"""
import sys, catdog_edge
assert {home.__name__!r} not in sys.modules, "not lazy"
print(catdog_edge.{name}.__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == name, done.stderr


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Frame'"):
        catdog_edge.Frame  # noqa: B018
