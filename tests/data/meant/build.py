"""Small images and masks for cases."""

from __future__ import annotations

from collections.abc import Sequence
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


def blocks(values: Sequence[int], seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.int64]:
    """A mask (H, W) of blocks of 4x4 pixels that holds all of `values`."""
    random = np.random.default_rng(seed)
    rows, columns = -(-size[0] // 4), -(-size[1] // 4)
    some = random.choice(values, rows * columns)
    some[: len(values)] = values
    return random.permutation(some).reshape(rows, columns).repeat(4, 0).repeat(4, 1)[: size[0], : size[1]]


def save(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """Write an image file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path, **options)
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
