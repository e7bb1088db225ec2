"""Batch norms that are added to, folded into or fused with convolutions, or frozen.

In evaluation a batch norm after a convolution is an affine map of its outputs and folds into it
exactly (Ioffe and Szegedy, 2015), so a network without batch norms can be trained with them and
keep its architecture.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class ConvBatchNorm(nn.Module):
    """A convolution followed by a batch norm that is used only in training."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm2d(convolution.out_channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map `[N,C,H,W]` to `[N,D,H,W]`."""
        normed: torch.Tensor = self.norm(self.convolution(maps))
        return normed


def add_batch_norms(network: nn.Module) -> nn.Module:
    """Copy a network, with a batch norm after each convolution not followed by one in its parent.

    Examples:
        >>> trained = add_batch_norms(SimpleCNN(2))
        >>> plain = fold_batch_norms(trained)  # the tensors of SimpleCNN again
    """
    changed = copy.deepcopy(network)
    for module in list(changed.modules()):
        children = list(module.named_children())
        followers = [*(child for _, child in children[1:]), None]
        for (name, child), follower in zip(children, followers):
            if isinstance(child, nn.Conv2d) and not isinstance(follower, nn.BatchNorm2d):
                setattr(module, name, ConvBatchNorm(child))
    return changed


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Copy a network of `add_batch_norms`, its added batch norms folded into the convolutions."""
    plain = copy.deepcopy(network).eval()
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ConvBatchNorm):
                setattr(module, name, fuse_conv_bn_eval(child.convolution, child.norm))
    return plain


def fuse_batch_norms(network: nn.Module) -> nn.Module:
    """Copy a network for inference, each `nn.Sequential`'s batch norms fused into convolutions."""
    fused = copy.deepcopy(network).eval()
    for module in list(fused.modules()):
        if isinstance(module, nn.Sequential):
            for place, (convolution, norm) in enumerate(itertools.pairwise(module)):
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[place] = fuse_conv_bn_eval(convolution, norm)
                    module[place + 1] = nn.Identity()
    return fused


def freeze_batch_norms(network: nn.Module) -> None:
    """Freeze the running statistics; call it after each `network.train()`, which undoes it."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def freeze_features(network: nn.Module) -> None:
    """Let only the last linear layer learn; raises `ValueError` where there is none."""
    head = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not head:
        raise ValueError("expected a network with a linear layer, got one without")
    network.requires_grad_(False)
    head[-1].requires_grad_(True)
