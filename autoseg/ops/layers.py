"""Small layers of operations, cells, heads and networks, and their initialisation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from autoseg.ops.resize import level_size, resize

Norm = Callable[[int], nn.Module]
"""Makes a normalisation layer for a number of channels."""
Pairs = tuple[tuple[str, str], ...]
"""Names of a module's convolutions, each with the normalisation that alone reads it: `network.fold` merges them."""


class Chain(nn.Sequential):
    """Named layers in a row. A normalisation right behind a convolution can be merged into it."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__(OrderedDict(layers))
        convs = (nn.Conv2d, nn.ConvTranspose2d)
        self.conv_norms: Pairs = tuple(
            (before, after)
            for (before, conv), (after, norm) in pairwise(layers.items())
            if isinstance(conv, convs) and not isinstance(norm, (*convs, nn.ReLU))
        )


class ReluConvNorm(Chain):
    """ReLU, 1x1 convolution, normalisation: (N, Cin, H, W) -> (N, Cout, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__(relu=nn.ReLU(), conv=pointwise(in_channels, out_channels), norm=norm(out_channels))


class DropPath(nn.Module):
    """Base of modules that drop a branch for some images of a training batch (Larsson et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.drop_probability = 0.0
        self._keep: Tensor | None = None  # 1 - drop_probability on the device: a CUDA graph reads it anew

    def drop_path(self, branch: Tensor) -> Tensor:
        """The branch (N, C, H, W), zero for some images of a training batch, and the others scaled up."""
        if not self.training or self._keep is None:
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device) < self._keep
        return branch * kept / self._keep

    def set_drop_probability(self, probability: float) -> None:
        """From now on, drop each branch with this probability in training."""
        self.drop_probability = probability
        if probability == 0:
            self._keep = None
            return
        if self._keep is None:
            self._keep = torch.empty((), device=next(self.parameters()).device)
        self._keep.fill_(1 - probability)  # in place, and without waiting for the device


class Strided(nn.Module):
    """The identity at stride 1; at stride 2 bilinear halving. (N, C, H, W) -> (N, C, ceil(H / s), ceil(W / s))."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return resize(features, level_size((features.shape[-2], features.shape[-1]), self.stride))


class Zero(Strided):
    """Zeros in place of features. (N, C, H, W) -> (N, C, ceil(H / s), ceil(W / s))."""

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        size = level_size((features.shape[-2], features.shape[-1]), self.stride)
        return features.new_zeros(*features.shape[:2], *size)


def depthwise(channels: int, kernel_size: int, stride: int = 1, rate: int = 1) -> nn.Conv2d:
    """A k x k convolution of each channel by itself, without bias, padded so that stride 1 keeps the size."""
    return dense(channels, kernel_size, stride, rate, channels)


def pointwise(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def dense(channels: int, kernel_size: int, stride: int = 1, rate: int = 1, groups: int = 1) -> nn.Conv2d:
    """A k x k convolution of all channels, without bias, padded so that stride 1 keeps the size."""
    return nn.Conv2d(channels, channels, kernel_size, stride, rate * (kernel_size // 2), rate, groups, bias=False)


def separable(channels: int, stride: int, norm: Norm, kernel_size: int, suffixes: Sequence[str], rate: int) -> Chain:
    """[ReLU, depthwise convolution, 1x1 convolution, BN] for each suffix; the first depthwise one strides."""
    layers: dict[str, nn.Module] = {}
    for number, suffix in enumerate(suffixes):
        layers[f"relu{suffix}"] = nn.ReLU()
        layers[f"depthwise{suffix}"] = depthwise(channels, kernel_size, 1 if number else stride, rate)
        layers[f"pointwise{suffix}"] = pointwise(channels, channels)
        layers[f"norm{suffix}"] = norm(channels)
    return Chain(**layers)


def atrous(channels: int, stride: int, norm: Norm, kernel_size: int) -> Chain:
    """ReLU, dense convolution at rate 2, BN (Auto-DeepLab's code); at stride 2 a bilinear halving and rate 1."""
    conv = dense(channels, kernel_size, rate=2 if stride == 1 else 1)
    return Chain(relu=nn.ReLU(), halve=Strided(stride), conv=conv, norm=norm(channels))


def he_initialise(module: nn.Module, kept: Collection[nn.Module] = ()) -> None:
    """He initialisation (2015), by fan-out, of every convolution in `module` but those `kept`; zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part not in kept:
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
