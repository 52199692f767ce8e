"""Finding out which classes a data set has, from the labels in its masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autoseg.data.base import LABELS
from autoseg.data.colours import ColourTable
from autoseg.data.images import read_mask
from autoseg.data.pairs import Pair
from autoseg.data.threads import in_threads
from autoseg.errors import DataError

BINARY = ("background", "foreground")
MOST_IN_A_MASK = 150
"""Different labels: a mask of more is taken for an image."""
SPARSE = 4
"""So many times as many classes as labels that occur, from `MANY` on, are taken for a mistake."""
MANY = 32


class FoundClasses(NamedTuple):
    """What the masks say; a `label_map` where they say that one is needed."""

    classes: tuple[str, ...]
    label_map: dict[int, int] | None = None


def find_classes(
    pairs: Sequence[Pair],
    where: str,
    label_map: dict[int, int] | None,
    ignore_label: int | None,
    colours: ColourTable | None = None,
    skip: bool = False,
) -> FoundClasses:
    """The classes of the masks: 0 to the greatest label after the label map, the ignore label left out.

    Masks of 0 and 255 alone, or of 0 and 1, have two classes, unless `label_map` or `ignore_label` say otherwise.
    `skip`: leave out masks that cannot be used; `where`: the data set's folder, for messages.
    Raises: DataError: such a mask, fewer than two classes, or labels so far apart that they hardly are classes.
    """
    seen = set(_labels_in(pairs, colours, skip))
    if label_map is None and ignore_label is None and seen in ({0, 255}, {0, 1}):
        return FoundClasses(BINARY, {255: 1} if 255 in seen else None)
    ignored = 255 if ignore_label is None else ignore_label
    used = {(label_map or {}).get(label, label) for label in seen} - {ignored}
    count = max(used, default=-1) + 1
    if count < 2:
        raise DataError(
            f"the training masks in {where} hold no label but 0 and the ignore label {ignored}, which makes"
            " fewer than two classes; give others with data.label_map or data.ignore_label, or set data.num_classes"
        )
    if count > MANY and count > SPARSE * len(used):
        some = ", ".join(str(label) for label in sorted(used)[:8]) + ", ..." * (len(used) > 8)
        raise DataError(
            f"the training masks in {where} hold {len(used)} labels of 0..{count - 1} ({some}); number"
            f" them with data.label_map, or set data.num_classes to {count} if the others are classes too"
        )
    return FoundClasses(tuple(f"class_{label}" for label in range(count)))


def _labels_in(pairs: Sequence[Pair], colours: ColourTable | None, skip: bool) -> list[int]:
    """Every label that a mask holds."""
    seen = np.zeros(LABELS, dtype=np.bool_)

    def look(index: int) -> None:
        path = pairs[index][2]
        try:
            labels = np.unique(read_mask(path, colours))
            if labels.size and not 0 <= int(labels[0]) <= int(labels[-1]) < LABELS:
                raise DataError(f"{path} has labels outside 0..{LABELS - 1}; correct the mask")
            if labels.size > MOST_IN_A_MASK:
                raise DataError(
                    f"{path} has {labels.size} different labels, as an image would; are images and masks in swapped"
                    " folders? If not, set data.num_classes"
                )
        except DataError:
            if not skip:
                raise
            return
        seen[labels] = True

    in_threads(look, len(pairs))
    return [int(label) for label in np.flatnonzero(seen)]
