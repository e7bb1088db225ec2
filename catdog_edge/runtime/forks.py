"""Forked children: what holds threads of its own is told that they did not come along.

Knows nothing of models or sessions. Where a process cannot be forked it does nothing.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from abc import ABC, abstractmethod


class Inherited(ABC):
    """Something that a forked child inherits and has to put in order first."""

    def __init__(self) -> None:
        _alive.add(self)

    @abstractmethod
    def _forked(self) -> None:
        """Called in a child that was just forked, before anything else runs there.

        No other thread runs, and a lock may be held by one that did not come along. What
        raises here is only printed, so nothing may.
        """


def keep_for_ever(lost: object) -> None:
    """Keep an object beyond the end of the interpreter; its end would wait for lost threads."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(lost))


_alive: weakref.WeakSet[Inherited] = weakref.WeakSet()


def _tell() -> None:
    for inherited in list(_alive):
        inherited._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)
