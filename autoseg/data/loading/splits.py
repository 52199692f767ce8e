"""Splitting a training set into trainA for the weights and trainB for the architecture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autoseg.data.wording import counted
from autoseg.errors import DataError


def halve(length: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the indices 0..length-1 at random into two sorted arrays.

    The first gets fraction * length indices, rounded half up. Raises: DataError: one of the two would be empty.
    """
    count = int(fraction * length + 0.5)
    if not 0 < count < length:
        raise DataError(
            f"{counted(length, 'training image')} cannot be cut in two with fraction {fraction}: one part would be"
            " empty; add images or change search.train_a_fraction",
            code="too-few-images",
        )
    order = np.random.default_rng([seed, 0x5917]).permutation(length).astype(np.int64)
    return np.sort(order[:count]), np.sort(order[count:])
