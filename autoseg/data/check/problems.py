"""The problems of a data set: each with its file and its remedy."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.config.data import DataConfig
from autoseg.data.check.similar import alike
from autoseg.data.check.summary import ClassCounter, Scan, SplitSummary
from autoseg.data.dataset import show_size
from autoseg.data.discovery.pairs import IMAGE_VARIANTS, MASK_VARIANTS, index_files, with_channels, within
from autoseg.data.groups import groups_of, shared_groups, shared_lines, suggestion
from autoseg.data.io.channel_files import files_of
from autoseg.data.wording import counted, first_of

RARE_SHARE = 0.001
"""A class with a smaller share of the labelled training pixels is hard to learn."""
RARE_IMAGES = 5
"""A class in fewer training images is hard to learn."""
HEAD_BYTES = 2**16
"""Bytes of a file that are compared before the whole file is."""

KINDS = {
    "layout": "the data set as a whole",
    "pairing": "images without a mask of their own",
    "unreadable": "files that cannot be used",
    "size": "images and masks of different sizes",
    "label": "labels out of range",
    "small": "small images",
    "unused": "masks without an image",
    "ignored": "masks that are ignored as a whole",
    "leak": "images of training in another split",
    "group": "groups on both sides of a split",
    "similar": "images that look nearly like one of training",
    "names": "names that suggest groups",
    "duplicate": "images that come twice",
    "unseen": "classes of other splits that training never shows",
    "rare": "classes of which training shows little",
    "absent": "classes that occur nowhere",
}
"""Kind of problems -> its title; the most serious first."""


class Problem(NamedTuple):
    """A problem of a data set."""

    kind: str
    """One of `KINDS`."""
    split: str
    file: str
    """Relative to the data set's folder; or the name of a class."""
    text: str
    """One line that names the file and the remedy."""
    stops: bool
    """Whether it ends a run with an error."""


def find_problems(scan: Scan, summary: Mapping[str, SplitSummary]) -> Iterator[Problem]:
    """All problems of what was read, and files that are the same."""
    yield from _faults(scan)
    if not scan.undecided:
        yield from _labels(scan)
    yield from _unused_masks(scan, summary)
    same = list(_same_images(scan))
    yield from same
    yield from _groups(scan)
    yield from _similar_images(scan, {problem.file for problem in same if problem.kind == "leak"})
    if not scan.undecided:
        yield from _classes(scan, summary)


def _root(scan: Scan) -> Path:
    return Path(scan.config.root or "")


def shortened(text: str, config: DataConfig) -> str:
    """Make files relative to the data set's folder."""
    return text.replace(f"{config.root}{os.sep}", "")


def _faults(scan: Scan) -> Iterator[Problem]:
    """Files that cannot be used, and small images."""
    for one in scan.facts:
        for fault in one.faults:
            name, text = within(_root(scan), fault.file), shortened(fault.text, scan.config)
            yield Problem(fault.kind, one.split, name, text, one.split in scan.stopping)
        if one.faults or one.size is None or scan.config.resize or min(one.size) >= LEAST_INPUT_SIDE:
            continue
        name = within(_root(scan), one.pair[1])
        text = f"{name} is only {show_size(one.size)} pixels; set data.resize, or remove it if it is a mistake"
        yield Problem("small", one.split, name, text, stops=False)


def _labels(scan: Scan) -> Iterator[Problem]:
    """Masks with labels that are no class, and masks that hold only the ignore label."""
    counter, number = ClassCounter(scan.config), scan.config.num_classes
    for one in scan.facts:
        mask, wrong = one.pair[2], counter.illegal(one)
        name = within(_root(scan), mask)
        if any(fault.file == mask for fault in one.faults) or not one.labels.size:
            continue
        if wrong.size:
            some = first_of([str(label) for label in wrong], 5)
            text = (
                f"label{'s' * (wrong.size > 1)} {some} in {name}, but the data set has {counted(number, 'class')}"
                f" (0..{number - 1}) and ignore label {scan.config.ignore_label}; map"
                f" {'them' if wrong.size > 1 else 'it'} with data.label_map"
            )
            yield Problem("label", one.split, name, text, one.split in scan.stopping)
        elif not counter.count(one)[:-1].any():
            text = f"{name} holds the ignore label {scan.config.ignore_label} alone; remove it with its image"
            yield Problem("ignored", one.split, name, text, stops=False)


def _unused_masks(scan: Scan, splits: Container[str]) -> Iterator[Problem]:
    """Masks that belong to no image of their split; splits with a list are skipped, since it may select some."""
    root, used = _root(scan), {one.pair[2] for one in scan.facts}
    done: set[str] = set()
    for split, config in (scan.config.splits or {}).items():
        if split not in splits or config.list or not config.masks or not config.images or config.masks in done:
            continue
        done.add(config.masks)
        endings: tuple[str, ...] = (config.mask_suffix or "",)
        images = index_files(root, config.images)
        if config.channel_files:
            images = with_channels(images, config.channel_files)[0]
        stems = _stems(images, (config.image_suffix or "", *IMAGE_VARIANTS))
        if config.masks == config.images:  # only their names tell masks from images there
            endings = endings if config.mask_suffix else tuple(variant for variant in MASK_VARIANTS if variant)
            stems = {stem for stem in stems if not stem.endswith(endings)}
        for stem, masks in index_files(root, config.masks).items():
            if stem.endswith(endings) and not _beginnings(stem) & stems:
                for name in (within(root, mask) for mask in masks if mask not in used):
                    text = f"{name} has no image in {config.images}; add the image, or remove the mask"
                    yield Problem("unused", split, name, text, stops=False)


