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


def _separable(kernel_size: int) -> Operation:
    """Depthwise-separable convolution: [ReLU, depthwise, 1x1, BN] twice, the stride in the first depthwise one."""

    def build(channels: int, stride: int, norm: Norm) -> nn.Module:
        from torch import nn

        from autoseg.ops.layers import Chain, depthwise, pointwise

        return Chain(
            relu1=nn.ReLU(),
            depthwise1=depthwise(channels, kernel_size, stride),
            pointwise1=pointwise(channels, channels),
            norm1=norm(channels),
            relu2=nn.ReLU(),
            depthwise2=depthwise(channels, kernel_size),
            pointwise2=pointwise(channels, channels),
            norm2=norm(channels),
        )

    size = f"{kernel_size}x{kernel_size}"
    return Operation(
        f"sep_conv_{size}", f"sep {size}", lambda c: 2 * (kernel_size**2 * c + c**2), build,
        FusedForm("separable", kernel_size),
    )  # fmt: skip


def _atrous(kernel_size: int) -> Operation:
    """ReLU, dense convolution at rate 2, BN (Auto-DeepLab's code); at stride 2 a bilinear halving and rate 1."""

    def build(channels: int, stride: int, norm: Norm) -> nn.Module:
        from torch import nn

        from autoseg.ops.layers import Chain, Strided, dense

        return Chain(
            relu=nn.ReLU(),
            halve=Strided(stride),
            conv=dense(channels, kernel_size, rate=2 if stride == 1 else 1),
            norm=norm(channels),
        )

    size = f"{kernel_size}x{kernel_size}"
    return Operation(
        f"atrous_conv_{size}", f"atrous {size}", lambda c: kernel_size**2 * c**2, build,
        FusedForm("atrous", kernel_size),
    )  # fmt: skip


def _dilated(kernel_size: int) -> Operation:
    """Dilated separable convolution of DARTS (Liu et al. 2019): ReLU, depthwise at rate 2, 1x1, BN; any stride."""

    def build(channels: int, stride: int, norm: Norm) -> nn.Module:
        from torch import nn

        from autoseg.ops.layers import Chain, depthwise, pointwise

        return Chain(
            relu=nn.ReLU(),
            depthwise=depthwise(channels, kernel_size, stride, rate=2),
            pointwise=pointwise(channels, channels),
            norm=norm(channels),
        )

    size = f"{kernel_size}x{kernel_size}"
    return Operation(
        f"dil_conv_{size}", f"dil {size}", lambda c: kernel_size**2 * c + c**2, build,
        FusedForm("dilated", kernel_size),
    )  # fmt: skip


for _make in (_separable, _atrous, _dilated):
    register(_make(3))
    register(_make(5))
