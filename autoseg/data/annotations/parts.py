"""Several masks an image: a folder of masks for each class, or a file for each object or part of an image."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from autoseg.data.annotations.folder import Folder
from autoseg.data.annotations.regions import AnnotationSet, Drawing, Region, by_area
from autoseg.data.discovery.folder_layouts import IMAGE_WORDS, MASK_WORDS, role_of, split_of, words_of
from autoseg.data.discovery.pairs import MASK_VARIANTS
from autoseg.data.io.masks import MIDDLE, look_at_mask, read_mask
from autoseg.errors import DataError

ORDER = "a smaller mask covers a larger one"
FOREGROUND = "foreground"
LEAST_SHARE = 0.5
"""Least share of the images that have several masks."""
MOST_CLASSES = 64
"""More different endings of names are the names of objects, not of classes."""
LOOKED_AT = 12
"""Number of masks that are looked at for more than two values."""
_NUMBER = re.compile(r"\d+")
_ANNOTATOR = re.compile(
    r"(annotator|expert|observer|rater|reader|grader|doctor|version|v)?_?(\d+(_?(st|nd|rd|th))?|[a-z])"
)
"""Words of a folder that tell who drew its masks, and not what."""
Found = Mapping[Path, Sequence[tuple[str, Path]]]
"""Image -> the class and file of each of its masks."""


def find(folder: Folder) -> AnnotationSet | None:
    """The masks of a folder, if images have several; None if they do not.

    Raises: DataError: masks of several folders have more than two values, so that they are no masks of one class.
    """
    images, masks = _images_and_masks(folder)
    if not images or not masks:
        return None
    by_folder = _by_folder(folder, images, masks)
    found = by_folder or _by_ending(images, masks)
    if not found:
        return None
    files = [file for some in found.values() for _, file in some]
    names = sorted({name for parts in found.values() for name, _ in parts})
    why = None
    if by_folder and all(_ANNOTATOR.fullmatch(name) or role_of(name) for name in names):
        why = "whose names tell no class"
    elif strange := _not_binary(files):
        if not by_folder:
            return None
        why = f"and {strange.name} shows more than one class"
    if why:
        places = sorted({file.parent.relative_to(folder.root).as_posix() for file in files})
        raise DataError(
            f"{folder.root} has masks of the same images in {places[0]} and {places[1]}, {why}; say which are meant,"
            f" with data.splits: {{train: {{images: ..., masks: {places[0]}}}}}",
            code="folders-tie",
        )
    result = AnnotationSet("parts", ORDER, files, names=names)
    for image, parts in sorted(found.items()):
        result.add(folder.split(image), image, parts[0][1], partial(read, tuple(parts)))
    return result


def read(parts: Sequence[tuple[str, Path]]) -> Drawing:
    """The masks of an image as regions. Raises: DataError: they differ in size."""
    regions, sizes = [], {}
    for name, file in parts:
        facts = look_at_mask(file)
        blurred = facts.kind == "lossy" or bool(facts.shades)
        pixels = read_mask(file, MIDDLE if blurred else None) != 0
        regions.append(Region.of_pixels(name, pixels))
        sizes[pixels.shape] = file
    if len(sizes) > 1:
        (first, file), (second, other) = list(sizes.items())[:2]
        raise DataError(
            f"{file} is {first[1]}x{first[0]} pixels, but {other}, a mask of the same image, {second[1]}x{second[0]};"
            " make them equal",
            code="sizes-disagree",
        )
    return Drawing(next(iter(sizes)), by_area(regions))


def _images_and_masks(folder: Folder) -> tuple[list[Path], list[Path]]:
    by_role: dict[str | None, list[Path]] = defaultdict(list)
    for path in folder.images:
        folders = path.relative_to(folder.root).parts[:-1]
        by_role[next(filter(None, map(role_of, reversed(folders))), None)].append(path)
    return by_role["image"] or by_role[None], by_role["mask"]


def _by_folder(folder: Folder, images: Sequence[Path], masks: Sequence[Path]) -> Found:
    """Masks in two folders or more that are named as their images; the class is what distinguishes the folders."""
    by_stem = defaultdict(list)
    for image in images:
        by_stem[image.stem].append(image)
    groups: dict[Path, dict[Path, Path]] = defaultdict(dict)
    for mask in masks:
        stems = [mask.stem.removesuffix(ending) for ending in MASK_VARIANTS]
        stem = next((stem for stem in stems if stem in by_stem), None)
        if stem is not None:
            image = _nearest(by_stem[stem], mask, folder)
            groups[mask.parent][image] = mask
    most = max(map(len, groups.values()), default=0)
    twice = sum(sum(image in some for some in groups.values()) > 1 for image in images)
    if len(groups) < 2 or most < LEAST_SHARE * len(images) or twice < LEAST_SHARE * most:
        return {}
    names = _distinct({place: words_of(place.relative_to(folder.root).as_posix()) for place in groups})
    found: dict[Path, list[tuple[str, Path]]] = defaultdict(list)
    for place, some in sorted(groups.items()):
        for image, mask in some.items():
            found[image].append((names[place], mask))
    return found


def _nearest(images: Sequence[Path], mask: Path, folder: Folder) -> Path:
    """The image of the mask's split, and of the folders nearest to it, where several have its name."""
    same_split = [image for image in images if folder.split(image) == folder.split(mask)] or images
    return max(same_split, key=lambda image: len(os.path.commonpath([image, mask])))


