"""Decoded samples packed one after the other in a single block of bytes, wherever that lies.

Letters: H height and W width of a sample, in pixels, C channels. A sample's place holds its image (H, W, C), then its
mask (H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 64
"""Bytes; each sample begins at a multiple of it, and so its mask at an even byte."""


class Layout:
    """Where each sample lies: `sizes` (samples, 2) holds its height and width, `mask_dtype` is uint8 or uint16.

    Images have `channels` channels of `image_dtype`: uint8, uint16 or float32.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        mask_dtype: np.dtype[Any],
        channels: int = 3,
        image_dtype: np.dtype[Any] | type = np.uint8,
    ) -> None:
        self.sizes = [(int(height), int(width)) for height, width in sizes]
        self.mask_dtype, self.channels, self.image_dtype = np.dtype(mask_dtype), channels, np.dtype(image_dtype)
        self._pixel_bytes = channels * self.image_dtype.itemsize
        places = [0]
        for height, width in self.sizes:
            used = _rounded_up(self._pixel_bytes * height * width, 2) + height * width * self.mask_dtype.itemsize
            places.append(places[-1] + _rounded_up(used, ALIGNMENT))
        self.starts, self.total_bytes = places[:-1], places[-1]

    def parts(self, index: int) -> tuple[int, int, int, int]:
        """First byte of the image and the one after its last, then those of the mask."""
        pixels = self.sizes[index][0] * self.sizes[index][1]
        image = self.starts[index]
        image_end = image + self._pixel_bytes * pixels
        mask = image + _rounded_up(image_end - image, 2)
        return image, image_end, mask, mask + pixels * self.mask_dtype.itemsize

    def pack(self, index: int, image: NDArray[Any], mask: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """The bytes of one sample, to be put at `starts[index]`. Raises: ValueError: it has another size or type."""
        if mask.shape != self.sizes[index] or mask.dtype != self.mask_dtype:
            raise ValueError(f"sample {index} is {mask.dtype} {mask.shape}, not {self.mask_dtype} {self.sizes[index]}")
        if image.shape != (*mask.shape, self.channels) or image.dtype != self.image_dtype:
            raise ValueError(f"sample {index} has an image of {image.dtype} {image.shape}, not {self.image_dtype}")
        first, image_end, mask_start, end = self.parts(index)
        packed = np.zeros(end - first, dtype=np.uint8)
        packed[: image_end - first] = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
        packed[mask_start - first :] = np.ascontiguousarray(mask).reshape(-1).view(np.uint8)
        return packed


class PackedSamples:
    """All samples of a data set, decoded: `buffer` is flat uint8, on a GPU, in memory or mapped from a file."""

    def __init__(self, layout: Layout, buffer: Tensor) -> None:
        self.layout, self.buffer = layout, buffer
        self._bytes = buffer.numpy() if buffer.device.type == "cpu" else None

    def arrays(self, index: int) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
        """Image (H, W, C) and mask (H, W); read-only views where the samples lie in memory, copies where on a GPU."""
        first, image_end, mask_start, end = self.layout.parts(index)
        held = self.buffer[first:end].cpu().numpy() if self._bytes is None else self._bytes[first:end]
        size = self.layout.sizes[index]
        image = held[: image_end - first].view(self.layout.image_dtype).reshape(*size, self.layout.channels)
        mask = held[mask_start - first :].view(self.layout.mask_dtype).reshape(size)
        image.flags.writeable = mask.flags.writeable = False
        return image, mask

    def tensors(self, index: int) -> tuple[Tensor, Tensor]:
        """Views of the image (H, W, C), and the mask (H, W); see `mask_tensor` for the mask's type."""
        first, image_end, mask_start, end = self.layout.parts(index)
        size = self.layout.sizes[index]
        mask = self.buffer[mask_start:end].view(torch.uint8 if self.layout.mask_dtype.itemsize == 1 else torch.int16)
        image = self.buffer[first:image_end].view(getattr(torch, self.layout.image_dtype.name))
        return image.view(*size, self.layout.channels), mask.view(size)


def mask_tensor(mask: NDArray[np.integer[Any]]) -> Tensor:
    """A mask as a tensor with the same bytes: uint8, or int16 for uint16, which few operations of PyTorch know."""
    return torch.from_numpy(mask if mask.dtype == np.uint8 else np.ascontiguousarray(mask).view(np.int16))


def to_labels(mask: Tensor) -> Tensor:
    """The labels, int64, of a mask as `tensors` and `mask_tensor` give it."""
    return mask.long() if mask.dtype == torch.uint8 else mask.long().bitwise_and_(0xFFFF)


def _rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
