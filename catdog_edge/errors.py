"""The errors a person can act on: one line that says what, which file, and what to do.

The command line prints them without a traceback and exits with `exit_code`.
Anything else that escapes is a defect of ours.
"""

from __future__ import annotations

FOLDER_GONE = "the current folder is not there any more: it was deleted or unmounted"
"""What is wrong where a path that is not absolute cannot be told."""


class CatdogError(Exception):
    """Something could not be done; the message is one complete line for a person."""

    exit_code = 1


class MissingPackageError(CatdogError, ImportError):
    """A package of another flavour or extra is needed; the message names the install command."""


class PictureError(CatdogError):
    """A picture cannot be read; the message is the reason, without the name of the file."""


class DataError(CatdogError):
    """A data set is missing, empty, damaged, or not what the model was trained on."""


class ModelError(CatdogError):
    """A checkpoint, an ONNX file or a spec is missing, damaged, foreign, or too new."""


class ProviderError(CatdogError):
    """An execution provider that was asked for by name does not run here."""


class CameraError(CatdogError):
    """A source of frames cannot be opened or has failed for good."""


class GateError(CatdogError):
    """The work is done, but a gate that was asked for is not met."""

    exit_code = 3
