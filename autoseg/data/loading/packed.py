"""Decoded samples, concatenated into one block of images and one block of masks.

Letters: H height and W width of a sample, in pixels, C channels, P number of pixels of all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Put = Callable[[int, NDArray[Any], NDArray[np.integer[Any]]], None]
"""Stores (index, image, mask) of a sample; several threads may call it at a time."""


class Layout:
    """The place of each sample in the two blocks. `sizes` holds (H, W) of each sample.

    Masks are uint8 or uint16; images have `channels` channels of uint8, uint16 or float32. The pixels of sample i begin
    at `starts[i]`. `arrays`: (length, type) of the block of images and of the block of masks.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        mask_dtype: np.dtype[Any],
        channels: int = 3,
        image_dtype: np.dtype[Any] | type = np.uint8,
    ) -> None:
        self.sizes, self.channels = [(int(height), int(width)) for height, width in sizes], channels
        self.starts = [0, *accumulate(height * width for height, width in self.sizes)]
        pixels = self.starts[-1]
        self.arrays = [(pixels * channels, np.dtype(image_dtype)), (pixels, np.dtype(mask_dtype))]
        self.total_bytes = sum(count * dtype.itemsize for count, dtype in self.arrays)

    def fits(self, index: int, image: NDArray[Any], mask: NDArray[np.integer[Any]]) -> bool:
        """Whether a sample has the size and the types that this layout expects."""
        same_types = [image.dtype, mask.dtype] == [dtype for _, dtype in self.arrays]
        return same_types and mask.shape == self.sizes[index] and image.shape == (*mask.shape, self.channels)


class PackedSamples:
    """All decoded samples of a data set, on a GPU, in memory or mapped from files.

    `images`: (P * C,). `masks`: (P,), as `mask_tensor` gives them.
    """

    def __init__(self, layout: Layout, images: Tensor, masks: Tensor) -> None:
        self.layout, self.images, self.masks = layout, images, masks

    @classmethod
    def empty(cls, layout: Layout, device: torch.device) -> PackedSamples:
        """Room for all samples. Raises: RuntimeError: the device has too little memory."""
        (values, image_dtype), (pixels, mask_dtype) = layout.arrays
        images = torch.empty(values, dtype=getattr(torch, image_dtype.name), device=device)
        return cls(layout, images, torch.empty(pixels, dtype=_MASK_TYPES[mask_dtype.itemsize], device=device))

    def tensors(self, index: int) -> tuple[Tensor, Tensor]:
        """Views of the image (H, W, C) and the mask (H, W)."""
        start, stop = self.layout.starts[index : index + 2]
        channels, size = self.layout.channels, self.layout.sizes[index]
        return self.images[start * channels : stop * channels].view(*size, channels), self.masks[start:stop].view(size)

    def arrays(self, index: int) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
        """Image (H, W, C) and mask (H, W), read-only: views of host memory, copies of GPU memory."""
        image, mask = (part.cpu().numpy() for part in self.tensors(index))
        mask = mask.view(f"u{mask.itemsize}")
        image.flags.writeable = mask.flags.writeable = False
        return image, mask

    def put(self, index: int, image: NDArray[Any], mask: NDArray[np.integer[Any]]) -> None:
        """Store a sample; see `Put`."""
        image_place, mask_place = self.tensors(index)
        image_place.copy_(torch.from_numpy(np.ascontiguousarray(image)))
        mask_place.copy_(mask_tensor(mask))


_MASK_TYPES = {1: torch.uint8, 2: torch.int16}
"""Bytes of a label -> type of `mask_tensor`."""


def mask_tensor(mask: NDArray[np.integer[Any]]) -> Tensor:
    """A mask as a tensor with the same bytes: uint8, or int16 for uint16, which few PyTorch operations support."""
    return torch.from_numpy(mask if mask.dtype == np.uint8 else np.ascontiguousarray(mask).view(np.int16))


def to_labels(mask: Tensor) -> Tensor:
    """The labels, int64, of a mask from `mask_tensor`."""
    return mask.long() if mask.dtype == torch.uint8 else mask.long().bitwise_and_(0xFFFF)
