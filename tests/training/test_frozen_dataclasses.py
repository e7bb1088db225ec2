"""Options, plans and results cannot be changed after they are made."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest

pytest.importorskip("torch", reason="training needs torch; install [train]")
pytestmark = pytest.mark.train

from catdog_edge import training


def test_every_dataclass_is_frozen_but_those_that_a_reader_fills() -> None:
    found = pkgutil.walk_packages(training.__path__, f"{training.__name__}.")
    modules = [importlib.import_module(one.name) for one in found]
    kinds = [
        kind
        for module in modules
        for kind in vars(module).values()
        if dataclasses.is_dataclass(kind) and kind.__module__ == module.__name__
    ]
    assert len(kinds) > 30
    changeable = {one.__name__ for one in kinds if not one.__dataclass_params__.frozen}
    assert changeable == {"Table", "_Folders"}
