"""Operations written out from their definitions, tap by tap, without PyTorch's convolutions, pools and interpolation.

Letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def taps(x: Tensor, kernel: int, stride: int = 1, rate: int = 1, fill: float = 0.0) -> Tensor:
    """What each of the kernel's places sees, row by row: (k*k, N, C, ceil(H / stride), ceil(W / stride))."""
    half = rate * (kernel // 2)
    padded = F.pad(x, (half,) * 4, value=fill)
    height, width = -(-x.shape[2] // stride), -(-x.shape[3] // stride)
    return torch.stack(
        [
            padded[:, :, row * rate :: stride, column * rate :: stride][:, :, :height, :width]
            for row in range(kernel)
            for column in range(kernel)
        ]
    )


def convolve(x: Tensor, weight: Tensor, stride: int = 1, rate: int = 1) -> Tensor:
    """weight: (Cout, Cin, k, k)."""
    return torch.einsum("tnchw,oct->nohw", taps(x, weight.shape[-1], stride, rate), weight.flatten(2))


def depthwise(x: Tensor, weight: Tensor, stride: int = 1, rate: int = 1) -> Tensor:
    """weight: (C, 1, k, k)."""
    return torch.einsum("tnchw,ct->nchw", taps(x, weight.shape[-1], stride, rate), weight[:, 0].flatten(1))


def average_pool(x: Tensor, stride: int = 1) -> Tensor:
    """Mean of the pixels of a 3x3 window that are inside the image."""
    return taps(x, 3, stride, fill=float("nan")).nanmean(0)


def max_pool(x: Tensor, stride: int = 1) -> Tensor:
    return taps(x, 3, stride, fill=-float("inf")).amax(0)


def hats(before: int, after: int) -> Tensor:
    """(after, before) weights of linear interpolation that maps the first to the first and the last to the last."""
    step = (before - 1) / (after - 1) if after > 1 else 0.0
    places = torch.arange(after, dtype=torch.float64) * step
    return (1 - (places[:, None] - torch.arange(before)).abs()).clamp(min=0)


def interpolate(x: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = hats(x.shape[2], size[0]), hats(x.shape[3], size[1])
    return torch.einsum("nchw,ih,jw->ncij", x, rows.to(x), columns.to(x))


def halve(x: Tensor) -> Tensor:
    return interpolate(x, (-(-x.shape[2] // 2), -(-x.shape[3] // 2)))


def normalise(x: Tensor, norm: nn.Module) -> Tensor:
    """Training-mode BatchNorm with the constants of `norm`."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = (x - mean).square().mean((0, 2, 3), keepdim=True)
    scaled = (x - mean) / (variance + norm.eps).sqrt()
    return scaled if norm.weight is None else scaled * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def sep_conv(x: Tensor, op: nn.Module, stride: int = 1) -> Tensor:
    """[ReLU, depthwise, 1x1, BN] twice."""
    x = convolve(depthwise(x.clamp(min=0), op.depthwise1.weight, stride), op.pointwise1.weight)
    x = normalise(x, op.norm1).clamp(min=0)
    return normalise(convolve(depthwise(x, op.depthwise2.weight), op.pointwise2.weight), op.norm2)


def atrous_conv(x: Tensor, op: nn.Module, stride: int = 1) -> Tensor:
    x = x.clamp(min=0)
    x = convolve(x, op.conv.weight, rate=2) if stride == 1 else convolve(halve(x), op.conv.weight)
    return normalise(x, op.norm)


def dil_conv(x: Tensor, op: nn.Module, stride: int = 1) -> Tensor:
    """ReLU, depthwise at rate 2, 1x1, BN: once."""
    return normalise(convolve(depthwise(x.clamp(min=0), op.depthwise.weight, stride, 2), op.pointwise.weight), op.norm)


def apply(name: str, x: Tensor, op: nn.Module, stride: int = 1) -> Tensor:
    """The operation called `name` with the weights of `op`."""
    if name == "none":
        return torch.zeros_like(x)[:, :, ::stride, ::stride]
    if name == "skip_connect":
        return x if stride == 1 else halve(x)
    if name == "avg_pool_3x3":
        return average_pool(x, stride)
    if name == "max_pool_3x3":
        return max_pool(x, stride)
    kernel = int(name[-1])
    kinds = {"sep": ("depthwise1", sep_conv), "dil": ("depthwise", dil_conv), "atr": ("conv", atrous_conv)}
    convolution, formula = kinds[name[:3]]
    assert getattr(op, convolution).kernel_size == (kernel, kernel)
    return formula(x, op, stride)


def conv_norm_relu(x: Tensor, module: nn.Sequential, rate: int = 1) -> Tensor:
    conv, norm, _ = module
    return normalise(convolve(x, conv.weight, rate=rate), norm).clamp(min=0)
