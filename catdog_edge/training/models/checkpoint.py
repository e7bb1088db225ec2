"""Checkpoints: a `ModelSpec` and the weights it describes, in one file.

The file is `{"spec": JSON, "state_dict": tensors}` and, for a run that can be resumed,
`"training"` (plain values and tensors). It is read with `weights_only=True`: a checkpoint from a
stranger cannot run code.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from catdog_edge.errors import ModelError, first_line
from catdog_edge.runtime.foreign_files import foreign_model
from catdog_edge.spec import ModelSpec
from catdog_edge.system.files import atomic_write
from catdog_edge.training.models.imagenet_head import build_grouped, group_sizes
from catdog_edge.training.models.registry import architecture


def save_checkpoint(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, torch.Tensor],
    spec: ModelSpec,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint atomically.

    `training` is what a resumed run needs beyond the weights (optimizer state, epoch, ...).

    Examples:
        >>> save_checkpoint("best.pt", network.state_dict(), spec)
        >>> network, spec = load_checkpoint("best.pt")
    """
    document: dict[str, Any] = {"spec": spec.to_json(), "state_dict": dict(state_dict)}
    if training is not None:
        document["training"] = dict(training)
    # Into memory first: where a disk is full, torch reports a defect of its zip writer instead.
    content = io.BytesIO()
    torch.save(document, content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Any], ModelSpec]:
    """Read a checkpoint (`state_dict`, perhaps `training`, on the CPU) and its spec.

    Raises `ModelError` for a missing or damaged file, and one that is not ours.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"there is no checkpoint {file}; train one with: catdog-edge train")
    if foreign := foreign_model(file):
        raise ModelError(f"{file} is {foreign}")
    try:
        document = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        if zipfile.is_zipfile(file) and isinstance(error, pickle.UnpicklingError):
            # More in it than tensors and plain values: code, which is not run. torch's own
            # message advises to run it all the same.
            raise _foreign(file, "it holds Python objects, which are not loaded") from error
        raise ModelError(
            f"{file} is damaged or not a checkpoint ({_reason(file, error)}); "
            "copy it again, or take last.pt of the same run"
        ) from error
    kinds = {"spec": str, "state_dict": dict}
    if not isinstance(document, dict) or any(
        not isinstance(document.get(name), kind) for name, kind in kinds.items()
    ):
        raise _foreign(file, "no spec in it")
    return document, ModelSpec.from_json(document["spec"], source=str(file))


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[nn.Module, ModelSpec]:
    """Rebuild the network of a checkpoint, on the CPU, in evaluation mode.

    Raises `ModelError` for an unknown architecture, weights that do not fit it, and see
    `read_checkpoint`.
    """
    document, spec = read_checkpoint(path)
    try:
        sizes = group_sizes(document["state_dict"])
        if sizes is None:
            network = architecture(spec.architecture).build(spec.logits)
        else:
            network = build_grouped(spec.architecture, sizes)
    except (ModelError, ValueError) as error:
        raise ModelError(
            f"{path}: {error}, or upgrade catdog-edge if a newer one trained it"
        ) from error
    try:
        network.load_state_dict(document["state_dict"])
    except RuntimeError as error:
        raise ModelError(
            f"{path}: its weights do not fit {spec.architecture} with {len(spec.labels)} classes "
            f"({first_line(error)}); train again with this version of catdog-edge"
        ) from error
    return network.eval(), spec


def _foreign(file: Path, reason: str) -> ModelError:
    return ModelError(
        f"{file} is a PyTorch file, but not a checkpoint of catdog-edge ({reason}); "
        "use the best.pt that `catdog-edge train` wrote"
    )


def _reason(file: Path, error: Exception) -> str:
    """Explain why torch cannot load a file; its own message misleads if it is not a zip."""
    with contextlib.suppress(OSError), file.open("rb") as stream:
        if stream.read(2) != b"PK":
            return "not PyTorch's zip format"
    return first_line(error).split(". ")[0]
