"""Packed samples in a file that is mapped into memory: written once, whole or not at all, and checked when opened.

The file: `MAGIC`, the length of the header (8 bytes, little-endian), the header (JSON), zeros up to a page, samples.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.data.loading.packed import Layout, PackedSamples
from autoseg.files import write_atomically

MAGIC = b"autoseg samples\n"
PAGE = 4096
"""Bytes; the samples begin at a multiple of it."""
ABANDONED_SECONDS = 24 * 3600.0
"""A half-written file that nobody has touched for so long is no longer being written."""

Put = Callable[[int, NDArray[np.uint8]], None]
"""Puts bytes at a place of the samples' block; may be called from several threads."""


class SampleFileError(Exception):
    """A file that holds something else than what is looked for; the text says what."""


def open_sample_file(path: Path, fingerprint: str, layout: Layout) -> PackedSamples:
    """The samples of a file, read when they are used.

    Raises: SampleFileError: it was written for other samples, or is cut off. OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(len(MAGIC) + 8)
        length = int.from_bytes(start[len(MAGIC) :], "little")
        if not start.startswith(MAGIC) or length > path.stat().st_size:
            raise SampleFileError("is no file of samples, or is cut off")
        header = file.read(length)
    if header != _header(fingerprint, layout):
        raise SampleFileError("is left over from another data set, or from other files of this one")
    first = _first(header)
    if path.stat().st_size != first + layout.total_bytes:
        raise SampleFileError("is cut off")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch's, of arrays that must not be written to: nobody does
        buffer = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="r", offset=first))
    return PackedSamples(layout, buffer)


def write_sample_file(path: Path, fingerprint: str, layout: Layout, fill: Callable[[Put], Any]) -> None:
    """Write a file; `fill` puts every sample in its place. What other processes read or write is never disturbed.

    Raises: OSError: no space, no right to write, and the like.
    """
    _remove_abandoned(path)

    def write(temporary: Path) -> None:
        header = _header(fingerprint, layout)
        first, turn = _first(header), Lock()
        with temporary.open("wb", buffering=0) as file:
            _write_all(file, 0, MAGIC + len(header).to_bytes(8, "little") + header)
            file.truncate(first + layout.total_bytes)

            def put(place: int, data: NDArray[np.uint8]) -> None:
                # by calls and not through a mapping: where the disk is full, these fail, but a mapping ends the process
                with turn:  # a file has one place at a time, and Windows has no pwrite
                    _write_all(file, first + place, data.data)

            fill(put)

    write_atomically(path, write)


def _header(fingerprint: str, layout: Layout) -> bytes:
    held = {"mask_dtype": layout.mask_dtype.name, "image_dtype": layout.image_dtype.name, "channels": layout.channels}
    return json.dumps({"fingerprint": fingerprint, **held, "sizes": layout.sizes}).encode()


def _first(header: bytes) -> int:
    """Where in the file the samples begin."""
    return -(-(len(MAGIC) + 8 + len(header)) // PAGE) * PAGE


def _write_all(file: FileIO, place: int, data: bytes | memoryview) -> None:
    file.seek(place)
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _remove_abandoned(path: Path) -> None:
    """What a process that was killed left of this file."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        try:
            if time.time() - leftover.stat().st_mtime > ABANDONED_SECONDS:
                leftover.unlink()
        except OSError:  # another process was faster, or it belongs to another user
            continue
