"""An exported file as something that answers: the plain ONNX Runtime session of the checks.

Knows the two input layouts and how to load with one-line errors. The runtime of a device is
`catdog_edge.runtime.classifier`, with its choice of provider; a check wants the CPU
and nothing else.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catdog_edge.errors import ModelError
from catdog_edge.images.preprocess import to_layout
from catdog_edge.runtime.model_file import ModelFile, find_model, load_session, spec_of
from catdog_edge.spec import METADATA_KEY, ModelSpec
from catdog_edge.system import packages
from exporters.checks.interface import answer_name, hold_spec

if TYPE_CHECKING:
    import onnx

Pictures = npt.NDArray[np.uint8]
Answers = npt.NDArray[np.float32]


def open_session(
    path: str | os.PathLike[str],
    threads: int = 0,
    optimized: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> Any:
    """Load a file on the CPU.

    Args:
        path: An `.onnx` or `.ort` file.
        threads: Threads inside an operator; 0 is ONNX Runtime's own choice.
        optimized: Write the graph that ONNX Runtime made of it here, for reading.
        name: What messages call the file; `None` is its path.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ModelError: There is no such file, or this onnxruntime cannot load it.
    """
    onnxruntime = packages.runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if optimized is not None:
        options.optimized_model_filepath = os.fspath(optimized)
    file = dataclasses.replace(find_model(path), called=name)
    return load_session(file, options, providers=["CPUExecutionProvider"])


def open_part(model: onnx.ModelProto, name: str) -> Any:
    """Load a model that is in memory: a part of a file, for measuring.

    Args:
        model: Any model.
        name: What messages call it.

    Returns:
        An `onnxruntime.InferenceSession` on the CPU.

    Raises:
        LoadError: This onnxruntime cannot load it.
    """
    onnxruntime = packages.runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    file = ModelFile(None, model.SerializeToString(), called=name)
    return load_session(file, options, providers=["CPUExecutionProvider"])


def spec_in(
    session: Any, path: str | os.PathLike[str], given: ModelSpec | None = None
) -> ModelSpec:
    """The spec in the metadata of a loaded file, held against its graph.

    Args:
        session: From `open_session`.
        path: The file.
        given: Taken where the file has none.

    Raises:
        ModelError: There is none, it is damaged or too new, or the graph is another one.
    """
    if not has_spec(session):
        if given is not None:
            hold_spec(session.get_inputs(), session.get_outputs(), given, path)
            return given
        raise ModelError(
            f"{path} is an ONNX file without a catdog-edge spec; export it with catdog-edge, "
            "or describe it by hand with --spec FILE.json"
        )
    return spec_of(session, find_model(path))


def has_spec(session: Any) -> bool:
    """Whether a loaded file has a spec of its own, however damaged."""
    return METADATA_KEY in session.get_modelmeta().custom_metadata_map


def ask(
    session: Any,
    spec: ModelSpec,
    pictures: Pictures,
    batch: int = 1,
    output: str | None = None,
) -> Answers:
    """What a loaded file says of pictures.

    Args:
        session: From `open_session`.
        spec: Of the file.
        pictures: `uint8 [N,H,W,3]`, BGR, of the model's size.
        batch: Pictures per call; a file of a fixed batch goes by its own, the last call
            filled up with copies of its last picture.
        output: The output to read; `None` is the probabilities.

    Returns:
        `float32 [N,K]`.
    """
    wanted = output or answer_name(session.get_outputs())
    return ask_all(session, spec, pictures, batch, [wanted])[0]


def ask_all(
    session: Any, spec: ModelSpec, pictures: Pictures, batch: int, outputs: Sequence[str]
) -> list[Answers]:
    """Several outputs of a loaded file in one pass; see `ask`.

    Returns:
        `float32 [N,K]` for each of `outputs`.
    """
    name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
    fixed = shape[0] if isinstance(shape[0], int) else None
    batch = fixed or batch
    parts: list[list[Answers]] = [[] for _ in outputs]
    for start in range(0, len(pictures), batch):
        chunk = np.asarray(pictures[start : start + batch])
        wanted = len(chunk)
        if fixed and wanted < fixed:
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], fixed - wanted, axis=0)])
        answers = session.run(list(outputs), {name: to_layout(chunk, spec.layout)})
        for part, answer in zip(parts, answers, strict=True):
            part.append(answer[:wanted])
    return [np.concatenate(part) for part in parts]
