"""Checkpoints: a `ModelSpec` and the weights it describes, in one file.

Knows nothing of data or of the training loop. The file is `{"spec": JSON, "state_dict":
tensors}` and, for a run that can be resumed, `"training"` (plain values and tensors). It is
read with `weights_only=True`: a checkpoint from a stranger cannot run code.
"""

from __future__ import annotations

import errno
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from catdog_edge.errors import ModelError, first_line
from catdog_edge.spec import ModelSpec
from catdog_edge.system.files import atomic_write
from catdog_edge.training.models.registry import architecture


def save_checkpoint(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, torch.Tensor],
    spec: ModelSpec,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: Usually `runs/NAME/best.pt` or `last.pt`.
        state_dict: The network's weights.
        spec: What describes them.
        training: What a resumed run needs beyond the weights (optimiser state, epoch, ...).

    Raises:
        CatdogError: The file cannot be written.
    """
    document: dict[str, Any] = {"spec": spec.to_json(), "state_dict": dict(state_dict)}
    if training is not None:
        document["training"] = dict(training)
    with atomic_write(path) as temporary:
        try:
            # Where writing to a stream fails, the reason stands behind torch's own error; of a
            # path that it opens itself torch tells an `unexpected pos` of its zip writer alone.
            with temporary.open("wb") as stream:
                torch.save(document, stream)
        except (OSError, RuntimeError) as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise OSError(
                    None, f"torch could not write it ({first_line(error).split('. ')[0]})"
                ) from error
            if cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(cause.errno, "the disk is full") from error
            raise cause from None


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Any], ModelSpec]:
    """Read a checkpoint without building its network.

    Returns:
        The document (`state_dict`, perhaps `training`) with tensors on the CPU, and the spec.

    Raises:
        ModelError: There is no such file, or it is damaged, or not one of ours.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelError(f"there is no checkpoint {file}; train one with: catdog-edge train")
    try:
        document = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        whole = zipfile.is_zipfile(file)
        if whole and isinstance(error, pickle.UnpicklingError):
            # More in it than tensors and plain values: code, which is not run. torch's own
            # message advises to run it all the same.
            raise ModelError(
                f"{file} is a PyTorch file, but not a checkpoint of catdog-edge (it holds Python "
                "objects, which are not loaded); use the best.pt that `catdog-edge train` wrote"
            ) from error
        reason = (
            first_line(error).split(". ")[0]
            if whole or _begins_as_zip(file)
            else "not PyTorch's zip format"
        )
        raise ModelError(
            f"{file} is damaged or not a checkpoint ({reason}); "
            "copy it again, or take last.pt of the same run"
        ) from error
    if (
        not isinstance(document, dict)
        or not isinstance(document.get("spec"), str)
        or not isinstance(document.get("state_dict"), dict)
    ):
        raise ModelError(
            f"{file} is a PyTorch file, but not a checkpoint of catdog-edge (no spec in it); "
            "use the best.pt that `catdog-edge train` wrote"
        )
    return document, ModelSpec.from_json(document["spec"], source=str(file))


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[nn.Module, ModelSpec]:
    """Rebuild the network of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        ModelError: See `read_checkpoint`; or the architecture is not known here, or the weights
            do not fit it.
    """
    document, spec = read_checkpoint(path)
    try:
        network = architecture(spec.architecture).build(spec.logits)
    except ModelError as error:
        raise ModelError(
            f"{path}: {error}, or upgrade catdog-edge if a newer one trained it"
        ) from error
    try:
        network.load_state_dict(document["state_dict"])
    except RuntimeError as error:
        raise ModelError(
            f"{path}: its weights do not fit {spec.architecture} with {len(spec.labels)} classes "
            f"({first_line(error).split('. ')[0]}); train again with this version of catdog-edge"
        ) from error
    return network.eval(), spec


def _begins_as_zip(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(2) == b"PK"
    except OSError:
        return True  # torch's reason is the system's: it cannot be read
