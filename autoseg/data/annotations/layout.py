"""Annotations as a layout: their splits, classes and label map, and the pairs of a split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from autoseg.config.data import SplitConfig
from autoseg.data.annotations.folder import Folder
from autoseg.data.annotations.masks import ALL, Painted, annotations_in, find_annotations
from autoseg.data.discovery.channels import differ_in_band
from autoseg.data.discovery.folder_layouts import (
    SPLITS,
    Folders,
    FoundLayout,
    find_folder,
    split_of,
    with_validation,
)
from autoseg.data.discovery.label_names import plain_name
from autoseg.data.discovery.lists import read_list
from autoseg.data.discovery.pairs import index_files, match_names
from autoseg.data.io.colour_tables import is_ignored
from autoseg.data.io.images import read_image
from autoseg.data.io.masks import read_mask
from autoseg.data.io.opening import is_hidden, read_header
from autoseg.data.wording import first_of
from autoseg.errors import DataError

IGNORE_LABEL = 255
BACKGROUND = "background"
FIRST = 4
"""Number of images whose masks are compared."""
LARGEST = 2**24
"""Bytes of an annotation that is only named and not read."""
LEAST_CHANGE = 8.0
"""Mean difference of 8-bit values from which two images are not the same in another format."""
LEAST_BACKGROUND = 0.01
"""If less than this share of all pixels lies in no region, these are gaps between regions and are ignored."""


def find_annotated(root: Path) -> FoundLayout | None:
    """The layout of a folder of annotations of any format, unless it has masks for its images too."""
    return None if _has_masks(root) else find_named(root, "auto")


def find_own(find_any: Callable[[Path], FoundLayout | None], root: Path) -> FoundLayout | None:
    """Any folder of images and masks, by `find_any`; or the one with several masks an image, where it has these.

    Raises: DataError: folders fit as well as each other, and neither hold the same nor a mask of each class.
    """
    found = find_any(root)
    if found is None:
        return find_named(root, "parts")
    for split, ties in found.ties.items():
        if (other := _other(root, ties)) is None or not _needs_folders(root, found.splits):
            continue
        if len({masks for _, masks in ties}) == 1 and differ_in_band(images for images, _ in ties):
            continue  # channels of the same images
        if parts := find_named(root, "parts"):
            return parts
        text = _tie(root, ties[0], other)
        if split != "test":
            places = f"{{images: {ties[0][0]}, masks: {ties[0][1]}}}"
            raise DataError(
                f"{text}; say which are meant, with data.splits: {{train: {places}}}",
                code="folders-tie",
            )
        found = found._replace(said=(*found.said, f"{text}; the first are read"))
    place = next(iter(found.splits.values()))
    unpaired = found.name == "folder" and place.images and place.masks and _is_paired(root, place) is False
    if unpaired and (parts := find_named(root, "parts")):
        return parts
    return found._replace(said=(*found.said, *_left_aside(root)))


def _left_aside(root: Path) -> list[str]:
    """A line on annotations beside masks, which are not read."""
    folder = Folder(root)
    for suffix, files in folder.texts.items():  # a few tell, and all may take minutes
        folder.texts[suffix] = [file for file in files[:FIRST] if file.stat().st_size <= LARGEST]
    try:
        beside = find_annotations(folder)
    except (DataError, OSError):  # nobody asked to read them
        return []
    if beside is None:
        return []
    return [f"masks are read, and not the {beside.title} beside them (data.layout: {beside.layout} reads these)"]


def unread_folders(root: Path, splits: Mapping[str, SplitConfig]) -> list[str]:
    """A line on folders beside those of images, with files of the same names, which are not read; none without any."""
    used = {Path(one).as_posix() for place in splits.values() for one in (place.images, place.masks) if one}
    alone = [place for place in splits.values() if place.images and not (place.list or place.channel_files)]
    own = dict.fromkeys(Path(str(place.images)).as_posix() for place in alone)
    unread: dict[str, None] = {}
    for images in own:
        files = index_files(root, images)
        for folder in _beside(root, images):
            matches = match_names(files, index_files(root, folder)) if folder not in used else {}
            if 2 * sum(map(bool, matches.values())) >= len(files) > 0:
                unread[folder] = None
    if not unread:
        return []
    return [
        f"not read, though the files have names as in {first_of([*own], 4)}: {first_of([*unread], 6)} (channel_files in"
        " data.splits reads several folders as the channels of an image)"
    ]


def _beside(root: Path, folder: str) -> Iterator[str]:
    """The folders whose path differs from `folder`'s in one part, and not in the split."""
    parts = Path(folder).parts
    for place, part in enumerate(parts if "*" not in folder else ()):
        home = root.joinpath(*parts[:place])
        for name in sorted(os.listdir(home)):
            other = Path(*parts[:place], name, *parts[place + 1 :])
            if name != part and not is_hidden(name) and split_of(name) == split_of(part) and (root / other).is_dir():
                yield other.as_posix()


