"""Annotations as a layout: their splits, classes and label map, and the pairs of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from autoseg.config.data import SplitConfig
from autoseg.data.annotations.masks import ALL, Painted, annotations_in
from autoseg.data.discovery.folder_layouts import SPLITS, FoundLayout, find_folder, with_validation
from autoseg.data.discovery.label_names import plain_name
from autoseg.data.discovery.pairs import index_files, match_names
from autoseg.data.io.colour_tables import is_ignored
from autoseg.data.io.masks import read_mask
from autoseg.errors import DataError

IGNORE_LABEL = 255
BACKGROUND = "background"
FIRST = 4
"""Number of images whose masks are compared."""
LEAST_BACKGROUND = 0.01
"""If less than this share of all pixels lies in no region, these are gaps between regions and are ignored."""


def find_annotated(root: Path) -> FoundLayout | None:
    """The layout of a folder of annotations of any format, unless it has masks for its images too."""
    found = annotations_in(root)
    if found is None or _has_masks(root):
        return None
    return layout_of(found)


def find_own(find_any: Callable[[Path], FoundLayout | None], root: Path) -> FoundLayout | None:
    """Any folder of images and masks, by `find_any`; or the one with several masks an image, where it has these.

    Raises: DataError: folders of masks fit as well as each other, and show more than one class each.
    """
    found = find_any(root)
    if found is None or found.name != "folder":
        return found or find_named(root, "parts")
    if found.ties and _differ(root, found):
        return find_named(root, "parts") or found
    place = next(iter(found.splits.values()))
    if place.images and place.masks and not _is_paired(root, place) and (parts := find_named(root, "parts")):
        return parts
    return found


def _differ(root: Path, found: FoundLayout) -> bool:
    """Whether folders that fit as well as each other hold different masks for the first images."""
    place = next(iter(found.splits.values()))
    images = index_files(root, place.images or ".")
    matches = [match_names(images, index_files(root, tie)) for tie in found.ties]
    for name in list(images)[:FIRST]:
        files = [match[name][0] for match in matches if match.get(name)]
        try:
            masks = [read_mask(file) for file in files]
        except DataError:  # in colour, or no mask: another reading than that of the others
            return True
        if any(not np.array_equal(masks[0], mask) for mask in masks[1:]):
            return True
    return False


def _is_paired(root: Path, place: SplitConfig) -> bool:
    """Whether any image of a split has a mask of its own; True if its folders cannot be listed."""
    try:
        images, masks = index_files(root, place.images or "."), index_files(root, place.masks or ".")
    except DataError:
        return True
    return not images or not masks or any(match_names(images, masks).values())


def find_named(root: Path, layout: str) -> FoundLayout | None:
    """The layout of a folder of annotations of one format."""
    found = annotations_in(root, layout)
    return None if found is None else layout_of(found)


def layout_of(painted: Painted, own: Sequence[str] | None = None) -> FoundLayout:
    """The splits, classes and label map of annotations. own: the user's classes, in their order.

    Raises: DataError: the annotations have a class that is none of `own`.
    """
    names = {label: plain_name(name) for label, name in enumerate(painted.names, start=1)}
    used = {label: name for label, name in names.items() if not is_ignored(name)}
    uncovered = painted.pixels[0] >= LEAST_BACKGROUND * sum(painted.pixels)
    has_background = BACKGROUND in used.values() or BACKGROUND in (own or ())
    classes = list(dict.fromkeys(own or used.values()))
    if own is None and uncovered and not has_background:
        classes.insert(0, BACKGROUND)
    if own is None and has_background:
        classes.sort(key=lambda name: name != BACKGROUND)
    strange = next((name for name in used.values() if name not in classes), None)
    if strange is not None:
        raise DataError(
            f"the {painted.title} have the class {strange!r}, which is none of data.classes; add it",
            code="unknown-class",
        )
    empty = classes.index(BACKGROUND) if BACKGROUND in classes and uncovered else IGNORE_LABEL
    label_map = {label: classes.index(used[label]) if label in used else IGNORE_LABEL for label in names}
    splits = {split: SplitConfig(annotations=split) for split in SPLITS if split in painted.images}
    if not splits:
        splits = with_validation({"train": SplitConfig(annotations=ALL)})
    said = [f"{painted.title}: {painted.order}", *painted.said]
    where = f"class {BACKGROUND!r}" if empty != IGNORE_LABEL else "ignored"
    said.append(f"pixels in no region ({painted.pixels[0] / max(1, sum(painted.pixels)):.1%}) are {where}")
    return FoundLayout(
        painted.layout, with_validation(splits), tuple(classes), {0: empty, **label_map}, IGNORE_LABEL, said=tuple(said)
    )


def _has_masks(root: Path) -> bool:
    """Whether a folder of masks has files for the images, so that the annotations are their source."""
    found = find_folder(root)
    for place in found.splits.values() if found else ():
        if place.images and place.masks:
            try:
                images, masks = index_files(root, place.images), index_files(root, place.masks)
            except DataError:
                continue
            if masks and images != masks and any(match_names(images, masks).values()):
                return True
    return False
