"""Errors of an export in words for people: the form that cannot be made, and what to do.

Knows that files are made in a scratch folder whose name helps nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from catdog_edge.errors import CatdogError, GateError, ModelError
from catdog_edge.runtime.model_file import LoadError
from exporters.formats.torch_export import ALL_FORMS, DEFAULT_OPSET
from exporters.publish import no_room


@contextlib.contextmanager
def making(form: str, opset: int, scratch: Path) -> Iterator[None]:
    """Let errors of the block name the form and a remedy, instead of a scratch file.

    Args:
        form: The name of the file that is being made.
        opset: The opset that was asked for.
        scratch: The folder in which it is made.

    Raises:
        ModelError: The form cannot be made or loaded.
        CatdogError: The scratch folder is full.
        GateError: As it was raised.
    """
    try:
        yield
    except GateError:
        raise
    except LoadError as error:
        if "No space left" in error.reason:
            full = OSError(None, "No space left on device")
            raise no_room(scratch.parent, full) from error
        remedy = error.remedy
        if opset not in ALL_FORMS:
            remedy = (
                f"choose a lower --opset: every form loads with {ALL_FORMS.start} to "
                f"{ALL_FORMS[-1]}, {DEFAULT_OPSET} is the default"
            )
        raise ModelError(
            f"{form} cannot be made with opset {opset}: {error.reason}; {remedy}"
        ) from error
    except OSError as error:
        raise no_room(scratch.parent, error) from error
    except CatdogError as error:
        if isinstance(error.__cause__, OSError):
            raise no_room(scratch.parent, error.__cause__) from error
        text = str(error).replace(f"{scratch}/", "")
        raise type(error)(text if text.startswith(form) else f"{form}: {text}") from error
