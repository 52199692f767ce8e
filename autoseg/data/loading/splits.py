"""Splitting a training set into trainA for the weights and trainB for the architecture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.data.wording import counted
from autoseg.errors import DataError


def nearest_share(sizes: Sequence[int], wanted: int) -> list[int]:
    """Indices of the groups, of `sizes`, that together come as near to `wanted` as any; never none and never all.

    Where several sets of groups are as near, those that come first are taken, so that a few more images change little.
    There must be two groups or more.
    """
    most = min(sum(sizes) - 1, max(2 * wanted, *sizes))
    reached = np.zeros(most + 1, dtype=np.bool_)
    reached[0] = True
    last = np.zeros(most + 1, dtype=np.int64)
    """The last group of the earliest ones that have this sum."""
    for index, size in enumerate(sizes):
        fresh = np.zeros_like(reached)
        fresh[size:] = reached[: max(0, most + 1 - size)]
        fresh &= ~reached
        last[fresh] = index
        reached |= fresh
        if wanted <= most and reached[wanted]:
            break
    sums = np.flatnonzero(reached)[1:]
    rest, taken = int(sums[np.abs(sums - wanted).argmin()]), list[int]()
    while rest:
        taken.append(int(last[rest]))
        rest -= sizes[taken[-1]]
    return taken


def halve(
    length: int, fraction: float, seed: int, groups: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the indices 0..length-1 at random into two sorted arrays.

    The first gets fraction * length indices, rounded half up. groups: the group of each index; a group is in one of the
    two alone, and the first gets about as many indices (`nearest_share`).
    Raises: DataError: one of the two would be empty.
    """
    count = int(fraction * length + 0.5)
    if not 0 < count < length:
        raise DataError(
            f"{counted(length, 'training image')} cannot be cut in two with fraction {fraction}: one part would be"
            " empty; add images or change search.train_a_fraction",
            code="too-few-images",
        )
    rng = np.random.default_rng([seed, 0x5917])
    if groups is None:
        order = rng.permutation(length).astype(np.int64)
        return np.sort(order[:count]), np.sort(order[count:])
    names, members = np.unique(np.array(groups), return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"the {counted(length, 'training image')} are one group by data.group_by, {names[0]!r}, which cannot be cut"
            " in two; add images of others, or change data.group_by",
            code="group-by-one-group",
        )
    order = rng.permutation(len(names))
    taken = order[nearest_share(np.bincount(members)[order].tolist(), count)]
    is_first = np.isin(members, taken)
    return np.flatnonzero(is_first), np.flatnonzero(~is_first)
