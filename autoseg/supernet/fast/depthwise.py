"""Depthwise convolutions of several kernel sizes in one call, with a way back that is fast on a CPU too.

On a CPU (oneDNN) the gradient of a depthwise weight takes over ten times as long once the kernel is wider than three
columns, and any gradient of a dilated one is slow. Both follow exactly from fast calls: the gradient of a 5x5 weight is
one of three columns beside one of two; a gradient at rate 2 is one at rate 1 over four interleaved images; and the
gradient of the input is a convolution with the kernel turned around.

Letters: N images, H height, W width, M stacked channels, k the greatest kernel size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.ops.acting import device_type
from autoseg.supernet.fast.channel_groups import LAYOUTS, Layout

aten = torch.ops.aten


class Depthwise(NamedTuple):
    """Each channel with its own k x k kernel, stride 1, size kept."""

    sizes: tuple[int, ...]
    """Kernel sizes of as many equal parts of the channels; smaller kernels come framed by zeros."""
    rate: int = 1
    kernel: str = "convolution"
    """PyTorch's, or `triton`: one of our own, on a GPU alone."""
    layout: Layout = LAYOUTS["channels_last"]

    def __call__(self, features: Tensor, weight: Tensor) -> Tensor:
        """features: (N, M, H, W), weight: (M, 1, k, k)."""
        if self.kernel == "triton":
            from autoseg.supernet.fast.triton_depthwise import depthwise as ours  # its package is not on every machine

            result: Tensor = ours(features, weight, self._wide(weight), self.rate, False)
            return result
        return F.conv2d(features, weight, None, 1, self._padding(weight), self.rate, len(weight))

    def backward(self, grad: Tensor, features: Tensor, weight: Tensor, of_weight: bool) -> tuple[Tensor, Tensor | None]:
        """Gradients of features and weight; what stands in the frames around smaller kernels has no meaning."""
        if self.kernel == "triton":
            return self._triton_backward(grad, features, weight, of_weight)
        if device_type(features) != "cpu":
            mask = (True, of_weight)
            of_features, found = _backward(grad, features, weight, self._padding(weight), self.rate, mask)
            return of_features, found if of_weight else None
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
        """Of each part, whether its kernels fill the frame."""
        return [size == weight.shape[-1] for size in self.sizes]


def _weight_gradient(grad: Tensor, features: Tensor, size: int) -> Tensor:
    """At rate 1, (M, 1, size, size): of at most three columns of the kernels at a time."""
    margin, parts = size // 2, []
    for first in range(0, size, 3):
        columns = min(3, size - first)
        framed = F.pad(features, (margin - first, first + columns - 1 - margin, margin, margin))
        weight = grad.new_empty(grad.shape[1], 1, size, columns)
        parts.append(_backward(grad, framed, weight, 0, 1, (False, True))[1])
    return torch.cat(parts, 3) if len(parts) > 1 else parts[0]


def _backward(
    grad: Tensor, features: Tensor, weight: Tensor, padding: int, rate: int, mask: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of features and weight as far as `mask` asks for them."""
    of_features, of_weight, _ = aten.convolution_backward(
        grad, features, weight, None, [1, 1], [padding] * 2, [rate] * 2, False, [0, 0], len(weight), (*mask, False)
    )
    return of_features, of_weight


def _interleaved(features: Tensor) -> Tensor:
    """(N, M, H, W) -> (4N, M, ceil(H/2), ceil(W/2)): even and odd rows and columns as images."""
    height, width = features.shape[2:]
    features = F.pad(features, (0, width % 2, 0, height % 2))
    parts = [features[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.cat(parts)
