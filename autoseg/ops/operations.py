"""The operations of a cell, one record each. This file loads without torch.

An operation maps (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)). The stride is 1 in a search and 2 in the
down moves of a decoded path. To add one, write its record here, or in a file of your own (`docs/extending.md`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoseg.registry import FusedForm, Operation, register

if TYPE_CHECKING:
    from torch import nn

    from autoseg.ops.layers import Norm


# --- without weights --------------------------------------------------------------------------------------------------


def _zero(channels: int, stride: int, norm: Norm) -> nn.Module:
    from autoseg.ops.layers import Zero

    return Zero(stride)


def _skip(channels: int, stride: int, norm: Norm) -> nn.Module:
    """The identity; at stride 2 bilinear halving, which needs no parameters (the paper leaves this open)."""
    from autoseg.ops.layers import Strided

    return Strided(stride)


def _avg_pool(channels: int, stride: int, norm: Norm) -> nn.Module:
    """3x3 average pooling over the pixels inside the image."""
    from torch import nn

    return nn.AvgPool2d(3, stride, 1, count_include_pad=False)


def _max_pool(channels: int, stride: int, norm: Norm) -> nn.Module:
    from torch import nn

    return nn.MaxPool2d(3, stride, 1)


register(Operation("none", "none", lambda c: 0, _zero, FusedForm("none")))
register(Operation("skip_connect", "skip", lambda c: 0, _skip, FusedForm("skip")))
register(Operation("avg_pool_3x3", "avg pool 3x3", lambda c: 0, _avg_pool, FusedForm("avg_pool", 3)))
register(Operation("max_pool_3x3", "max pool 3x3", lambda c: 0, _max_pool, FusedForm("max_pool", 3)))


# --- convolutions -----------------------------------------------------------------------------------------------------


def _separable(name: str, fused: FusedForm, suffixes: tuple[str, ...], rate: int = 1) -> Operation:
    """[ReLU, depthwise convolution, 1x1 convolution, BN] for each suffix; the first depthwise one strides."""
    kernel_size = fused.kernel_size

    def build(channels: int, stride: int, norm: Norm) -> nn.Module:
        from torch import nn

        from autoseg.ops.layers import Chain, depthwise, pointwise

        layers: dict[str, nn.Module] = {}
        for number, suffix in enumerate(suffixes):
            layers[f"relu{suffix}"] = nn.ReLU()
            layers[f"depthwise{suffix}"] = depthwise(channels, kernel_size, 1 if number else stride, rate)
            layers[f"pointwise{suffix}"] = pointwise(channels, channels)
            layers[f"norm{suffix}"] = norm(channels)
        return Chain(**layers)

    size, times = f"{kernel_size}x{kernel_size}", len(suffixes)
    return Operation(
        f"{name}_conv_{size}", f"{name} {size}", lambda c: times * (kernel_size**2 * c + c**2), build, fused
    )


def _atrous(kernel_size: int) -> Operation:
    """ReLU, dense convolution at rate 2, BN (Auto-DeepLab's code); at stride 2 a bilinear halving and rate 1."""

    def build(channels: int, stride: int, norm: Norm) -> nn.Module:
        from torch import nn

        from autoseg.ops.layers import Chain, Strided, dense

        conv = dense(channels, kernel_size, rate=2 if stride == 1 else 1)
        return Chain(relu=nn.ReLU(), halve=Strided(stride), conv=conv, norm=norm(channels))

    size, fused = f"{kernel_size}x{kernel_size}", FusedForm("atrous", kernel_size)
    return Operation(f"atrous_conv_{size}", f"atrous {size}", lambda c: kernel_size**2 * c**2, build, fused)


# depthwise-separable convolutions; dense ones at rate 2; DARTS's separable ones at rate 2 (Liu et al. 2019)
register(_separable("sep", FusedForm("separable", 3), ("1", "2")))
register(_separable("sep", FusedForm("separable", 5), ("1", "2")))
register(_atrous(3))
register(_atrous(5))
register(_separable("dil", FusedForm("dilated", 3), ("",), rate=2))
register(_separable("dil", FusedForm("dilated", 5), ("",), rate=2))
