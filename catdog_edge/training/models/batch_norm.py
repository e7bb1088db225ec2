"""Batch norms beside the architecture's own: folded in and out of convolutions, or frozen.

Knows nothing of training loops. A batch norm after a convolution is an affine map of its
outputs: in evaluation it folds into the convolution without a rest (Ioffe and Szegedy,
2015), so a network without batch norms can be trained with them and be itself afterwards.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class NormedConvolution(nn.Module):
    """A convolution that trains with a batch norm after it.

    Args:
        convolution: Taken over as it is.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm2d(convolution.out_channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """`[N,C,H,W]` -> `[N,D,H,W]`."""
        normed: torch.Tensor = self.norm(self.convolution(maps))
        return normed


def with_norms(network: nn.Module) -> nn.Module:
    """A copy of a network in which each convolution without a batch norm has one.

    Args:
        network: Left as it is. A convolution counts as normed where the next module of the
            same `nn.Sequential` is a batch norm.
    """
    changed = copy.deepcopy(network)
    for module in list(changed.modules()):
        children = list(module.named_children())
        followers = [*(child for _, child in children[1:]), None]
        for (name, child), follower in zip(children, followers, strict=False):
            if isinstance(child, nn.Conv2d) and not isinstance(follower, nn.BatchNorm2d):
                setattr(module, name, NormedConvolution(child))
    return changed


def folded(network: nn.Module) -> nn.Module:
    """A copy of a network of `with_norms` that is the plain network again.

    Its answers in evaluation are those of the network that came in.

    Args:
        network: Left as it is.
    """
    plain = copy.deepcopy(network).eval()
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NormedConvolution):
                setattr(module, name, fuse_conv_bn_eval(child.convolution, child.norm))
    return plain


def fused(network: nn.Module) -> nn.Module:
    """A copy of a network for answers alone, its batch norms inside the convolutions.

    Args:
        network: Left as it is. Fused is what follows a convolution in an `nn.Sequential`.
    """
    plain = copy.deepcopy(network).eval()
    for module in list(plain.modules()):
        if isinstance(module, nn.Sequential):
            for place, (one, norm) in enumerate(itertools.pairwise(module)):
                if isinstance(one, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[place] = fuse_conv_bn_eval(one, norm)
                    module[place + 1] = nn.Identity()
    return plain


def freeze_norms(network: nn.Module) -> None:
    """Let the batch norms use the statistics that they have, and keep them.

    To be called after each `train()`, which wakes them.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def freeze_features(network: nn.Module) -> None:
    """Let only the last linear layer learn.

    Raises:
        ValueError: The network has no linear layer.
    """
    head = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not head:
        raise ValueError("wanted a network with a linear layer, got one without")
    network.requires_grad_(False)
    head[-1].requires_grad_(True)
