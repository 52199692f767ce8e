"""The convolutions of stacked channels, each with its backward pass: dense and 1x1, depthwise, and 1x1 as products.

On a CPU (oneDNN) the gradient of a depthwise weight takes over ten times as long if the kernel has more than three
columns, and any gradient of a dilated one is slow. Fast calls give both exactly: the gradient of a 5x5 weight is that
of three columns beside that of two; a gradient at rate 2 is one at rate 1 over four interleaved images; and the
gradient of the input is a convolution with the flipped kernel. Letters: see `mixed_op.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.ops.devices import device_type
from autoseg.supernet.fast.channel_groups import LAYOUTS, Layout

Gradients = tuple[Tensor, Tensor | None]
"""Those of features and, if requested, weight."""


class Conv(NamedTuple):
    """A convolution that keeps the size, with stride 1 and without bias."""

    rate: int
    groups: int
    layout: Layout

    def __call__(self, features: Tensor, weight: Tensor) -> Tensor:
        """features: (N, M, H, W)."""
        rows = self._as_rows(features, weight)
        output = F.conv2d(rows, weight, None, 1, _padding(weight, self.rate), self.rate, self.groups)
        return self._restore(output, features)

    def backward(self, grad: Tensor, features: Tensor, weight: Tensor, of_weight: bool) -> Gradients:
        """The gradients of a result."""
        inputs = self._as_rows(grad, weight), self._as_rows(features, weight), weight
        of_features, found = _backward(*inputs, _padding(weight, self.rate), self.rate, self.groups, (True, of_weight))
        return self._restore(of_features, features), found if of_weight else None

    def _as_rows(self, features: Tensor, weight: Tensor) -> Tensor:
        """For a 1x1 convolution, rows as images: with one thread PyTorch takes a slow path for few images."""
        several = weight.shape[-1] > 1 or torch.get_num_threads() > 1 or len(features) >= 16
        if several or device_type(features) != "cpu":
            return features
        return self.layout.as_rows(features)

    def _restore(self, output: Tensor, features: Tensor) -> Tensor:
        """Undo `_as_rows` after the convolution."""
        return output if len(output) == len(features) else self.layout.of_rows(output, features.shape)


class Product(NamedTuple):
    """A grouped 1x1 convolution as K products of C x C matrices, in the inputs' precision: faster if C is small."""

    groups: int
    layout: Layout

    def __call__(self, features: Tensor, weight: Tensor) -> Tensor:
        """features: (N, K*C, H, W), weight: (K*C, C, 1, 1)."""
        return self.layout.multiply(self._matrices(weight), features)

    def backward(self, grad: Tensor, features: Tensor, weight: Tensor, of_weight: bool) -> Gradients:
        """The gradients of a result."""
        grad = self.layout.for_products(grad)
        of_features = self.layout.multiply(self._matrices(weight).transpose(1, 2), grad)
        if not of_weight:
            return of_features, None
        return of_features, self.layout.correlate(grad, features, self.groups).view_as(weight)

    def _matrices(self, weight: Tensor) -> Tensor:
        return weight.view(self.groups, -1, weight.shape[1])


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

            return ours(features, weight, self._wide(weight), self.rate, False)
        return F.conv2d(features, weight, None, 1, _padding(weight, self.rate), self.rate, len(weight))

    def backward(self, grad: Tensor, features: Tensor, weight: Tensor, of_weight: bool) -> Gradients:
        """The gradients of a result; the values in the padding of smaller kernels have no meaning."""
        if self.kernel == "triton":
            from autoseg.supernet.fast.triton_depthwise import depthwise, depthwise_weight

            wide, size = self._wide(weight), weight.shape[-1]
            found = depthwise_weight(grad, features, wide, self.rate, size) if of_weight else None
            return depthwise(grad, weight, wide, self.rate, True), found
        if device_type(features) != "cpu":
            return Conv(self.rate, len(weight), self.layout).backward(grad, features, weight, of_weight)
        of_features = self(grad, weight.flip(2, 3))
        if not of_weight:
            return of_features, None
        if self.rate == 2:
            grad, features = (self.layout.arrange(_interleaved(each)) for each in (grad, features))
        return of_features, _weight_gradient(grad, features, weight.shape[-1])

    def _wide(self, weight: Tensor) -> list[bool]:
        """For each part, whether its kernels have the full size."""
        return [size == weight.shape[-1] for size in self.sizes]


def _padding(weight: Tensor, rate: int) -> int:
    return rate * (weight.shape[-1] // 2)


def _backward(
    grad: Tensor, features: Tensor, weight: Tensor, padding: int, rate: int, groups: int, mask: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """The gradients of features and weight that `mask` requests; the other has no meaning."""
    of_features, of_weight, _ = torch.ops.aten.convolution_backward(
        grad, features, weight, None, [1, 1], [padding] * 2, [rate] * 2, False, [0, 0], groups, (*mask, False)
    )
    return of_features, of_weight


def _weight_gradient(grad: Tensor, features: Tensor, size: int) -> Tensor:
    """The weight gradient at rate 1, (M, 1, size, size), from at most three kernel columns at a time."""
    margin, parts = size // 2, []
    for first in range(0, size, 3):
        columns = min(3, size - first)
        framed = F.pad(features, (margin - first, first + columns - 1 - margin, margin, margin))
        weight = grad.new_empty(grad.shape[1], 1, size, columns)
        parts.append(_backward(grad, framed, weight, 0, 1, len(weight), (False, True))[1])
    return torch.cat(parts, 3) if len(parts) > 1 else parts[0]


def _interleaved(features: Tensor) -> Tensor:
    """(N, M, H, W) -> (4N, M, ceil(H/2), ceil(W/2)): even and odd rows and columns as images."""
    height, width = features.shape[2:]
    features = F.pad(features, (0, width % 2, 0, height % 2))
    parts = [features[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.cat(parts)
