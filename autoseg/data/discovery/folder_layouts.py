"""How a folder of images and masks is arranged, if it is none of `known_datasets`.

The names of folders tell what they hold: `ISIC2018_Task1_Training_GroundTruth` has the words `training` and `ground`,
`truth`, so it holds the masks of the training split.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from autoseg.config.data import SplitConfig
from autoseg.data.discovery.channels import channel_patterns, channels_in_one_folder
from autoseg.data.discovery.pairs import Index, are_named_alike, index_files, match_names, pairs_in_one_folder
from autoseg.data.io.channel_files import shared_length
from autoseg.data.io.colour_tables import Colours
from autoseg.data.io.opening import is_hidden, is_image
from autoseg.errors import DataError

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid", "dev"), "test": ("test", "testing")}
"""Name of a split -> names of its list files, without suffix."""
SPLIT_WORDS = {
    "train": ("train", "training", "trainval", "trn", "tr"),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing", "tst", "ts"),
}
IMAGE_WORDS = (
    *("images", "image", "img", "imgs", "photos", "photo", "pictures", "inputs", "input", "frames", "original"),
    *("originals", "org", "rgb", "sat", "ortho"),
)
MASK_WORDS = (
    *("manual", "semantic", "segmentation", "segmentations", "seg", "masks", "mask", "labels", "label"),
    *("annotations", "annotation", "annot", "anno", "ann", "gt", "gts", "groundtruth", "truth", "targets", "target"),
)
"""The most likely word first: medical sets have a `mask` of the field of view beside the `manual` labels."""
LESSER_WORDS = {
    *("instance", "instances", "object", "objects", "panoptic", "pan", "rgb", "color", "colors", "colour", "colours"),
    *("colormap", "colormaps", "human", "visualization", "visualisation", "vis", "overlay", "overlays", "polygons"),
    *("depth", "edges", "boundary", "bbox", "json", "xml"),
}
"""If there is another folder of masks, one with such a word rarely holds the labels."""
LIST_FOLDERS = ("", "splits/", "split/", "split_list/", "lists/")
"""Where lists of splits may lie."""
DEEPEST, MOST_FOLDERS, MOST_CHOICES = 6, 20_000, 6

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_OF_LISTS = {
    *_SPLIT_OF,
    "list",
    "lists",
    "file",
    "files",
    "name",
    "names",
    "image",
    "images",
    "id",
    "ids",
    "set",
    "split",
}
"""Words in names of files that list a split."""
_JOINED = re.compile(f"^({'|'.join(_SPLIT_OF)})({'|'.join((*IMAGE_WORDS, *MASK_WORDS))})$")

Folders = tuple[str, str]
"""A folder of images and one of masks."""
Ranks = Mapping[str, tuple[int, int]]
"""Folder -> its `Place.rank`."""


class FoundLayout(NamedTuple):
    """The arrangement of a folder. The user or the masks decide what is None."""

    name: str
    splits: Mapping[str, SplitConfig]
    classes: tuple[str, ...] | None = None
    label_map: Mapping[int, int] | None = None
    ignore_label: int | None = None
    colours: Colours | None = None
    said: tuple[str, ...] = ()
    """What to say of it, a line each."""
    sure: bool = False
    """Whether a file of the data set tells the classes."""
    label_names: tuple[str, ...] | None = None
    """The names of annotations, whose labels are 1, 2, ..."""
    ties: Mapping[str, Sequence[Folders]] = {}
    """Split -> folders of images and masks that fit as well as each other, the chosen ones first."""


def find_folder(root: Path) -> FoundLayout | None:
    """Any folder of images and masks; the first arrangement that fits decides."""
    named, unsplit, ties = find_splits(root)
    if named:
        return FoundLayout("folder", named, ties=ties)
    if listed := find_lists(root):
        return listed._replace(ties=ties)
    found = with_validation({"train": unsplit}) if unsplit else _one_folder(root)
    return FoundLayout("folder", found, ties=ties) if found else None


def find_lists(root: Path) -> FoundLayout | None:
    """The splits that train.txt or train.csv and the like list, or one CSV of all pairs.

    A line is a pair `image mask`, or a stem that is found in images/ and masks/. Lists may lie in a folder of lists.
    Without a list of training (fastai's valid.txt), what the others do not list is for training.
    """
    _, unsplit, _ = find_splits(root)
    folders = (unsplit.images, unsplit.masks) if unsplit else (None, None)
    found: dict[str, SplitConfig] = {}
    for folder in LIST_FOLDERS:
        for split in SPLITS:
            if file := _list_of(root / folder, split):
                found[split] = SplitConfig(images=folders[0], masks=folders[1], list=folder + file)
        if found:
            break
    if unsplit and found and "train" not in found:
        others = tuple(str(place.list) for place in found.values())
        found = {"train": unsplit.model_copy(update={"without": others}), **found}
    if not found and (file := pick(root, ("pairs.csv", "data.csv", "dataset.csv", "images.csv", "list.csv"))):
        found = with_validation({"train": SplitConfig(images=folders[0], masks=folders[1], list=file)})
    return FoundLayout("list", found) if found else None


def _list_of(folder: Path, split: str) -> str | None:
    """The file in `folder` that lists a split: `train.txt` or a name like that, such as `Train_list.txt`."""
    try:
        files = [Path(name) for name in sorted(os.listdir(folder)) if name.lower().endswith((".txt", ".csv"))]
    except OSError:  # there is none
        return None
    words = {file: words_of(file.stem) for file in files}
    fitting = [file for file in files if split_of(file.stem) == split and {*words[file]} <= _OF_LISTS]
    aliases = {alias: place for place, alias in enumerate(SPLITS[split])}
    fitting.sort(key=lambda file: (aliases.get(file.stem.lower(), len(aliases)), file.suffix.lower() == ".csv"))
    return fitting[0].name if fitting else None


def pick(root: Path, names: Sequence[str]) -> str | None:
    """The first of `names` that exists in `root`."""
    return next((name for name in names if (root / name).exists()), None)


def with_validation(splits: Mapping[str, SplitConfig]) -> dict[str, SplitConfig]:
    """`splits`; if there is a training split and no validation split, the seed splits validation off training."""
    if "train" not in splits or "val" in splits or splits["train"].part:
        return dict(splits)
    parts = {part: splits["train"].model_copy(update={"part": part}) for part in ("train", "val")}
    return parts | {split: config for split, config in splits.items() if split != "train"}


def _one_folder(root: Path) -> dict[str, SplitConfig]:
    """The splits of images beside their masks, such as a.jpg and a_mask.png: in train/ and val/, or all in `root`."""

    def holds_pairs(folder: Path) -> bool:
        return pairs_in_one_folder(folder) or channels_in_one_folder(folder)

    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
    by_split = {split_of(name): name for name in reversed(folders) if split_of(name) and holds_pairs(root / name)}
    if not by_split and holds_pairs(root):
        return with_validation({"train": SplitConfig(images=".", masks=".")})
    found = ((split, by_split[split]) for split in SPLITS if split in by_split)
    return {split: SplitConfig(images=folder, masks=folder) for split, folder in found}


# --- the names of folders ---------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A folder that holds images or masks."""

    path: str
    """Its path up to the last part with a known word; subfolders belong to it."""
    pattern: str
    """The path with `*` for each part without a known word."""
    role: str | None
    """`image`, `mask`, or None if no word tells."""
    split: str | None
    rank: tuple[int, int]
    """The lower, the more likely it holds the images or masks that are meant."""
    suffix: str
    """The suffix of its first image; empty if there is none."""


class _Indices(dict[str, Index]):
    """Folder -> its files, which are listed when they are first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __missing__(self, folder: str) -> Index:
        try:
            self[folder] = index_files(self._root, folder)
        except DataError:  # listing the folder reports it, if it is chosen
            self[folder] = {}
        return self[folder]

    def fitting(self, folders: Folders) -> int:
        """Number of images that have a mask."""
        return sum(bool(found) for found in match_names(self[folders[0]], self[folders[1]]).values())

    def are_named_alike(self, folders: Folders) -> bool:
        return are_named_alike(self[folders[0]], self[folders[1]])


def find_splits(
    root: Path,
) -> tuple[dict[str, SplitConfig], SplitConfig | None, dict[str, Sequence[Folders]]]:
    """The folders of images and masks of each split, by their names; those of an unsplit data set; and ties.

    If several folders fit, those whose files match best; ties are `FoundLayout.ties`.
    Raises: OSError: `root` is unreadable.
    """
    places, indices = _places(root), _Indices(root)
    found: dict[str | None, SplitConfig] = {}
    ties: dict[str, Sequence[Folders]] = {}
    for split in (*SPLIT_WORDS, None):
        images, named = _of(places, "image", split, indices), True
        if not images:  # `train` beside `train_masks`
            images, named = _of(places, None, split, indices), split is not None
        masks, own = _of(places, "mask", split, indices), True
        if not masks:
            masks, own = _of(places, "mask", None, indices), False
        chosen = _choose(images, masks, indices, sure=named and own and split != "test")
        if chosen:
            found[split] = SplitConfig(images=chosen[0], masks=chosen[1])
            if alike := _ties(chosen, images, masks, indices):
                ties[split or "train"] = [chosen, *alike]
    return {split: place for split, place in found.items() if split is not None}, found.get(None), ties


def _ties(chosen: Folders, images: Ranks, masks: Ranks, indices: _Indices) -> list[Folders]:
    """Other folders of images and masks that fit as well as the chosen ones: of the same ranks, half as many pairs."""
    if "*" in "".join(chosen) or not {*chosen} <= indices.keys():  # of these, nothing else was there to choose from
        return []

    def alike(places: Ranks, best: str) -> list[str]:
        return [one for one in places if one in indices and places[one] == places[best] and "*" not in one]

    others = [pair for pair in product(alike(images, chosen[0]), alike(masks, chosen[1])) if pair[0] != pair[1]]
    if len(others) < 2:
        return []
    least, by_name = indices.fitting(chosen) / 2, indices.are_named_alike(chosen)
    others = [pair for pair in others if pair != chosen and indices.fitting(pair) >= least > 0]
    return [pair for pair in others if indices.are_named_alike(pair) >= by_name]


def image_folders(root: Path) -> list[str]:
    """The folders that hold image files."""
    return ["/".join(parts) or "." for parts, suffix in _leaves(root) if suffix]


def words_of(name: str) -> list[str]:
    """The words of a folder's name in lower case: `trainannot` and `imagesTr` have two each."""
    words = [word.lower() for word in _WORD.findall(name)]
    return [part for word in words for part in _JOINED.sub(r"\1 \2", word).split()]


# --- the folders ------------------------------------------------------------------------------------------------------


def _places(root: Path) -> list[Place]:
    """The place of every folder that holds images; of empty folders only if their role and split have no other."""
    folders = list(_leaves(root))
    # the folders around all of them, such as the name of the data set, tell nothing
    shared = shared_length(parts[:-1] for parts, _ in folders if parts)
    places = dict.fromkeys(_place(parts, shared, suffix) for parts, suffix in folders)
    filled = {(place.role, place.split) for place in places if place.suffix}
    return [place for place in places if place.suffix or (place.role, place.split) not in filled]


def _leaves(root: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """The parts of each folder's path and the suffix of its first image. Empty folders count if they are leaves."""
    next(os.scandir(root), None)
    for count, (place, folders, names) in enumerate(os.walk(root, followlinks=True)):
        parts = Path(place).relative_to(root).parts
        folders[:] = sorted(name for name in folders if not is_hidden(name)) if len(parts) < DEEPEST else []
        images = [name for name in names if not is_hidden(name) and is_image(name)]
        if images or (parts and not folders):
            yield parts, Path(min(images)).suffix.lower() if images else ""
        for name in folders:  # `os.walk` skips unreadable folders; listing one raises its error
            if not os.access(os.path.join(place, name), os.R_OK | os.X_OK):
                yield (*parts, name), ""
        if count > MOST_FOLDERS:
            return


def _place(parts: tuple[str, ...], shared: int, suffix: str) -> Place:
    words = [
        [] if place < shared and part.lower() not in _SPLIT_OF else words_of(part) for place, part in enumerate(parts)
    ]
    roles = [_role_among(some) for some in words]
    splits = [_split_among(some) for some in words]
    known = tuple(bool(role or split) for role, split in zip(roles, splits, strict=True))
    length = max((place + 1 for place, says in enumerate(known) if says), default=len(parts))
    role = next((role for role in reversed(roles) if role), None)
    split = next((split for split in splits if split), None)
    every = {word for some in words for word in some}
    order = min((number for number, word in enumerate(MASK_WORDS) if word in every), default=len(MASK_WORDS))
    lesser = every & (LESSER_WORDS if role == "mask" else LESSER_WORDS - {*IMAGE_WORDS})
    pattern = "/".join(part if says else "*" for part, says in zip(parts[:length], known[:length], strict=True))
    return Place("/".join(parts[:length]) or ".", pattern, role, split, (len(lesser), order), suffix)


def split_of(name: str) -> str | None:
    """The split that a folder's name tells, or None."""
    return _split_among(words_of(name))


def _split_among(words: Sequence[str]) -> str | None:
    return next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF), None)


