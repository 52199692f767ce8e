"""A data set of image and mask files: pairing them, and reading a pair."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.config import SplitConfig
from autoseg.data.base import CACHE_BYTES, LABELS, SegmentationDataset
from autoseg.data.images import image_size, read_image, read_mask
from autoseg.errors import DataError
from autoseg.files import one_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MASK_VARIANTS = (
    *("", "_mask", "_masks", "_label", "_labels", "_L", "_gt", "_seg"),
    *("_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelTrainIds", "_labelIds"),
)
"""What a mask's stem may have more than its image's; the first that is there counts."""
IMAGE_VARIANTS = ("_leftImg8bit", "_image", "_img")
"""What an image's stem may have that its mask's lacks."""


class FolderDataset(SegmentationDataset):
    """Image and mask files. `pairs`: (name, image, mask) a sample, as `list_pairs` gives."""

    def __init__(
        self,
        root: Path,
        pairs: Sequence[tuple[str, Path, Path]],
        classes: Sequence[str],
        ignore_label: int = 255,
        label_map: Mapping[int, int] | None = None,
        resize: tuple[int, int] | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        super().__init__([name for name, _, _ in pairs], classes, ignore_label, label_map, resize, cache_bytes)
        self._root = root
        self._pairs = list(pairs)

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]:
        """Image (H, W, 3) and mask (H, W) as the files hold them.

        Raises: DataError: a file that cannot be read, or an image and a mask of different sizes.
        """
        _, image_path, mask_path = self._pairs[index]
        mask = read_mask(mask_path)
        image = read_image(image_path, (mask.shape[0], mask.shape[1]))
        if image.shape[:2] != mask.shape:
            raise DataError(
                f"{image_path} is {_size(image)} pixels, but its mask {mask_path} is {_size(mask)}; make them equal"
            )
        return image, mask

    def stored_size(self, index: int) -> tuple[int, int]:
        """(H, W), from the header of the mask's file. Raises: DataError: it cannot be read."""
        return image_size(self._pairs[index][2])

    def sources(self) -> list[tuple[str, str]]:
        """The two files of each sample, and how large and how old they are."""
        return [(f"{image}\n{mask}", f"{_state(image)} {_state(mask)}") for _, image, mask in self._pairs]

    def image_path(self, index: int) -> Path:
        """The image's file."""
        return self._pairs[index][1]

    def where(self, index: int) -> str:
        """The mask's file, from the data set's folder on."""
        return _within(self._root, self._pairs[index][2])


def list_pairs(root: Path, split: str, config: SplitConfig) -> list[tuple[str, Path, Path]]:
    """(name, image, mask) of every image of a split: in the order of its list, or else by name.

    The name is the image's path within the folder of images, without suffix. Masks without an image are left out.

    Raises: DataError: a folder or file that is missing, no images, an image without a mask, a name that comes twice.
    """
    entries = _read_list(root / config.list) if config.list else []
    listed = [entry for entry in entries if len(entry) == 2]
    stems = [entry[0] for entry in entries if len(entry) == 1]
    pairs = [_listed_pair(root, config.list or "", image, mask) for image, mask in listed]
    if stems or not config.list:
        pairs += _paired(root, split, config, stems)
    seen: set[str] = set()
    for name, image, _ in pairs:
        if name in seen:
            raise DataError(f"{_within(root, image)} of split '{split}' in {root} comes twice; remove one")
        seen.add(name)
    if not pairs:
        raise DataError(f"{root / (config.list or '')} lists no images; write a stem or `image mask` on each line")
    return pairs


def greatest_label(pairs: Iterable[tuple[str, Path, Path]], label_map: Mapping[int, int], ignore_label: int) -> int:
    """The greatest label of all masks after the label map, the ignore label left out; -1 where there is none.

    Raises: DataError: a mask that cannot be read, or a label outside 0..65535.
    """
    seen = np.zeros(LABELS, dtype=np.bool_)
    for _, _, path in pairs:
        labels = np.unique(read_mask(path))
        if labels.size and not 0 <= int(labels[0]) <= int(labels[-1]) < LABELS:
            raise DataError(f"{path} has labels outside 0..{LABELS - 1}; correct the mask")
        seen[labels] = True
    used = {label_map.get(label, label) for label in np.flatnonzero(seen).tolist()} - {ignore_label}
    return max(used, default=-1)


