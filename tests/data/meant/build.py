"""Small images and masks for cases."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 32, 40
PAIRS = 6
"""Pairs of a set that is to be split by seed: with a fifth of them, one is for validation."""


def colours(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """An RGB image (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def grey(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """A grey image (H, W)."""
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def blocks(
    values: Sequence[int], seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH), side: int = 4
) -> NDArray[np.int64]:
    """A mask (H, W) of blocks of `side` x `side` pixels that holds all of `values`."""
    random = np.random.default_rng(seed)
    rows, columns = -(-size[0] // side), -(-size[1] // side)
    some = random.choice(values, rows * columns)
    some[: len(values)] = values
    return random.permutation(some).reshape(rows, columns).repeat(side, 0).repeat(side, 1)[: size[0], : size[1]]


def save(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """Write an image file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path, **options)
    return path


def save_tiff(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """Write a TIFF as tifffile does; its folder is made."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, **options)
    return path


def write(path: Path, content: str | bytes) -> Path:
    """Write a text or bytes; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def stems(count: int = PAIRS) -> list[str]:
    """a0, a1, ..."""
    return [f"a{number}" for number in range(count)]


def pairs(
    root: Path, values: Sequence[int], count: int = PAIRS, images: str = "images", masks: str = "masks"
) -> dict[str, NDArray[np.int64]]:
    """Write RGB PNGs and grey 8-bit PNG masks of `values`; the masks by stem."""
    written = {}
    for number, stem in enumerate(stems(count)):
        written[stem] = blocks(values, number)
        save(root / images / f"{stem}.png", colours(number))
        save(root / masks / f"{stem}.png", written[stem].astype(np.uint8))
    return written


def photos(root: Path, names: Sequence[str]) -> None:
    """Write an RGB image for each of `names`, paths with suffix."""
    for number, name in enumerate(names):
        save(root / name, colours(number))


def mapped(mask: NDArray[Any], classes: Mapping[int, int]) -> NDArray[np.int64]:
    """A mask of stored values as classes."""
    found = np.full(mask.shape, -9, dtype=np.int64)
    for value, number in classes.items():
        found[mask == value] = number
    return found


def numbered(values: Sequence[int], ignored: Sequence[int] = ()) -> dict[int, int]:
    """Stored value -> class, in the order of the values; -1 for those that are ignored."""
    used = [value for value in sorted(values) if value not in ignored]
    return {value: number for number, value in enumerate(used)} | dict.fromkeys(ignored, -1)


def meant_masks(
    values: Sequence[int], classes: Mapping[int, int] | None = None, names: Sequence[str] = ()
) -> dict[str, NDArray[np.int64]]:
    """The masks that `pairs` writes of `values`, as classes; `names` are those of the samples in place of a0, ..."""
    table = numbered(values) if classes is None else classes
    return {name: mapped(blocks(values, number), table) for number, name in enumerate(names or stems())}


def painted(mask: NDArray[Any], table: Mapping[int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """A mask of stored values as colours (H, W, 3)."""
    found = np.zeros((*mask.shape, 3), dtype=np.uint8)
    for value, colour in table.items():
        found[mask == value] = colour
    return found


def png_bytes(pixels: NDArray[Any], header: tuple[int, int] | None = None) -> bytes:
    """A PNG of 8 or 16 bits, (H, W) or (H, W, 3). `header`: the (H, W) that it claims, in place of its own."""
    height, width = header or (pixels.shape[0], pixels.shape[1])
    depth, kind = 8 * pixels.dtype.itemsize, 2 if pixels.ndim == 3 else 0
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    first = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", first) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
