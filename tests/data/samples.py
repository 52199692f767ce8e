"""Data sets made of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

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