def _needs_folders(root: Path, splits: Mapping[str, SplitConfig]) -> bool:
    """Whether folders pair images and masks: not if lists name both."""
    return any(
        not place.list or any(len(entry) == 1 for entry in read_list(root / place.list)) for place in splits.values()
    )


def _tie(root: Path, first: Folders, other: Folders) -> str:
    what = [" and ".join(dict.fromkeys(pair)) for pair in zip(first, other, strict=True) if len({*pair}) > 1]
    same = "masks of the same images" if first[0] == other[0] else "folders of images that fit the same way"
    return f"{root} has {same} in {', and '.join(what)}"


def _other(root: Path, ties: Sequence[Folders]) -> Folders | None:
    """The first of `ties` that differs from the chosen folders in images or masks, by the first images."""
    images, masks = (index_files(root, folder) for folder in ties[0])
    own = match_names(images, masks)
    for other in ties[1:]:
        other_images, other_masks = (index_files(root, folder) for folder in other)
        matches = match_names(other_images, other_masks)
        names = [name for name in images if own[name] and matches.get(name)][:FIRST]
        if not names:  # more images
            return other
        for name in names:
            if not _alike((images[name][0], other_images[name][0]), (own[name][0], matches[name][0])):
                return other
    return None


def _alike(images: tuple[Path, Path], masks: tuple[Path, Path]) -> bool:
    """Whether two files show the same image, perhaps in another format, and have equal masks."""
    try:
        if masks[0] != masks[1] and not np.array_equal(read_mask(masks[0]), read_mask(masks[1])):
            return False
        if images[0] == images[1]:
            return True
        one, two = (read_image(path, channels=read_header(path).channels) for path in images)
    except DataError:  # in colour, or no mask: another reading
        return False
    return one.shape == two.shape and float(np.abs(one.astype(np.float64) - two).mean()) < LEAST_CHANGE


def _has_masks(root: Path) -> bool:
    """Whether a folder of masks has files for the images, so that the annotations are their source."""
    found = find_folder(root)
    places = [place for place in found.splits.values() if place.images and place.masks] if found else []
    return any(place.images != place.masks and _is_paired(root, place) for place in places)


def _is_paired(root: Path, place: SplitConfig) -> bool | None:
    """Whether any image of a split has a mask of its own; None if a folder is empty, or cannot be listed."""
    try:
        images, masks = index_files(root, place.images or "."), index_files(root, place.masks or ".")
    except DataError:
        return None
    return any(match_names(images, masks).values()) if images and masks else None


def find_named(root: Path, layout: str) -> FoundLayout | None:
    """The layout of a folder of annotations of one format, or of any (`auto`)."""
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
    labels = {0: empty, **label_map}
    layout = FoundLayout(
        painted.layout, with_validation(splits), tuple(classes), labels, IGNORE_LABEL, said=tuple(said)
    )
    return layout._replace(label_names=painted.names)
