"""Recognising the data sets that everyone measures on, each by what only it has."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from autoseg.config.data import SplitConfig
from autoseg.data.discovery.class_names import (
    ADE20K,
    ADE20K_MAP,
    CAMVID,
    CAMVID_IGNORE,
    CITYSCAPES,
    CITYSCAPES_MAP,
    COCO_PIXELMAPS,
    COCO_PIXELMAPS_MAP,
    COCO_STUFF,
    COCO_STUFF_MAP,
    IGNORE,
    PET,
    PET_MAP,
    VOC,
    camvid_colours,
)
from autoseg.data.discovery.folder_layouts import (
    SPLITS,
    Find,
    FoundLayout,
    by_seed,
    find_folder,
    find_lists,
    no_layout,
    pick,
)
from autoseg.data.discovery.folder_names import split_of
from autoseg.data.discovery.pairs import is_hidden, read_list
from autoseg.data.io.colour_tables import Colour
from autoseg.data.io.images import is_coloured
from autoseg.errors import DataError
from autoseg.files import one_line

_CAMVID_STEM = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_")
_VOC_STEM = re.compile(r"(\d{4}_)?\d{6}")


def find_layout(root: Path, name: str = "auto") -> tuple[Path, FoundLayout]:
    """What `root` is: the layout of that name, or the most specific one that fits, and the folder that it is in.

    That is `root`, or the only folder in it, as archives have it. Raises: DataError: none fits, or not the one named.
    """
    wanted = list(LAYOUTS.values()) if name == "auto" else [LAYOUTS[name]]
    try:
        places = [root]
        while inside := _only_folder(places[-1]):
            places.append(inside)
        for folder in reversed(places):  # from outside, a known data set is any folder of images and masks
            for find in wanted:
                if found := find(folder):
                    return folder, found
    except OSError as reason:
        place = reason.filename or root
        raise DataError(
            f"{place} cannot be looked into ({reason.strerror}); change its permissions", code="folder-unreadable"
        ) from None
    if name == "auto":
        raise no_layout(root)
    raise DataError(
        f"{root} is not laid out as {TITLES[name]}; correct data.root, or leave data.layout out", code="layout-differs"
    )


def _cityscapes(root: Path) -> FoundLayout | None:
    """leftImg8bit/train/CITY/*_leftImg8bit.png, gtFine/train/CITY/*_gtFine_labelIds.png (or labelTrainIds)."""
    masks = pick(root, ("gtFine", "gtCoarse"))
    if masks is None or not (root / "leftImg8bit").is_dir():
        return None
    kinds = (f"_{masks}_labelTrainIds", f"_{masks}_labelIds")
    ending = next((kind for kind in kinds if _any_file(root / masks, f"*{kind}.png")), None)
    if ending is None:
        return None
    splits = {
        split: SplitConfig(images=f"leftImg8bit/{split}", masks=f"{masks}/{split}", mask_suffix=ending)
        for split in SPLITS
        if (root / "leftImg8bit" / split).is_dir() and (root / masks / split).is_dir()
    }
    label_map = {} if ending.endswith("TrainIds") else CITYSCAPES_MAP
    return FoundLayout("cityscapes", splits, CITYSCAPES, label_map, IGNORE) if splits else None


def _kitti(root: Path) -> FoundLayout | None:
    """training/image_2, training/semantic; the labels are those of Cityscapes."""
    images, masks = pick(root, ("training/image_2",)), pick(root, ("training/semantic",))
    return (
        FoundLayout("kitti", by_seed(images, masks), CITYSCAPES, CITYSCAPES_MAP, IGNORE) if images and masks else None
    )


def _mapillary(root: Path) -> FoundLayout | None:
    """training/images, training/labels or training/v2.0/labels, and config.json with the labels."""
    for version in ("v2.0", "v1.2", ""):
        file = pick(root, [f"config_{version}.json"] if version else ["config.json"])
        masks = "/".join(part for part in (version, "labels") if part)
        if version and file is None:
            file = pick(root, ["config.json"])
        splits = {
            split: SplitConfig(images=f"{folder}/images", masks=f"{folder}/{masks}")
            for split, (_, folder, *_) in SPLITS.items()
            if (root / folder / "images").is_dir() and (root / folder / masks).is_dir()
        }
        if file and splits and (labels := _mapillary_labels(root / file)):
            return _mapillary_of(root, splits, labels)
    return None


def _mapillary_of(root: Path, splits: dict[str, SplitConfig], labels: list[dict[str, Any]]) -> FoundLayout:
    evaluated = [number for number, label in enumerate(labels) if label.get("evaluate", True)]
    label_map = dict.fromkeys(range(len(labels)), IGNORE) | {number: train for train, number in enumerate(evaluated)}
    classes = tuple(str(labels[number].get("readable", labels[number].get("name", number))) for number in evaluated)
    colours: dict[str | int, Colour] = {}
    if _first_is_coloured(root / (_first(splits).masks or "")):
        for number, label in enumerate(labels):
            red, green, blue = label["color"]
            if (red, green, blue) not in colours.values():
                colours[number] = red, green, blue
    return FoundLayout("mapillary", splits, classes, label_map, IGNORE, colours or None)


def _mapillary_labels(file: Path) -> list[dict[str, Any]] | None:
    """The labels of config.json, or None where it is some other file. Raises: DataError: it is no JSON."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as reason:
        raise DataError(
            f"{file} cannot be read as JSON ({one_line(reason)}); restore or remove it", code="file-unreadable"
        ) from None
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, list) or not labels:
        return None
    fits = all(isinstance(label, dict) and len(label.get("color", ())) == 3 for label in labels)
    return labels if fits else None


def _ade20k(root: Path) -> FoundLayout | None:
    """images/training/ADE_train_*.jpg, annotations/training/*.png; 0 is ignored."""
    splits = {
        split: SplitConfig(images=f"images/{folder}", masks=f"annotations/{folder}")
        for split, folder in (("train", "training"), ("val", "validation"))
        if (root / "images" / folder).is_dir() and (root / "annotations" / folder).is_dir()
    }
    named = (root / "objectInfo150.txt").is_file()
    if not splits or not (named or _any_file(root / (_first(splits).images or ""), "ADE_*")):
        return None
    classes = _object_info(root / "objectInfo150.txt") if named else None
    return FoundLayout("ade20k", splits, classes or ADE20K, ADE20K_MAP, IGNORE)


def _object_info(file: Path) -> tuple[str, ...] | None:
    """The names in objectInfo150.txt, the first word of each; None where these are not 150."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    rows = [line.split("\t") for line in lines if line[:1].isdecimal()]
    names = tuple(row[-1].split(",")[0].strip() for row in rows)
    return names if len(names) == 150 and all(names) else None


def _coco_stuff(root: Path) -> FoundLayout | None:
    """train2017 (or images/train2017), stuffthingmaps/train2017 or the pixel maps of the stuff task."""
    splits: dict[str, SplitConfig] = {}
    for split in ("train", "val"):
        year = f"{split}2017"
        masks = pick(
            root,
            [
                *(f"{folder}/{year}" for folder in ("stuffthingmaps", "stuffthingmaps_trainval2017", "pixelmaps")),
                *(f"{folder}stuff_{year}_pixelmaps" for folder in ("", "annotations/", "pixelmaps/")),
                f"annotations/{year}",
            ],
        )
        if (images := pick(root, (f"images/{year}", year))) and masks:
            splits[split] = SplitConfig(images=images, masks=masks)
    if not splits:
        return None
    folder = _first(splits).masks or ""
    if "stuff_" in folder:
        return FoundLayout("coco_stuff", splits, COCO_PIXELMAPS, COCO_PIXELMAPS_MAP, IGNORE)
    trained = _any_file(root / folder, "*_labelTrainIds.png")
    return FoundLayout("coco_stuff", splits, COCO_STUFF, {} if trained else COCO_STUFF_MAP, IGNORE)


def _voc(root: Path) -> FoundLayout | None:
    """JPEGImages, SegmentationClassAug or SegmentationClass, ImageSets/Segmentation/train.txt (or train_aug.txt)."""
    masks = pick(root, ("SegmentationClassAug", "SegmentationClass"))
    if masks is None or not (root / "JPEGImages").is_dir():
        return None
    lists = "ImageSets/SegmentationAug", "ImageSets/Segmentation"
    splits: dict[str, SplitConfig] = {}
    for split, aliases in SPLITS.items():
        names = ("train_aug", "trainaug", *aliases) if (split, masks) == ("train", "SegmentationClassAug") else aliases
        if file := pick(root, [f"{folder}/{name}.txt" for folder in lists for name in names]):
            splits[split] = SplitConfig(images="JPEGImages", masks=masks, list=file)
    if not splits:
        return None
    first = read_list(root / (_first(splits).list or ""))[0][0]
    own = _VOC_STEM.fullmatch(Path(first).stem) is not None
    return FoundLayout("voc", splits, VOC if own else None, None, IGNORE if own else None)


def _camvid(root: Path) -> FoundLayout | None:
    """CamVid's frames, in any arrangement with splits: SegNet's labels, or the original colours."""
    found = find_folder(root)
    if found is None or any(config.part for config in found.splits.values()):
        return None
    config = _first(found.splits)
    if config.images is None or config.masks is None or not _camvid_frames(root / config.images):
        return None
    if _first_is_coloured(root / config.masks):
        return _in_camvid_colours(found.splits)
    return FoundLayout("camvid", found.splits, CAMVID, None, CAMVID_IGNORE)


def _camvid_colour(root: Path) -> FoundLayout | None:
    """701_StillsRaw_full, LabeledApproved_full."""
    images, masks = pick(root, ("701_StillsRaw_full",)), pick(root, ("LabeledApproved_full",))
    return _in_camvid_colours(by_seed(images, masks)) if images and masks else None


def _in_camvid_colours(splits: Mapping[str, SplitConfig]) -> FoundLayout:
    colours, groups = camvid_colours()
    return FoundLayout("camvid_colour", splits, CAMVID, groups, CAMVID_IGNORE, colours)


def _camvid_frames(folder: Path) -> bool:
    return folder.is_dir() and any(_CAMVID_STEM.match(path.name) for path in islice(sorted(folder.iterdir()), 50))


def _pet(root: Path) -> FoundLayout | None:
    """images/*.jpg, annotations/trimaps/*.png, annotations/trainval.txt and test.txt."""
    images, masks = pick(root, ("images",)), pick(root, ("annotations/trimaps",))
    if images is None or masks is None:
        return None
    splits = by_seed(images, masks, pick(root, ("annotations/trainval.txt",)))
    if test := pick(root, ("annotations/test.txt",)):
        splits["test"] = SplitConfig(images=images, masks=masks, list=test)
    return FoundLayout("pet", splits, PET, PET_MAP, IGNORE)


LAYOUTS: dict[str, Find] = {
    "cityscapes": _cityscapes,
    "kitti": _kitti,
    "mapillary": _mapillary,
    "ade20k": _ade20k,
    "coco_stuff": _coco_stuff,
    "voc": _voc,
    "camvid_colour": _camvid_colour,
    "camvid": _camvid,
    "pet": _pet,
    "folder": find_folder,
    "list": find_lists,
}
"""The most specific first."""
TITLES = {
    "cityscapes": "Cityscapes",
    "kitti": "KITTI",
    "mapillary": "Mapillary Vistas",
    "ade20k": "ADE20K",
    "coco_stuff": "COCO-Stuff",
    "voc": "PASCAL VOC",
    "camvid": "CamVid",
    "camvid_colour": "CamVid (colour-coded)",
    "pet": "Oxford-IIIT Pet",
    "folder": "a folder of images and masks",
    "list": "lists of images and masks",
    "generated": "generated images",
}


def _first(splits: Mapping[str, SplitConfig]) -> SplitConfig:
    return next(iter(splits.values()))


def _any_file(folder: Path, pattern: str) -> bool:
    return next(folder.rglob(pattern), None) is not None


def _first_is_coloured(folder: Path) -> bool:
    """Whether the first mask that can be read is in colour."""
    for path in islice((path for path in folder.rglob("*.png") if path.is_file()), 5):
        try:
            return is_coloured(path)
        except DataError:
            continue
    return False


def _only_folder(root: Path) -> Path | None:
    """The one folder in `root`, where there is nothing else, unless it is a split of the data set."""
    inside = [path for path in islice(root.iterdir(), 20) if not is_hidden(path.name)]
    alone = len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink()
    return inside[0] if alone and split_of(inside[0].name) is None else None
