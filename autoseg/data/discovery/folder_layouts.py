"""How a folder of images and masks is arranged, if it is none of `known_datasets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.config.data import SplitConfig
from autoseg.data.discovery.folder_names import find_splits, split_of
from autoseg.data.discovery.pairs import is_hidden, pairs_in_one_folder
from autoseg.data.io.colour_tables import Colours
from autoseg.errors import DataError

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid", "dev"), "test": ("test", "testing")}
"""Name of a split -> names of its list files, without suffix."""


@dataclass(frozen=True)
class FoundLayout:
    """The arrangement of a folder. The user or the masks decide what is None."""

    name: str
    splits: Mapping[str, SplitConfig]
    classes: tuple[str, ...] | None = None
    label_map: Mapping[int, int] | None = None
    ignore_label: int | None = None
    colours: Colours | None = None


def find_folder(root: Path) -> FoundLayout | None:
    """Any folder of images and masks; the first arrangement that fits decides."""
    by_name = find_splits(root)
    unsplit = by_name.pop(None, None)
    named = {split: config for split, config in by_name.items() if split is not None}
    if named:
        return FoundLayout("folder", named)
    if listed := find_lists(root):
        return listed
    found = with_validation({"train": unsplit}) if unsplit else _one_folder(root)
    return FoundLayout("folder", found) if found else None


def find_lists(root: Path) -> FoundLayout | None:
    """The splits that train.txt or train.csv and the like list, or one CSV of all pairs.

    A line is a pair `image mask`, or a stem that is found in images/ and masks/.
    """
    unsplit = find_splits(root).get(None)
    folders = (unsplit.images, unsplit.masks) if unsplit else (None, None)
    found: dict[str, SplitConfig] = {}
    for split, aliases in SPLITS.items():
        if file := pick(root, [f"{alias}{suffix}" for alias in aliases for suffix in (".txt", ".csv")]):
            found[split] = SplitConfig(images=folders[0], masks=folders[1], list=file)
    if not found and (file := pick(root, ("pairs.csv", "data.csv", "dataset.csv", "images.csv", "list.csv"))):
        found = with_validation({"train": SplitConfig(images=folders[0], masks=folders[1], list=file)})
    return FoundLayout("list", found) if found else None


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
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
    by_split = {
        split_of(name): name for name in reversed(folders) if split_of(name) and pairs_in_one_folder(root / name)
    }
    if not by_split and pairs_in_one_folder(root):
        return with_validation({"train": SplitConfig(images=".", masks=".")})
    found = ((split, by_split[split]) for split in SPLITS if split in by_split)
    return {split: SplitConfig(images=folder, masks=folder) for split, folder in found}
