# ruff: noqa: D102 - the docstrings of `Layout` hold for `ChannelsFirst`
"""The memory layout of features, with their groups of channels as separate axes: the one place that knows either.

A feature is an (N, M, H, W) tensor. "Grouped", its channels are several axes, M = G1*G2*..., at the channels' place in
memory: (N, H, W, G1, G2, ...) in channels_last memory, (N, G1, G2, ..., H, W) in channels_first. So a grouped tensor is
contiguous if the feature is dense, and code that names axes by `Layout.axis` serves both.

Letters: M channels, K groups of a product, P pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoseg.supernet.fast.kernels import KernelChoice


class Layout:
    """Features in channels_last memory, (N, H, W, M); without state."""

    memory = torch.channels_last
    first = 3
    """Axis of the first group in a grouped tensor."""
    last = -1
    """Axis of the last group in a grouped tensor, counted from the end."""

    def arrange(self, features: Tensor) -> Tensor:
        """(N, M, H, W) in this layout; a copy if it has another."""
        return features.contiguous(memory_format=self.memory)

    def axis(self, number: int) -> int:
        """Axis of a group in a grouped tensor, counted from 0."""
        return self.first + number

    def sum_to(self, grouped: Tensor, *numbers: int) -> Tensor:
        """The sum over all axes except some groups, in ascending order."""
        kept = [self.axis(number) for number in numbers]
        return grouped.sum([axis for axis in range(grouped.dim()) if axis not in kept])

    # --- without autograd: as few calls as possible -----------------------------------------------------------------

    def split(self, features: Tensor, *groups: int) -> Tensor:
        """(N, G1*G2*..., H, W) -> grouped by G1, G2, ...; a view if the memory allows it."""
        features = features.contiguous(memory_format=torch.channels_last)
        images, channels, height, width = features.shape
        strides, step = [height * width * channels, width * channels, channels], channels
        for size in groups:
            step //= size
            strides.append(step)
        return features.as_strided((images, height, width, *groups), strides, features.storage_offset())

    def join(self, grouped: Tensor) -> Tensor:
        """Grouped and contiguous -> a view (N, G1*G2*..., H, W)."""
        images, height, width = grouped.shape[:3]
        channels = grouped.shape[3:].numel()
        strides = (height * width * channels, 1, width * channels, channels)
        return grouped.as_strided((images, channels, height, width), strides, grouped.storage_offset())

    def spread(self, factors: Tensor) -> Tensor:
        """(G1, G2, ...), or fewer of the last groups -> a shape that multiplies a grouped tensor."""
        return factors

    # --- with autograd ----------------------------------------------------------------------------------------------

    def as_groups(self, features: Tensor, *groups: int) -> Tensor:
        """Does what `split` does, always as a view."""
        return torch.unflatten(features.movedim(1, self.first), self.first, groups)

    def as_channels(self, grouped: Tensor) -> Tensor:
        """Does what `join` does, for any grouped tensor."""
        return grouped.flatten(self.first, self.last).contiguous().movedim(self.first, 1)

    # --- rows of a matrix -------------------------------------------------------------------------------------------

    def as_matrix(self, features: Tensor, rows: int) -> Tensor:
        """(rows*N, M, H, W), dense -> a view (rows, N*M*H*W) in memory order."""
        size = features.numel() // rows
        return features.as_strided((rows, size), (size, 1))

    def of_matrix(self, matrix: Tensor, shape: torch.Size, groups: int) -> Tensor:
        """(E, N*M*H*W), contiguous, as `as_matrix` orders it -> a view by G, E and M/G. shape: (N, M, H, W)."""
        images, channels, height, width = shape
        edges, size, each = len(matrix), height * width * channels, channels // groups
        strides = (size, width * channels, channels, each, images * size, 1)
        return matrix.as_strided((images, height, width, groups, edges, each), strides)

    def as_rows(self, features: Tensor) -> Tensor:
        """(N, M, H, W) -> every row as an image, (N*H, M, 1, W); channels_first returns its input."""
        images, channels, height, width = features.shape
        features = features.contiguous(memory_format=torch.channels_last)
        strides = (width * channels, 1, width * channels, channels)
        return features.as_strided((images * height, channels, 1, width), strides, features.storage_offset())

    def of_rows(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `as_rows`, for any M. shape: (N, M, H, W) before."""
        images, _, height, width = shape
        return self.join(self.split(rows, rows.shape[1]).view(images, height, width, -1))

    # --- products of K groups of channels with a matrix each ----------------------------------------------------------

    def for_products(self, features: Tensor) -> Tensor:
        """Some of a tensor's channels; a copy if both products would copy them."""
        return features

    def multiply(self, matrices: Tensor, features: Tensor) -> Tensor:
        """matrices (K, Mout, Min), features (N, K*Min, H, W) -> (N, K*Mout, H, W), group by group.

        No copy: a group is a matrix of P rows. In channels_first the small matrices are copied for each image.
        """
        images, _, height, width = features.shape
        pixels = self._pixels(features, len(matrices))
        output = features.new_empty(len(pixels), *matrices.shape[:2])
        torch.bmm(pixels.transpose(0, 1), matrices.transpose(1, 2), out=output.transpose(0, 1))
        return self.join(output.view(images, height, width, -1))

    def correlate(self, left: Tensor, right: Tensor, groups: int) -> Tensor:
        """(N, K*Mleft, H, W) and (N, K*Mright, H, W) -> their products summed over the pixels, (K, Mleft, Mright)."""
        return torch.bmm(self._pixels(left, groups).permute(1, 2, 0), self._pixels(right, groups).transpose(0, 1))

    def _pixels(self, features: Tensor, groups: int) -> Tensor:
        """(N, K*M, H, W) -> (P, K, M), a view even of some of a tensor's channels."""
        return features.permute(0, 2, 3, 1).reshape(-1, groups, features.shape[1] // groups)


class ChannelsFirst(Layout):
    """Features in channels_first memory, (N, M, H, W). It sets no strides by hand, which some devices cannot do."""

    memory = torch.contiguous_format
    first = 1
    last = -3

    def split(self, features: Tensor, *groups: int) -> Tensor:
        return torch.unflatten(features, 1, groups)

    def join(self, grouped: Tensor) -> Tensor:
        return grouped.view(len(grouped), -1, *grouped.shape[-2:])

    def spread(self, factors: Tensor) -> Tensor:
        return factors[..., None, None]

    def as_matrix(self, features: Tensor, rows: int) -> Tensor:
        return features.view(rows, -1)

    def of_matrix(self, matrix: Tensor, shape: torch.Size, groups: int) -> Tensor:
        images, channels, height, width = shape
        return matrix.view(-1, images, groups, channels // groups, height, width).permute(1, 2, 0, 3, 4, 5)

    def as_rows(self, features: Tensor) -> Tensor:
        return features

    def of_rows(self, rows: Tensor, shape: torch.Size) -> Tensor:
        return rows

    def for_products(self, features: Tensor) -> Tensor:
        return features.contiguous()

    def multiply(self, matrices: Tensor, features: Tensor) -> Tensor:
        images, _, height, width = features.shape
        return torch.matmul(matrices, self._planes(features, len(matrices))).view(images, -1, height, width)

    def correlate(self, left: Tensor, right: Tensor, groups: int) -> Tensor:
        return torch.matmul(self._planes(left, groups), self._planes(right, groups).transpose(2, 3)).sum(0)

    def _planes(self, features: Tensor, groups: int) -> Tensor:
        """(N, K*M, H, W) -> (N, K, M, H*W)."""
        return features.reshape(len(features), groups, features.shape[1] // groups, -1)


LAYOUTS: dict[str, Layout] = {"channels_last": Layout(), "channels_first": ChannelsFirst()}
"""The layouts by their name in `search.kernels.layout`."""


class LaidOut(nn.Module):
    """A module that computes in one of the layouts."""

    layout: Layout = LAYOUTS["channels_last"]

    def use_kernels(self, choice: KernelChoice) -> None:
        """Use the layout of `choice` from now on."""
        self.layout = LAYOUTS[choice.layout]