def _distinct(words: Mapping[Path, Sequence[str]]) -> dict[Path, str]:
    """The words that a folder does not share with all others, without those of masks; else its own name."""
    shared = set.intersection(*(set(some) for some in words.values()))
    usual = {*MASK_WORDS, *IMAGE_WORDS}
    names = {}
    for place, some in words.items():
        own = [word for word in some if word not in shared and word not in usual and not split_of(word)]
        names[place] = "_".join(own) or place.name
    return names


def _by_ending(images: Sequence[Path], masks: Sequence[Path]) -> Found:
    """Masks whose names begin with that of their image, or that lie in a folder of the image's name."""
    found: dict[Path, list[tuple[str, Path]]] = defaultdict(list)
    by_stem = {image.stem: image for image in images}
    own_folder = {image.parent.parent: image for image in images}
    alone = len(own_folder) == len(images) > 1
    for mask in masks:
        if alone and mask.parent.parent in own_folder:
            found[own_folder[mask.parent.parent]].append(("", mask))
        elif mask.parent.name in by_stem:
            found[by_stem[mask.parent.name]].append((_class_of(mask.stem), mask))
        elif (place := _end_of_stem(mask.stem, by_stem)) is not None:
            stem = _plain_number(mask.stem[:place]) if mask.stem[:place] not in by_stem else mask.stem[:place]
            found[by_stem[stem]].append((_class_of(mask.stem[place:]), mask))
    if sum(len(some) > 1 for some in found.values()) < LEAST_SHARE * min(len(images), max(1, len(found))):
        return {}
    names = {name for some in found.values() for name, _ in some}
    if len(names) > MOST_CLASSES or "" in names:
        return {image: [(FOREGROUND, file) for _, file in some] for image, some in found.items()}
    return found


def _end_of_stem(name: str, stems: Mapping[str, Path]) -> int | None:
    """How many letters of a mask's name are its image's: `a_b_hair` begins with `a_b`, and `007_hair` with `7`."""
    places = (place for place in range(len(name) - 1, 0, -1) if name[place] in "_-. ")
    return next((place for place in places if name[:place] in stems or _plain_number(name[:place]) in stems), None)


def _plain_number(stem: str) -> str:
    """`007` -> `7`."""
    return str(int(stem)) if stem.isdecimal() else stem


def _class_of(ending: str) -> str:
    """The words of an ending that name a class: `_mask_2` -> ``, `_hair` -> `hair`."""
    words = [word for word in words_of(_NUMBER.sub(" ", ending)) if word not in MASK_WORDS]
    return "_".join(words)


def _not_binary(files: Sequence[Path]) -> Path | None:
    """One of the first masks, evenly spaced, that has more than two values."""
    spaced = [files[place * len(files) // LOOKED_AT] for place in range(min(LOOKED_AT, len(files)))] if files else []
    for file in spaced:
        facts = look_at_mask(file)
        if facts.kind == "colours" or (len(facts.values) > 2 and facts.shades is None):
            return file
    return None
