"""Grouped 1x1 convolutions as batched matrix products, which are faster if a group has few channels.

Letters: N images, K groups, C channels of a group, H height, W width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from autoseg.supernet.fast.channel_groups import Layout


class Product(NamedTuple):
    """One C x C matrix for each of K groups of C channels, in the precision of the inputs."""

    groups: int
    layout: Layout

    def __call__(self, features: Tensor, weight: Tensor) -> Tensor:
        """features: (N, K*C, H, W), weight: (K*C, C, 1, 1)."""
        return self.layout.multiply(self._matrices(weight), features)

    def backward(self, grad: Tensor, features: Tensor, weight: Tensor, of_weight: bool) -> tuple[Tensor, Tensor | None]:
        """Gradients of features and, if requested, weight."""
        grad = self.layout.for_products(grad)
        of_features = self.layout.multiply(self._matrices(weight).transpose(1, 2), grad)
        if not of_weight:
            return of_features, None
        return of_features, self.layout.correlate(grad, features, self.groups).view_as(weight)

    def _matrices(self, weight: Tensor) -> Tensor:
        return weight.view(self.groups, -1, weight.shape[1])