def _paired(root: Path, split: str, config: SplitConfig, stems: list[str]) -> list[tuple[str, Path, Path]]:
    """The images of a folder (those of `stems`, or all) with the masks of another."""
    if config.images is None or config.masks is None:
        raise DataError(
            f"{root / (config.list or '')} lists stems, but {root} has no folders images/ and masks/ to find them in;"
            " write `image mask` on each line, or name the folders in data.splits"
        )
    if config.images == config.masks:
        raise DataError(f"split '{split}' has its images and masks in one folder, {config.images}; use two")
    images, masks = _index(root / config.images), _index(root / config.masks)
    if not images:
        raise DataError(f"{root / config.images} holds no images; looked for {', '.join(IMAGE_SUFFIXES)}")
    wanted = [_without_suffix(stem) for stem in stems] or sorted(images)
    if missing := [name for name in wanted if name not in images]:
        raise DataError(
            f"{root / (config.list or '')} lists {missing[0]}, which is not in {root / config.images}"
            f" ({len(missing)} of {len(wanted)} are missing); add the images or correct the list"
        )
    found = [(name, _only(images[name], root), _mask_of(name, masks, root)) for name in wanted]
    if unpaired := [image for _, image, mask in found if mask is None]:
        raise DataError(
            f"{_within(root, unpaired[0])} has no mask in {root / config.masks} ({len(unpaired)} of {len(found)} images"
            " have none); add the masks, with the images' stems, or remove the images"
        )
    return [(name, image, mask) for name, image, mask in found if mask is not None]


def _mask_of(name: str, masks: Mapping[str, list[Path]], root: Path) -> Path | None:
    bases = [name, *(name.removesuffix(ending) for ending in IMAGE_VARIANTS if name.endswith(ending))]
    candidates = (masks[base + variant] for base in bases for variant in MASK_VARIANTS if base + variant in masks)
    files = next(candidates, None)
    return None if files is None else _only(files, root)


def _only(files: list[Path], root: Path) -> Path:
    if len(files) > 1:
        names = " and ".join(_within(root, file) for file in files[:2])
        raise DataError(f"{names} in {root} have the same stem; remove or rename one")
    return files[0]


def _index(folder: Path) -> dict[str, list[Path]]:
    """Path within `folder`, without suffix -> image files of that name; subfolders count, hidden files do not."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; make it, or correct data.splits")
    files: dict[str, list[Path]] = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return files


def _read_list(path: Path) -> list[tuple[str, ...]]:
    """The lines of a list: (stem,) or (image, mask). A tab or comma separates names that have spaces."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as reason:
        raise DataError(
            f"{path} cannot be read as a list of images ({one_line(reason)}); correct data.splits"
        ) from None
    entries = []
    for number, line in enumerate(lines, start=1):
        separator = next((mark for mark in "\t," if mark in line), None)
        entry = tuple(part.strip() for part in line.strip().split(separator))
        if not line.strip() or line.startswith("#"):
            continue
        if len(entry) > 2 or not all(entry):
            raise DataError(f"{path}, line {number}: write a stem, or an image and its mask with a tab between them")
        entries.append(entry)
    if not entries:
        raise DataError(f"{path} lists no images; write a stem, or `image mask`, on each line")
    return entries


def _listed_pair(root: Path, listing: str, image: str, mask: str) -> tuple[str, Path, Path]:
    for file in (image, mask):
        if not (root / file).is_file():
            raise DataError(f"{root / listing} lists {file}, which is not in {root}; add the file or correct the list")
    return _without_suffix(image), root / image, root / mask


def _without_suffix(name: str) -> str:
    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in IMAGE_SUFFIXES else path.as_posix()


def _within(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _state(path: Path) -> str:
    """Bytes and time of the last change, in nanoseconds; of a file that is not there, nothing."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
