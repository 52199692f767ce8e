"""Decoded samples packed one after the other in a single block of bytes, wherever that lies.

Letters: H height and W width of a sample, in pixels. A sample's place holds its image (H, W, 3), then its mask (H, W).
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
    """Where each sample lies: `sizes` (samples, 2) holds its height and width, `mask_dtype` is uint8 or uint16."""

    def __init__(self, sizes: Sequence[tuple[int, int]], mask_dtype: np.dtype[Any]) -> None:
        self.sizes = [(int(height), int(width)) for height, width in sizes]
        self.mask_dtype = np.dtype(mask_dtype)
        places = [0]
        for height, width in self.sizes:
            used = _rounded_up(3 * height * width, 2) + height * width * self.mask_dtype.itemsize
            places.append(places[-1] + _rounded_up(used, ALIGNMENT))
        self.starts, self.total_bytes = places[:-1], places[-1]

    def parts(self, index: int) -> tuple[int, int, int, int]:
        """First byte of the image and the one after its last, then those of the mask."""
        pixels = self.sizes[index][0] * self.sizes[index][1]
        image = self.starts[index]
        mask = image + _rounded_up(3 * pixels, 2)
        return image, image + 3 * pixels, mask, mask + pixels * self.mask_dtype.itemsize

    def pack(self, index: int, image: NDArray[np.uint8], mask: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """The bytes of one sample, to be put at `starts[index]`. Raises: ValueError: it has another size or type."""
        if mask.shape != self.sizes[index] or image.shape != (*mask.shape, 3) or mask.dtype != self.mask_dtype:
            raise ValueError(f"sample {index} is {mask.dtype} {mask.shape}, not {self.mask_dtype} {self.sizes[index]}")
        first, image_end, mask_start, end = self.parts(index)
        packed = np.zeros(end - first, dtype=np.uint8)
        packed[: image_end - first] = image.reshape(-1)
        packed[mask_start - first :] = np.ascontiguousarray(mask).reshape(-1).view(np.uint8)
        return packed


class PackedSamples:
    """All samples of a data set, decoded: `buffer` is flat uint8, on a GPU, in memory or mapped from a file."""

    def __init__(self, layout: Layout, buffer: Tensor) -> None:
        self.layout, self.buffer = layout, buffer
        self._bytes = buffer.numpy() if buffer.device.type == "cpu" else None

    def arrays(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]:
        """Image (H, W, 3) and mask (H, W); read-only views where the samples lie in memory, copies where on a GPU."""
        first, image_end, mask_start, end = self.layout.parts(index)
        held = self.buffer[first:end].cpu().numpy() if self._bytes is None else self._bytes[first:end]
        size = self.layout.sizes[index]
        image = held[: image_end - first].reshape(*size, 3)
        mask = held[mask_start - first :].view(self.layout.mask_dtype).reshape(size)
        image.flags.writeable = mask.flags.writeable = False
        return image, mask

    def tensors(self, index: int) -> tuple[Tensor, Tensor]:
        """Views of the image (H, W, 3) and the mask (H, W); see `mask_tensor` for the mask's type."""
        first, image_end, mask_start, end = self.layout.parts(index)
        size = self.layout.sizes[index]
        mask = self.buffer[mask_start:end].view(torch.uint8 if self.layout.mask_dtype.itemsize == 1 else torch.int16)
        return self.buffer[first:image_end].view(*size, 3), mask.view(size)


def mask_tensor(mask: NDArray[np.integer[Any]]) -> Tensor:
    """A mask as a tensor with the same bytes: uint8, or int16 for uint16, which few operations of PyTorch know."""
    return torch.from_numpy(mask if mask.dtype == np.uint8 else np.ascontiguousarray(mask).view(np.int16))


def to_labels(mask: Tensor) -> Tensor:
    """The labels, int64, of a mask as `tensors` and `mask_tensor` give it."""
    return mask.long() if mask.dtype == torch.uint8 else mask.long().bitwise_and_(0xFFFF)


def _rounded_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
