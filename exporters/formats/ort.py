"""Write ONNX Runtime's file format, for devices with a reduced build of it."""

from __future__ import annotations

import os

from catdog_edge.runtime.model_file import find_model, load_session
from catdog_edge.system import packages
from catdog_edge.system.files import atomic_write

PROCESSOR_SPECIFIC = ("NchwcTransformer",)
"""Left out: it lays weights out for the processor at hand, and the file would not load on
another kind. On x86-64 this costs speed; use the `.onnx` file there (`docs/export.md`)."""


def write_ort(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write an `.onnx` file as an `.ort` file, atomically, optimised for any processor."""
    onnxruntime = packages.import_complete("onnxruntime")
    file = find_model(source)
    with atomic_write(path) as temporary:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(temporary)
        options.add_session_config_entry("session.save_model_format", "ORT")
        providers, left_out = ["CPUExecutionProvider"], list(PROCESSOR_SPECIFIC)
        load_session(file, options, providers=providers, disabled_optimizers=left_out)
