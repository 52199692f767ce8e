"""Finding out how a folder of images and masks is arranged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from autoseg.config import SplitConfig
from autoseg.errors import DataError

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test", "testing")}
"""Name of a split -> folder and file names that mean it."""
IMAGE_FOLDERS = ("images", "image", "img_dir", "imgs", "img", "leftImg8bit")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation", "ann_dir", "gtFine")
MASK_ENDINGS = ("annot", "_masks", "_mask", "_labels", "_label", "_annotations")
"""`train` holds images, `train` + ending their masks."""

_KNOWN = (
    "train/ with trainannot/ (or train_masks/, train_labels/); images/train with masks/train (or labels/,"
    " annotations/);"
    " train/images with train/masks; JPEGImages with SegmentationClass and ImageSets/Segmentation/train.txt;"
    " or train.txt, which lists images and masks"
)


def checked_root(root: str | Path) -> Path:
    """The data set's folder as an absolute path. Raises: DataError: it is missing, no folder, or empty."""
    path = Path(root).expanduser().resolve()
    if not path.exists():
        raise DataError(f"the data set folder {path} does not exist; set data.root to the right one")
    if not path.is_dir():
        raise DataError(f"{path} is no folder; set data.root to the folder of the data set")
    if next(path.iterdir(), None) is None:
        raise DataError(f"the data set folder {path} is empty; put images and masks there, or set data.root to another")
    return path


def find_splits(root: Path) -> dict[str, SplitConfig]:
    """Name -> place of every split found in `root`; the first layout that fits decides.

    Raises: DataError: no layout fits; says what was looked for.
    """
    for layout in (_voc, _split_inside, _split_outside, _side_by_side, _lists):
        if found := dict(layout(root)):
            return found
    flat = _pick(root, IMAGE_FOLDERS), _pick(root, MASK_FOLDERS)
    if all(flat):
        raise DataError(
            f"{root} has {flat[0]}/ and {flat[1]}/, but nothing says which images are for training; add train.txt and"
            f" val.txt to {root}, a stem a line"
        )
    raise DataError(f"{root} has no layout that is known; looked for {_KNOWN}; or say where they lie with data.splits")


def _voc(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """JPEGImages, SegmentationClassAug or SegmentationClass, ImageSets/Segmentation/train.txt."""
    masks = _pick(root, ("SegmentationClassAug", "SegmentationClass"))
    lists = "ImageSets/SegmentationAug", "ImageSets/Segmentation"
    if masks and (root / "JPEGImages").is_dir():
        for split, aliases in SPLITS.items():
            if file := _pick(root, [f"{folder}/{alias}.txt" for folder in lists for alias in aliases]):
                yield split, SplitConfig(images="JPEGImages", masks=masks, list=file)


def _split_inside(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """images/train, masks/train."""
    for split, aliases in SPLITS.items():
        images = _pick(root, [f"{folder}/{alias}" for folder in IMAGE_FOLDERS for alias in aliases])
        masks = _pick(root, [f"{folder}/{alias}" for folder in MASK_FOLDERS for alias in aliases])
        if images and masks:
            yield split, SplitConfig(images=images, masks=masks)


def _split_outside(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """train/images, train/masks."""
    for split, aliases in SPLITS.items():
        for alias in aliases:
            images = _pick(root, [f"{alias}/{folder}" for folder in IMAGE_FOLDERS])
            masks = _pick(root, [f"{alias}/{folder}" for folder in MASK_FOLDERS])
            if images and masks:
                yield split, SplitConfig(images=images, masks=masks)
                break


def _side_by_side(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """train, trainannot (CamVid as SegNet has it)."""
    for split, aliases in SPLITS.items():
        for alias in aliases:
            masks = _pick(root, [alias + ending for ending in MASK_ENDINGS])
            if masks and (root / alias).is_dir():
                yield split, SplitConfig(images=alias, masks=masks)
                break


def _lists(root: Path) -> Iterator[tuple[str, SplitConfig]]:
    """train.txt: a pair `image mask` a line, or a stem a line, found in images/ and masks/."""
    for split, aliases in SPLITS.items():
        if file := _pick(root, [f"{alias}.txt" for alias in aliases]):
            yield split, SplitConfig(images=_pick(root, IMAGE_FOLDERS), masks=_pick(root, MASK_FOLDERS), list=file)


def _pick(root: Path, names: list[str] | tuple[str, ...]) -> str | None:
    """The first of `names` that is there."""
    return next((name for name in names if (root / name).exists()), None)
