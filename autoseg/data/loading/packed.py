"""Decoded samples, concatenated into one block of images and one block of masks: on a GPU, in memory, or in files.

A folder of samples holds `images.npy` and `masks.npy`, both flat, and `samples.json` with the size and the CRC-32 of
each sample. It appears atomically, is mapped into memory, and is checked: headers and table when it is opened, samples
when they are used.

Letters: H height and W width of a sample, in pixels, C channels, P number of pixels of all samples.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray
from torch import Tensor

from autoseg.files import read_sealed_json, replace, write_sealed_json

Arrays: TypeAlias = tuple[NDArray[Any], NDArray[np.integer[Any]]]
"""Image (H, W, C) and mask (H, W)."""
Put = Callable[[int, NDArray[Any], NDArray[np.integer[Any]]], None]
"""Stores (index, image, mask) of a sample; several threads may call it at a time."""

FILES, TABLE = ("images.npy", "masks.npy"), "samples.json"
ABANDONED_SECONDS = 24 * 3600.0
"""An unfinished folder without writes for so long is abandoned."""
_MALFORMED = (FileNotFoundError, ValueError, LookupError, AttributeError, TypeError)
_MASK_TYPES = {1: torch.uint8, 2: torch.int16}
"""Bytes of a label -> type of `mask_tensor`."""

_log = logging.getLogger(__name__)


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

    def arrays(self, index: int) -> Arrays:
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


def mask_tensor(mask: NDArray[np.integer[Any]]) -> Tensor:
    """A mask as a tensor with the same bytes: uint8, or int16 for uint16, which few PyTorch operations support."""
    return torch.from_numpy(mask if mask.dtype == np.uint8 else np.ascontiguousarray(mask).view(np.int16))


def to_labels(mask: Tensor) -> Tensor:
    """The labels, int64, of a mask from `mask_tensor`."""
    return mask.long() if mask.dtype == torch.uint8 else mask.long().bitwise_and_(0xFFFF)


# --- in files ---------------------------------------------------------------------------------------------------------


class SamplesError(Exception):
    """A folder cannot be used for these samples; the text says why."""


class MappedSamples(PackedSamples):
    """The samples of a folder, read on access.

    A process compares a sample's checksum when it first uses it. A damaged sample is decoded from its own files
    (`decode(index)`) each time, and the folder loses its table, so that the next run makes it anew.

    Raises: SamplesError: the folder was made for other samples, or is damaged. OSError: it cannot be read.
    """

    def __init__(self, folder: Path, fingerprint: str, layout: Layout, decode: Callable[[int], Arrays]) -> None:
        try:
            table = read_sealed_json(folder / TABLE)
            self._sums = list(table.pop("crc32"))
            if table != _description(fingerprint, layout):
                raise SamplesError("is left over from another data set, or from other files of this one")
            images, masks = (_mapped(folder / name, *of) for name, of in zip(FILES, layout.arrays, strict=True))
        except _MALFORMED:
            raise SamplesError("is damaged") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PyTorch warns of read-only arrays; nothing writes to these
            super().__init__(layout, torch.from_numpy(images), mask_tensor(masks))
        self._folder, self._decode = folder, decode
        self._unchecked, self._damaged = set(range(len(layout.sizes))), set[int]()

    def tensors(self, index: int) -> tuple[Tensor, Tensor]:
        """As `PackedSamples`. Raises: DataError: a damaged sample whose own files cannot be used either."""
        parts = super().tensors(index)
        if index in self._unchecked:
            if _checksum(*(part.numpy() for part in parts)) != self._sums[index]:
                self._give_up(index)
            self._unchecked.discard(index)
        if index not in self._damaged:
            return parts
        image, mask = self._decode(index)
        return torch.from_numpy(image), mask_tensor(mask)

    def _give_up(self, index: int) -> None:
        if not self._damaged:
            _log.warning(
                f"{self._folder} is damaged at sample {index}; what is damaged is read from its image files instead,"
                " and the next run makes the folder anew"
            )
            with contextlib.suppress(OSError):
                (self._folder / TABLE).unlink()
        self._damaged.add(index)


def write_folder(folder: Path, fingerprint: str, layout: Layout, fill: Callable[[Put], Any]) -> None:
    """Make a folder; `fill` puts every sample. Other processes may read or write the same folder meanwhile.

    Raises: OSError: no space, no right to write, and the like.
    """
    _remove_abandoned(folder)
    temporary = _temporary(folder)
    try:
        temporary.mkdir(exist_ok=True)
        sums = _write_arrays(temporary, layout, fill)
        write_sealed_json(temporary / TABLE, {**_description(fingerprint, layout), "crc32": sums})
        try:
            replace(temporary, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder atomically. Raises: OSError: no right to do so, or the folder is in use on Windows."""
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        replace(folder, _temporary(folder))
    shutil.rmtree(_temporary(folder), ignore_errors=True)


def _write_arrays(folder: Path, layout: Layout, fill: Callable[[Put], Any]) -> list[int]:
    """Write both files and return the checksum of each sample."""
    sums, turn = [0] * len(layout.sizes), Lock()
    with (folder / FILES[0]).open("wb") as images, (folder / FILES[1]).open("wb") as masks:
        files = (images, masks)
        for file, of in zip(files, layout.arrays, strict=True):
            file.write(_header(*of))
        firsts = [file.tell() for file in files]

        def put(index: int, *sample: NDArray[Any]) -> None:
            parts = [np.ascontiguousarray(part) for part in sample]
            sums[index] = _checksum(*parts)
            # not through a mapping: on a full disk a write raises, but a mapping kills the process
            with turn:  # a file has one position, and Windows has no pwrite
                for file, first, part in zip(files, firsts, parts, strict=True):
                    file.seek(first + layout.starts[index] * (part.nbytes // sample[1].size))
                    file.write(part.data)

        fill(put)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    return sums


def _header(count: int, dtype: np.dtype[Any]) -> bytes:
    """What stands before the values in a file of NumPy."""
    file = BytesIO()
    write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": (count,)})
    return file.getvalue()


def _mapped(path: Path, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values of a file, read on access. Raises: ValueError: it has another header or length. OSError."""
    header = _header(count, dtype)
    with path.open("rb") as file:
        if file.read(len(header)) != header or path.stat().st_size != len(header) + count * dtype.itemsize:
            raise ValueError("another header")
    return np.memmap(path, dtype, "r", len(header), count)


def _description(fingerprint: str, layout: Layout) -> dict[str, Any]:
    return {"fingerprint": fingerprint, "sizes": [list(size) for size in layout.sizes]}


def _checksum(image: NDArray[Any], mask: NDArray[np.integer[Any]]) -> int:
    return zlib.crc32(mask.data, zlib.crc32(image.data))


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{os.getpid()}.tmp")


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left of this folder."""
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        with contextlib.suppress(OSError):  # another process was faster, or it belongs to another user
            last = max(path.stat().st_mtime for path in (leftover, *leftover.iterdir()))
            if time.time() - last > ABANDONED_SECONDS:
                shutil.rmtree(leftover)