def role_of(name: str) -> str | None:
    """`image`, `mask`, or None: what a folder's name says that it holds."""
    return _role_among(words_of(name))


def _role_among(words: Sequence[str]) -> str | None:
    if any(word in MASK_WORDS for word in words):
        return "mask"
    return "image" if any(word in IMAGE_WORDS for word in words) else None


# --- which of them ----------------------------------------------------------------------------------------------------


def _of(places: Sequence[Place], role: str | None, split: str | None, indices: _Indices) -> Ranks:
    """The folders of a role in a split and their ranks; folders that differ in a part without known words also as one.

    `Train/Urban/images` and `Train/Rural/images` are `Train/*/images` if their files have one suffix or other stems,
    since the same images in another format are not more images.
    """
    fitting = [place for place in places if (place.role, place.split) == (role, split)]
    several: dict[str, dict[str, list[Place]]] = {}
    for place in fitting:
        several.setdefault(place.pattern, {}).setdefault(place.suffix, []).append(place)
    found: dict[str, tuple[int, int]] = {}
    for pattern, by_suffix in several.items():
        group = max(by_suffix.values(), key=len)
        if len(by_suffix) > 1 and pattern.strip("*/") and _are_others(by_suffix.values(), indices):
            group = [place for some in by_suffix.values() for place in some]
        if len(group) > 1 and pattern.strip("*/"):
            found[pattern] = max(place.rank for place in group)
    return found | {place.path: place.rank for place in fitting}


