"""Depthwise convolutions of several kernel sizes in one call, with a way back that is fast on a CPU too.

On a CPU (oneDNN) the gradient of a 5x5 depthwise weight takes over ten times as long as that of a 3x3 one, and any of a
dilated one longer still. Both follow exactly from fast calls: the 5x5 gradient is four overlapping 3x3 ones; a gradient
at rate 2 is one at rate 1 over the four interleaved halves of the images; and the gradient of the input is a
convolution with the kernel turned around.

Letters: N images, H height, W width, M stacked channels, k the greatest kernel size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten


class Depthwise(NamedTuple):
    """Each channel with its own k x k kernel, stride 1, size kept."""

    sizes: tuple[int, ...]
    """Kernel sizes of as many equal parts of the channels; smaller kernels come framed by zeros."""
    rate: int = 1

    def __call__(self, features: Tensor, weight: Tensor) -> Tensor:
        """features: (N, M, H, W), weight: (M, 1, k, k)."""
        return F.conv2d(features, weight, None, 1, self._padding(weight), self.rate, len(weight))

    def backward(self, grad: Tensor, features: Tensor, weight: Tensor, of_weight: bool) -> tuple[Tensor, Tensor | None]:
        """Gradients of features and weight. In the frame around smaller kernels the latter is not to be used."""
        if features.device.type != "cpu":
            of_features, found, _ = _backward(grad, features, weight, self._padding(weight), self.rate, of_weight)
            return of_features, found
        of_features = self(grad, weight.flip(2, 3))
        if not of_weight:
            return of_features, None
        if self.rate == 2:
            grad, features = _interleaved(grad), _interleaved(features)
        largest, parts = weight.shape[-1], len(self.sizes)
        gradients = [
            F.pad(_weight_gradient(of_part, read, size), ((largest - size) // 2,) * 4)
            for of_part, read, size in zip(grad.chunk(parts, 1), features.chunk(parts, 1), self.sizes, strict=True)
        ]
        return of_features, torch.cat(gradients)

    def _padding(self, weight: Tensor) -> int:
        return self.rate * (weight.shape[-1] // 2)


def _weight_gradient(grad: Tensor, features: Tensor, size: int) -> Tensor:
    """At rate 1, of kernels of 3x3 or 5x5: (M, 1, size, size)."""
    height, width = features.shape[2:]
    grad, three = grad.contiguous(memory_format=torch.channels_last), features.new_empty(grad.shape[1], 1, 3, 3)
    if size == 3:
        return _of_weight(grad, features, three, 1)
    framed = F.pad(features, (2, 2, 2, 2))
    found = features.new_empty(len(three), 1, 5, 5)
    for top in (0, 2):
        for left in (0, 2):
            shifted = framed[:, :, top : top + height + 2, left : left + width + 2]
            found[:, :, top : top + 3, left : left + 3] = _of_weight(grad, shifted, three, 0)
    return found


def _of_weight(grad: Tensor, features: Tensor, weight: Tensor, padding: int) -> Tensor:
    found: Tensor = aten.convolution_backward(
        grad, features, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], len(weight), (False, True, False)
    )[1]
    return found


def _backward(
    grad: Tensor, features: Tensor, weight: Tensor, padding: int, rate: int, of_weight: bool
) -> tuple[Tensor, Tensor | None, None]:
    found: tuple[Tensor, Tensor | None, None] = aten.convolution_backward(
        grad, features, weight, None, [1, 1], [padding] * 2, [rate] * 2, False, [0, 0], len(weight),
        (True, of_weight, False),
    )  # fmt: skip
    return found


def _interleaved(features: Tensor) -> Tensor:
    """(N, M, H, W) -> (4N, M, ceil(H/2), ceil(W/2)), channels_last: even and odd rows and columns as images."""
    height, width = features.shape[2:]
    features = F.pad(features, (0, width % 2, 0, height % 2))
    parts = [features[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)