def _stems(names: Iterable[str], endings: Sequence[str]) -> set[str]:
    """The names with which a mask's name may begin: the images' names, with and without their endings."""
    return {name.removesuffix(ending) for name in names for ending in ("", *endings)}


def _beginnings(stem: str) -> set[str]:
    """`a_b_c` -> `a_b_c`, `a_b`, `a`. An image may have several masks, such as `a_labelIds` and `a_color`."""
    return {stem, *(stem[:place] for place, letter in enumerate(stem) if letter in "_-")}


def _same_images(scan: Scan) -> Iterator[Problem]:
    """Images that can be read and whose files hold the same bytes."""
    images = [(one.split, one.pair[1]) for one in scan.facts if one.image_kind is not None]
    for group in same_files([image for _, image in images]):
        (home, first), *others = ((images[index][0], within(_root(scan), images[index][1])) for index in group)
        for split, name in others:
            kind, text = "duplicate", f"{name} is the same file as {first}"
            if split != home:
                text = f"{name} of {split} is the same file as {first} of {home}"
                if home == "train":
                    kind, text = "leak", f"{text}, so scores on {split} would be too good"
            yield Problem(kind, split, name, f"{text}; remove one", stops=False)


def _groups(scan: Scan) -> Iterator[Problem]:
    """Groups that the user's splits have on both sides; without `data.group_by`, those that names suggest."""
    pairs, splits = [one.pair for one in scan.facts], [one.split for one in scan.facts]
    if scan.config.group_by is None:
        if hint := suggestion(scan.config, pairs, splits):
            yield Problem("names", "train", "", hint, stops=False)
        return
    shared = shared_groups(groups_of(scan.config, pairs), splits)
    for split, text in zip(shared, shared_lines(shared), strict=True):
        yield Problem("group", split, "", f"{text}; move the images of each to one side", stops=False)


def _similar_images(scan: Scan, known: Container[str]) -> Iterator[Problem]:
    """Images of other splits that look nearly like one of training, without those in `known`, which are the same."""
    root = _root(scan)
    seen = [(one.split, within(root, one.pair[1]), one.look) for one in scan.facts if one.look is not None]
    training = [(name, look) for split, name, look in seen if split == "train"]
    others = [(split, name, look) for split, name, look in seen if split != "train" and name not in known]
    places = alike([look for _, _, look in others], [look for _, look in training])
    for (split, name, _), place in zip(others, places, strict=True):
        if place is not None:
            text = f"{name} of {split} looks nearly like {training[place][0]} of train; if they show the same,"
            text += f" scores on {split} are too good: move one, or keep them on one side with data.group_by"
            yield Problem("similar", split, name, text, stops=False)


def _classes(scan: Scan, summary: Mapping[str, SplitSummary]) -> Iterator[Problem]:
    """Classes that are rare in training, or do not occur there."""
    if (train := summary.get("train")) is None:
        return
    for label, name in enumerate(scan.config.classes):
        if label == scan.config.ignore_label:
            continue
        elsewhere = [split for split, other in summary.items() if other.images_with[label]]
        images, share = int(train.images_with[label]), float(train.shares[label])
        if not elsewhere:
            text = f"class {label}, {name}, is in no mask; add images of it, or leave it out of data.classes"
            yield Problem("absent", "train", name, text, stops=False)
        elif not images:
            text = f"class {label}, {name}, is in {' and '.join(elsewhere)}, but in no mask of train; move images of it"
            yield Problem("unseen", "train", name, f"{text} there, or ignore it with data.label_map", stops=False)
        elif share < RARE_SHARE or images < min(RARE_IMAGES, train.images):
            text = f"class {label}, {name}, is in {images} of {counted(train.images, 'image')} of train,"
            advice = f"{100 * share:.2g}% of the pixels; add images, or set balanced_sampling or class_weights"
            yield Problem("rare", "train", name, f"{text} {advice}", stops=False)


# --- files with the same bytes ----------------------------------------------------------------------------------------


def same_files(paths: Sequence[Path]) -> list[list[int]]:
    """Sorted groups of two or more indices into `paths` whose files hold the same bytes.

    Files of one length are compared by a hash of their first 64 KiB, and if it is equal, of all bytes. Files that are
    empty or cannot be read are in no group.
    """
    groups: list[list[int]] = [list(range(len(paths)))]
    for key in (_length, _head, _whole):
        groups = [part for group in groups for part in _parted(group, paths, key)]
    return sorted(groups)


def _parted(group: Iterable[int], paths: Sequence[Path], key: Callable[[Path], Hashable]) -> list[list[int]]:
    """Split a group by `key` of all files of an image; parts of one image, and empty files, are dropped."""
    parts: dict[Hashable, list[int]] = {}
    for index in group:
        with contextlib.suppress(OSError):
            found = tuple(key(file) for file in files_of(paths[index]))
            if all(found):
                parts.setdefault(found, []).append(index)
    return [part for part in parts.values() if len(part) > 1]


def _length(path: Path) -> int:
    return path.stat().st_size


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.blake2b(file.read(HEAD_BYTES)).digest()


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
