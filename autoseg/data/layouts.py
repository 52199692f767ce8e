"""Finding out how a folder of images and masks is arranged: any folder here, the known data sets in `benchmarks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from autoseg.config import SplitConfig
from autoseg.data.colours import Colours
from autoseg.data.pairs import pairs_in_one_folder
from autoseg.errors import DataError

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test", "testing")}
"""Name of a split -> folder and file names that mean it."""
IMAGE_FOLDERS = ("images", "image", "img_dir", "imgs", "img", "leftImg8bit", "JPEGImages")
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "ann_dir", "gtFine"),
    *("SegmentationClassAug", "SegmentationClass"),
)
MASK_ENDINGS = ("annot", "_masks", "_mask", "_labels", "_label", "_annotations")
"""`train` holds images, `train` + ending their masks."""

_KNOWN = (
    "train/ with trainannot/ (or train_masks/, train_labels/); images/train with masks/train (or labels/,"
    " annotations/);"
    " train/images with train/masks; images/ with masks/; JPEGImages with SegmentationClass and"
    " ImageSets/Segmentation/train.txt; a.jpg beside a_mask.png; the folders of Cityscapes, ADE20K, COCO-Stuff,"
    " Mapillary, CamVid, Oxford-IIIT Pet; or train.txt or train.csv, which lists images and masks"
)


@dataclass(frozen=True)
class FoundLayout:
    """What a folder turned out to be; what is None is for the user, or for the masks, to say."""

    name: str
    splits: Mapping[str, SplitConfig]
    classes: tuple[str, ...] | None = None
    label_map: Mapping[int, int] | None = None
    ignore_label: int | None = None
    colours: Colours | None = None


Find: TypeAlias = Callable[[Path], FoundLayout | None]


def checked_root(root: str | Path) -> Path:
    """The data set's folder as an absolute path.

    Raises: DataError: it is missing, no folder, empty, or may not be looked into.
    """
    path = Path(root).expanduser().resolve()
    try:
        if not path.exists():
            raise DataError(f"the data set folder {path} does not exist; set data.root to the right one")
        if not path.is_dir():
            raise DataError(f"{path} is no folder; set data.root to the folder of the data set")
        if next(path.iterdir(), None) is None:
            raise DataError(
                f"the data set folder {path} is empty; put images and masks there, or set data.root to another"
            )
    except OSError as reason:
        raise DataError(
            f"the data set folder {path} cannot be looked into ({reason.strerror}); change its permissions"
        ) from None
    return path


def find_folder(root: Path) -> FoundLayout | None:
    """Any folder of images and masks; the first arrangement that fits decides."""
    for arrangement in (_split_inside, _split_outside, _side_by_side, _lists, _unsplit, _one_folder):
        if found := dict(arrangement(root)):
            return FoundLayout("list" if arrangement is _lists else "folder", found)
    return None


def find_lists(root: Path) -> FoundLayout | None:
    """train.txt or train.csv, or one CSV of all pairs."""
    found = dict(_lists(root))
    return FoundLayout("list", found) if found else None


def no_layout(root: Path) -> DataError:
    """The error of a folder that is none of them."""
    return DataError(f"{root} has no layout that is known; looked for {_KNOWN}; or say where they lie with data.splits")


def pick(root: Path, names: list[str] | tuple[str, ...]) -> str | None:
    """The first of `names` that is there."""
    return next((name for name in names if (root / name).exists()), None)


def by_seed(images: str | None, masks: str | None, listing: str | None = None) -> dict[str, SplitConfig]:
    """Training and validation of images that have no splits of their own."""
    whole = SplitConfig(images=images, masks=masks, list=listing)
    return {part: whole.model_copy(update={"part": part}) for part in ("train", "val")}


def _split_inside(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """images/train, masks/train."""
    for split, aliases in SPLITS.items():
        images = pick(root, [f"{folder}/{alias}" for folder in IMAGE_FOLDERS for alias in aliases])
        masks = pick(root, [f"{folder}/{alias}" for folder in MASK_FOLDERS for alias in aliases])
        if images and masks:
            yield split, SplitConfig(images=images, masks=masks)


def _split_outside(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """train/images, train/masks."""
    for split, aliases in SPLITS.items():
        for alias in aliases:
            images = pick(root, [f"{alias}/{folder}" for folder in IMAGE_FOLDERS])
            masks = pick(root, [f"{alias}/{folder}" for folder in MASK_FOLDERS])
            if images and masks:
                yield split, SplitConfig(images=images, masks=masks)
                break


def _side_by_side(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """train, trainannot (CamVid as SegNet has it)."""
    for split, aliases in SPLITS.items():
        for alias in aliases:
            masks = pick(root, [alias + ending for ending in MASK_ENDINGS])
            if masks and (root / alias).is_dir():
                yield split, SplitConfig(images=alias, masks=masks)
                break


def _lists(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """train.txt: a pair `image mask` a line, or a stem a line, found in images/ and masks/; or one CSV of all."""
    folders = pick(root, IMAGE_FOLDERS), pick(root, MASK_FOLDERS)
    found = False
    for split, aliases in SPLITS.items():
        if file := pick(root, [f"{alias}{suffix}" for alias in aliases for suffix in (".txt", ".csv")]):
            found = True
            yield split, SplitConfig(images=folders[0], masks=folders[1], list=file)
    if not found and (file := pick(root, ("pairs.csv", "data.csv", "dataset.csv", "images.csv", "list.csv"))):
        yield from by_seed(*folders, file).items()


def _unsplit(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """images, masks."""
    images, masks = pick(root, IMAGE_FOLDERS), pick(root, MASK_FOLDERS)
    if images and masks:
        yield from by_seed(images, masks).items()


def _one_folder(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """a.jpg beside a_mask.png: in train and val, or all in one."""
    found = False
    for split, aliases in SPLITS.items():
        if (folder := pick(root, aliases)) and pairs_in_one_folder(root / folder):
            found = True
            yield split, SplitConfig(images=folder, masks=folder)
    if not found and pairs_in_one_folder(root):
        yield from by_seed(".", ".").items()
