"""Data sets of noise: arrays, and folders of files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autoseg.data.base import SegmentationDataset


class ArrayDataset(SegmentationDataset):
    """Images and masks given as arrays; counts how often each is read."""

    def __init__(self, samples: Sequence[tuple[np.ndarray, np.ndarray]], num_classes: int, **settings: Any) -> None:
        super().__init__([f"{i}" for i in range(len(samples))], [f"c{i}" for i in range(num_classes)], **settings)
        self.samples = samples
        self.reads = [0] * len(samples)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.reads[index] += 1
        return self.samples[index]


def random_dataset(length: int = 10, size: tuple[int, int] = (40, 48), **settings: Any) -> ArrayDataset:
    rng = np.random.default_rng(0)
    samples = [
        (rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.integers(0, 4, size, dtype=np.uint8))
        for _ in range(length)
    ]
    return ArrayDataset(samples, 4, **settings)


def write_folder(root: Path, sizes: Mapping[str, list[tuple[int, int]]], labels: int = 7, seed: int = 0) -> Path:
    """A data set of noise: a folder a split with images/ and masks/, whose masks have ignored pixels (255)."""
    rng = np.random.default_rng(seed)
    for split, shapes in sizes.items():
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True)
        for number, (height, width) in enumerate(shapes):
            image = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
            mask = rng.integers(0, labels, (height, width)).astype(np.uint8)
            mask[0, :labels] = np.arange(labels)
            mask[: height // 3, width // 2 :] = 255
            Image.fromarray(image).save(root / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")
    return root
