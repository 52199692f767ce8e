"""Depthwise convolutions of several kernel sizes in one call, with a backward pass that is fast on a CPU too.

On a CPU (oneDNN) the gradient of a depthwise weight takes over ten times as long if the kernel has more than three
columns, and any gradient of a dilated one is slow. Fast calls give both exactly: the gradient of a 5x5 weight is that
of three columns beside that of two; a gradient at rate 2 is one at rate 1 over four interleaved images; and the
gradient of the input is a convolution with the flipped kernel.

Letters: N images, H height, W width, M stacked channels, k the greatest kernel size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.ops.acting import device_type
from autoseg.supernet.fast.channel_groups import LAYOUTS, Layout

aten = torch.ops.aten


class Depthwise(NamedTuple):
    """One k x k kernel per channel, with stride 1; keeps the size."""

    sizes: tuple[int, ...]
    """Kernel size of each equal part of the channels; smaller kernels are padded with zeros."""
    rate: int = 1
    kernel: str = "convolution"
    """`convolution` (PyTorch's), or `triton` (our own, on a GPU only)."""
    layout: Layout = LAYOUTS["channels_last"]

    def __call__(self, features: Tensor, weight: Tensor) -> Tensor:
        """features: (N, M, H, W), weight: (M, 1, k, k)."""
        if self.kernel == "triton":
            from autoseg.supernet.fast.triton_depthwise import depthwise as ours  # needs an optional package

            result: Tensor = ours(features, weight, self._wide(weight), self.rate, False)
            return result
        return F.conv2d(features, weight, None, 1, self._padding(weight), self.rate, len(weight))

    def backward(self, grad: Tensor, features: Tensor, weight: Tensor, of_weight: bool) -> tuple[Tensor, Tensor | None]:
        """Gradients of features and weight; the values in the padding of smaller kernels have no meaning."""
        if self.kernel == "triton":
            return self._triton_backward(grad, features, weight, of_weight)
        if device_type(features) != "cpu":
            mask = (True, of_weight)
            return convolution_backward(grad, features, weight, self._padding(weight), self.rate, len(weight), mask)
        of_features = self(grad, weight.flip(2, 3))
        if not of_weight:
            return of_features, None
        if self.rate == 2:
            grad, features = (self.layout.arrange(_interleaved(each)) for each in (grad, features))
        return of_features, _weight_gradient(grad, features, weight.shape[-1])

    def _triton_backward(
        self, grad: Tensor, features: Tensor, weight: Tensor, of_weight: bool
    ) -> tuple[Tensor, Tensor | None]:
        from autoseg.supernet.fast.triton_depthwise import depthwise, depthwise_weight

        wide = self._wide(weight)
        of_features = depthwise(grad, weight, wide, self.rate, True)
        found = depthwise_weight(grad, features, wide, self.rate, weight.shape[-1]) if of_weight else None
        return of_features, found

    def _padding(self, weight: Tensor) -> int:
        return self.rate * (weight.shape[-1] // 2)

    def _wide(self, weight: Tensor) -> list[bool]:
        """For each part, whether its kernels have the full size."""
        return [size == weight.shape[-1] for size in self.sizes]


def _weight_gradient(grad: Tensor, features: Tensor, size: int) -> Tensor:
    """The weight gradient at rate 1, (M, 1, size, size), from at most three kernel columns at a time."""
    margin, parts = size // 2, []
    for first in range(0, size, 3):
        columns = min(3, size - first)
        framed = F.pad(features, (margin - first, first + columns - 1 - margin, margin, margin))
        weight = grad.new_empty(grad.shape[1], 1, size, columns)
        parts.append(convolution_backward(grad, framed, weight, 0, 1, len(weight), (False, True))[1])
    return torch.cat(parts, 3) if len(parts) > 1 else parts[0]


def convolution_backward(
    grad: Tensor, features: Tensor, weight: Tensor, padding: int, rate: int, groups: int, mask: tuple[bool, bool]
) -> tuple[Any, Any]:
    """The gradients of features and weight that `mask` requests, else None. Stride 1, no bias."""
    of_features, of_weight, _ = aten.convolution_backward(
        grad, features, weight, None, [1, 1], [padding] * 2, [rate] * 2, False, [0, 0], groups, (*mask, False)
    )
    return of_features if mask[0] else None, of_weight if mask[1] else None


def _interleaved(features: Tensor) -> Tensor:
    """(N, M, H, W) -> (4N, M, ceil(H/2), ceil(W/2)): even and odd rows and columns as images."""
    height, width = features.shape[2:]
    features = F.pad(features, (0, width % 2, 0, height % 2))
    parts = [features[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.cat(parts)
