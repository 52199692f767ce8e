"""Finding out which classes a data set has, from the labels in its masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.data.base import LABELS
from autoseg.data.discovery.class_name_files import names_beside
from autoseg.data.discovery.pairs import Pair
from autoseg.data.io.colour_tables import MaskTable
from autoseg.data.io.images import read_mask
from autoseg.data.loading.threads import in_threads
from autoseg.data.wording import counted
from autoseg.errors import DataError

BINARY = ("background", "foreground")
MOST_IN_A_MASK = 150
"""Different labels: a mask of more is taken for an image."""
SPARSE = 4
"""So many times as many classes as labels that occur, from `MANY` on, are taken for a mistake."""
MANY = 32


class FoundClasses(NamedTuple):
    """What the masks say; a `label_map` where they say that one is needed, a `problem` where that is for the user.

    `code`: of the error that the problem is.
    """

    classes: tuple[str, ...]
    label_map: dict[int, int] | None = None
    problem: str = ""
    code: str = ""


def classes_of(
    seen: Set[int],
    everywhere: Set[int],
    where: str,
    label_map: Mapping[int, int] | None,
    ignored: int,
    may_be_binary: bool,
) -> FoundClasses:
    """The classes of labels: 0 to the greatest one after the label map, the ignore label left out.

    may_be_binary: labels 0 and 255 alone, or 0 and 1, are two classes.
    Labels far apart are numbered by a label map, those of `everywhere` too. `where`: the data set's folder, for
    messages and for a file with as many names.
    """
    if may_be_binary and seen in ({0, 255}, {0, 1}):
        return FoundClasses(names_beside(Path(where), 2) or BINARY, binary_map(seen))
    mapped = {label: (label_map or {}).get(label, label) for label in seen | everywhere}
    used = sorted({mapped[label] for label in seen} - {ignored})
    count = max(used, default=0) + 1
    if count < 2:
        text = (
            f"the training masks in {where} hold no label but 0 and the ignore label {ignored}, which makes fewer than"
            " two classes; give others with data.label_map or data.ignore_label, or set data.num_classes"
        )
        return FoundClasses(("class_0",), problem=text, code="too-few-classes")
    if count <= max(MANY, SPARSE * len(used)):
        names = names_beside(Path(where), count) or tuple(f"class_{label}" for label in range(count))
        return FoundClasses(names)
    some = ", ".join(map(str, used[:8])) + ", ..." * (len(used) > 8)
    text = (
        f"the training masks in {where} hold {counted(len(used), 'label')} of 0..{count - 1} ({some}); number them with"
        " data.label_map, as `autoseg check-data` proposes, or set data.num_classes to"
        f" {count} if the others are classes too"
    )
    used = sorted(set(mapped.values()) - {ignored})
    numbers = {label: number for number, label in enumerate(used)} | {ignored: ignored}
    renumbered = {label: numbers[mapped[label]] for label in sorted(mapped) if numbers[mapped[label]] != label}
    return FoundClasses(tuple(f"class_{label}" for label in used), renumbered, text, "labels-far-apart")


def binary_map(seen: Set[int]) -> dict[int, int] | None:
    """Of masks of 0 and 255: 255 is class 1."""
    return {255: 1} if seen == {0, 255} else None


def labels_in(pairs: Sequence[Pair], table: MaskTable | None, skip: bool) -> set[int]:
    """Every label that a mask holds; `skip` leaves out masks that cannot be used. Raises: DataError: such a mask."""
    seen = np.zeros(LABELS, dtype=np.bool_)

    def look(index: int) -> None:
        path = pairs[index][2]
        try:
            labels = np.unique(read_mask(path, table))
            check_labels(path, labels)
            check_mask_like(path, labels)
        except DataError:
            if not skip:
                raise
            return
        seen[labels] = True

    in_threads(look, len(pairs))
    return {int(label) for label in np.flatnonzero(seen)}


def check_labels(path: Path, labels: NDArray[np.integer[Any]]) -> None:
    """Raises: DataError: labels, ascending, that no mask may have."""
    if labels.size and not 0 <= int(labels[0]) <= int(labels[-1]) < LABELS:
        raise DataError(f"{path} has labels outside 0..{LABELS - 1}; correct the mask", code="label-out-of-range")


def check_mask_like(path: Path, labels: NDArray[np.integer[Any]]) -> None:
    """Raises: DataError: more labels than masks have whose classes nobody names."""
    if labels.size > MOST_IN_A_MASK:
        raise DataError(
            f"{path} has {labels.size} different labels, as an image would; are images and masks in swapped"
            " folders? If not, set data.num_classes",
            code="mask-like-photo",
        )