def _are_others(groups: Iterable[Sequence[Place]], indices: _Indices) -> bool:
    """Whether no name is in two groups of folders."""
    names: set[str] = set()
    for group in groups:
        own = {name for place in group for name in indices[place.path]}
        if names & own:
            return False
        names |= own
    return True


def _choose(images: Ranks, masks: Ranks, indices: _Indices, sure: bool) -> Folders | None:
    """The folders of images and masks whose file names match best. None if no names match, unless it is `sure`."""
    if sure and len(images) == len(masks) == 1:
        return next(iter(images)), next(iter(masks))
    best: Folders | None = None
    most = (0.0, (0, 0), False, 0)
    ranked = sorted(masks, key=lambda name: masks[name])[:MOST_CHOICES]
    for image, mask in product(list(images)[:MOST_CHOICES], ranked):
        fitting = indices.fitting((image, mask))
        if not fitting and channel_patterns(indices[image], indices[mask]):
            fitting = len(indices[image])
        share = round(fitting / max(1, len(indices[image])), 1)
        rank = -masks[mask][0] - images[image][0], -masks[mask][1]
        score = share, rank, indices.are_named_alike((image, mask)), fitting
        if image != mask and fitting and score > most:
            best, most = (image, mask), score
    if best is None and sure and images and masks:
        return next(iter(images)), ranked[0]
    return best
