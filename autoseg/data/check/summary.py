"""Statistics of a data set: sizes, kinds of files, shares of classes; and the samples that show most classes.

Letter: K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.config.data import ResolvedDataConfig
from autoseg.data.base import LABELS, lookup_table
from autoseg.data.check.inspection import FileKind, PairFacts

VISIBLE_SHARE = 0.002
"""A class with a smaller share of an image's pixels is invisible in a small picture."""


class Scan(NamedTuple):
    """All that was read of a data set. `config` is resolved as for a run.

    It may have one class, if the masks show no more, and mean 0 and standard deviation 1, if they cannot be found.
    """

    config: ResolvedDataConfig
    facts: Sequence[PairFacts]
    """The facts of each pair, split after split."""
    stopping: Set[str]
    """The splits in which a bad file ends a run: those that it needs, or the only one that is checked."""
    said: Sequence[str] = ()
    """What was decided of the data set, a line each."""
    undecided: bool = False
    """Whether nothing decides what the labels mean; `config` then has a class for each label."""


class SplitSummary(NamedTuple):
    """Statistics of a split. Shares are shares of pixels."""

    images: int
    """Number of images with a mask, whether they can be used or not."""
    sizes: tuple[tuple[int, int], ...]
    """Smallest, median and largest (H, W) by area; empty if no file could be read."""
    different_sizes: int
    image_kinds: Mapping[FileKind, int]
    """Number of files of each kind, the commonest first."""
    mask_kinds: Mapping[FileKind, int]
    pixels: NDArray[np.int64]
    """(K,): pixels of each class."""
    images_with: NDArray[np.int64]
    """(K,): number of images that show each class."""
    ignored: int
    """Pixels with the ignore label."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """(K,): share of each class in the pixels of all classes."""
        return self.pixels / max(1, int(self.pixels.sum()))

    @property
    def ignore_share(self) -> float:
        """Share of ignored pixels in all pixels with a legal label."""
        return self.ignored / max(1, int(self.pixels.sum()) + self.ignored)

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Plain data; sizes as [height, width]."""
        return {
            "images": self.images,
            "sizes": dict(zip(("smallest", "median", "largest"), map(list, self.sizes), strict=False)),
            "different_sizes": self.different_sizes,
            "image_files": [{**kind._asdict(), "files": count} for kind, count in self.image_kinds.items()],
            "mask_files": [{**kind._asdict(), "files": count} for kind, count in self.mask_kinds.items()],
            "ignore_share": self.ignore_share,
            "classes": {
                name: {"share": float(self.shares[label]), "pixels": int(self.pixels[label]),
                       "images": int(self.images_with[label])}
                for label, name in enumerate(classes)
            },
        }  # fmt: skip


class ClassCounter:
    """Counts pixels of classes by the label map and the ignore label of a data set."""

    def __init__(self, data: ResolvedDataConfig) -> None:
        self.ignore_label = data.ignore_label
        self.num_classes = data.num_classes
        self._lookup, self._legal = lookup_table(data.label_map or {}, self.num_classes, self.ignore_label)

    def illegal(self, facts: PairFacts) -> NDArray[np.int64]:
        """Labels in the mask that are neither a class nor ignored."""
        inside = (facts.labels >= 0) & (facts.labels < LABELS)
        return facts.labels[~inside | ~self._legal[np.where(inside, facts.labels, 0)]]

    def count(self, facts: PairFacts) -> NDArray[np.int64]:
        """(K + 1,): pixels of each class, then ignored pixels."""
        good = ~np.isin(facts.labels, self.illegal(facts))
        used = self._lookup[facts.labels[good]].astype(np.int64)
        places = np.where(used == self.ignore_label, self.num_classes, used)
        return np.bincount(places, facts.pixels[good], self.num_classes + 1).astype(np.int64)

    def is_usable(self, facts: PairFacts) -> bool:
        """Whether a run can use the pair."""
        return not facts.faults and not self.illegal(facts).size


def summarise(scan: Scan) -> dict[str, SplitSummary]:
    """Statistics of each split that has pairs."""
    counter = ClassCounter(scan.config)
    splits = groupby(scan.facts, key=attrgetter("split"))
    return {split: _summary(list(facts), counter) for split, facts in splits}


def _summary(facts: Sequence[PairFacts], counter: ClassCounter) -> SplitSummary:
    sizes = sorted((one.size for one in facts if one.size is not None), key=lambda size: (size[0] * size[1], size))
    total = np.zeros(counter.num_classes + 1, dtype=np.int64)
    images_with = np.zeros_like(total)
    for one in facts:
        counts = counter.count(one)
        total += counts
        images_with += counts > 0
    return SplitSummary(
        len(facts),
        (sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1]) if sizes else (),
        len(set(sizes)),
        dict(Counter(one.image_kind for one in facts if one.image_kind is not None).most_common()),
        dict(Counter(one.mask_kind for one in facts if one.mask_kind is not None).most_common()),
        total[:-1],
        images_with[:-1],
        int(total[-1]),
    )


def pick_samples(scan: Scan, most: int = 12) -> list[PairFacts]:
    """Up to `most` pairs without faults, in the order of the data set.

    They show as many classes as possible; the others are spread evenly.
    """
    counter = ClassCounter(scan.config)
    usable = [one for one in scan.facts if counter.is_usable(one)]
    if len(usable) <= most:
        return usable
    counts = np.stack([counter.count(one) for one in usable])
    visible = counts[:, :-1] >= VISIBLE_SHARE * counts.sum(1, keepdims=True)
    chosen: list[int] = []
    missing = np.ones(visible.shape[1], dtype=np.bool_)
    while len(chosen) < most and (gain := (visible & missing).sum(1)).any():
        chosen.append(int(gain.argmax()))
        missing &= ~visible[chosen[-1]]
    spread = np.linspace(0, len(usable) - 1, 2 * most).astype(int).tolist()
    others = dict.fromkeys(place for place in spread[::2] + spread[1::2] if place not in chosen)
    chosen += list(others)[: most - len(chosen)]
    return [usable[place] for place in sorted(chosen)]
