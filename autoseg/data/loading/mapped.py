"""Packed samples in a folder that is mapped into memory. The folder appears atomically and is checked on use.

It holds `images.npy` and `masks.npy`, both flat, and `samples.json` with the size and the CRC-32 of each sample.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap, write_array_header_1_0
from numpy.typing import NDArray
from torch import Tensor

from autoseg.data.base import Sample
from autoseg.data.loading.packed import Layout, PackedSamples, Put, mask_tensor
from autoseg.files import replace, write_text

FILES, TABLE = ("images.npy", "masks.npy"), "samples.json"
ABANDONED_SECONDS = 24 * 3600.0
"""An unfinished folder without writes for so long is abandoned."""
_MALFORMED = (FileNotFoundError, EOFError, SyntaxError, TokenError, ValueError, LookupError, AttributeError, TypeError)

_log = logging.getLogger(__name__)


class SamplesError(Exception):
    """A folder cannot be used for these samples; the text says why."""


class MappedSamples(PackedSamples):
    """The samples of a folder, read on access.

    A process compares a sample's checksum when it first uses it. A damaged sample is decoded from its own files
    (`decode(index)`) each time, and the folder loses its table, so that the next run makes it anew.

    Raises: SamplesError: the folder was made for other samples, or is damaged. OSError: it cannot be read.
    """

    def __init__(self, folder: Path, fingerprint: str, layout: Layout, decode: Callable[[int], Sample]) -> None:
        try:
            table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
            self._sums = list(table.pop("crc32"))
            images, masks = (open_memmap(folder / name, "r") for name in FILES)
        except _MALFORMED:
            raise SamplesError("is damaged") from None
        if table != _description(fingerprint, layout):
            raise SamplesError("is left over from another data set, or from other files of this one")
        arrays = [(array.size, array.dtype) for array in (images, masks)]
        if arrays != layout.arrays or len(self._sums) != len(layout.sizes):
            raise SamplesError("is damaged")
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
        sample = self._decode(index)
        return torch.from_numpy(sample.image), mask_tensor(sample.mask)

    def _give_up(self, index: int) -> None:
        if not self._damaged:
            _log.warning(
                f"{self._folder} is damaged at sample {index}; what is damaged is read from its image files instead,"
                " and the next run makes the folder anew"
            )
            with contextlib.suppress(OSError):
                (self._folder / TABLE).unlink()
        self._damaged.add(index)


def write_samples(folder: Path, fingerprint: str, layout: Layout, fill: Callable[[Put], Any]) -> None:
    """Make a folder; `fill` puts every sample. Other processes may read or write the same folder meanwhile.

    Raises: OSError: no space, no right to write, and the like.
    """
    _remove_abandoned(folder)
    temporary = _temporary(folder)
    try:
        temporary.mkdir(exist_ok=True)
        sums = _write_arrays(temporary, layout, fill)
        write_text(temporary / TABLE, json.dumps({**_description(fingerprint, layout), "crc32": sums}))
        try:
            replace(temporary, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_samples(folder: Path) -> None:
    """Remove a folder atomically. Raises: OSError: no right to do so, or the folder is in use on Windows."""
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        replace(folder, _temporary(folder))
    shutil.rmtree(_temporary(folder), ignore_errors=True)


def _write_arrays(folder: Path, layout: Layout, fill: Callable[[Put], Any]) -> list[int]:
    """Write both files and return the checksum of each sample."""
    sums, turn = [0] * len(layout.sizes), Lock()
    with (folder / FILES[0]).open("wb") as images, (folder / FILES[1]).open("wb") as masks:
        files = (images, masks)
        for file, (count, dtype) in zip(files, layout.arrays, strict=True):
            write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": (count,)})
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
