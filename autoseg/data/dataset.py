"""Resolving a `DataConfig`, and opening the data set that it describes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.config.data import DataConfig, ResolvedDataConfig
from autoseg.data.base import CACHE_BYTES, Sample, SegmentationDataset
from autoseg.data.decide import mask_table_of, seen_labels, unlearnable
from autoseg.data.discovery.known_datasets import title_of
from autoseg.data.discovery.pairs import BadFiles, Pair, within
from autoseg.data.generated import GeneratedDataset
from autoseg.data.groups import groups_of
from autoseg.data.io.channel_files import state_of
from autoseg.data.io.images import read_image
from autoseg.data.io.masks import read_mask
from autoseg.data.io.opening import read_header
from autoseg.data.loading.threads import Progress, in_threads
from autoseg.data.look import look_at
from autoseg.data.resolve import decided, described, generated_classes, normalised, resolve_layout
from autoseg.data.splits import list_pairs
from autoseg.data.wording import counted, first_of
from autoseg.errors import DataError
from autoseg.files import cache_folder

__all__ = ["Sample", "SegmentationDataset", "describe_dataset", "open_dataset", "resolve", "verify"]

NEEDED = ("train", "val")
"""Splits that a run needs."""
LEAST_SIDE = 8
"""Least height and width of an image, in pixels."""

_log = logging.getLogger(__name__)


class FolderDataset(SegmentationDataset):
    """Image and mask files, as `list_pairs` gives them. Images get the channels and the type of `config`."""

    def __init__(self, config: ResolvedDataConfig, pairs: Sequence[Pair], cache_bytes: int = CACHE_BYTES) -> None:
        names, labels = [name for name, _, _ in pairs], (config.classes, config.ignore_label, config.label_map)
        super().__init__(names, *labels, config.resize, cache_bytes, config.channels, config.pixel_type)
        self._root, self._config = Path(config.root or ""), config
        self._pairs = list(pairs)
        self.colours, self.mask_threshold = config.colours, config.mask_threshold
        self.orientation = config.orientation
        self._table = mask_table_of(config)

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[np.integer[Any]]]:
        """Image (H, W, C) and mask (H, W) as the files hold them.

        Raises: DataError: a file that cannot be read, or an image and a mask of different sizes.
        """
        _, image_path, mask_path = self._pairs[index]
        mask = read_mask(mask_path, self._table, self.orientation == "upright")
        size = mask.shape[0], mask.shape[1]
        image = read_image(image_path, size, self.channels, self.image_dtype.name, self.orientation)
        check_sizes(image_path, (image.shape[0], image.shape[1]), mask_path, (mask.shape[0], mask.shape[1]))
        return image, mask

    def stored_size(self, index: int) -> tuple[int, int]:
        """(H, W), from the header of the mask's file. Raises: DataError: it cannot be read."""
        header = read_header(self._pairs[index][2])
        return header.upright_size if self.orientation == "upright" else header.size

    def sources(self) -> list[tuple[str, str]]:
        """The files of each sample, and their sizes and times of change."""
        return [(f"{image}\n{mask}", f"{state_of(image)} {state_of(mask)}") for _, image, mask in self._pairs]

    def image_path(self, index: int) -> Path:
        """The image's file, or the path that stands for its files."""
        return self._pairs[index][1]

    def groups(self) -> list[str] | None:
        """The group of each sample by `data.group_by`; None without it. Raises: ConfigError: a sample has none."""
        return None if self._config.group_by is None else groups_of(self._config, self._pairs)

    def where(self, index: int) -> str:
        """The mask's file, relative to the data set's folder."""
        return within(self._root, self._pairs[index][2])

    def leave_out(self, reasons: Mapping[int, str]) -> None:
        """Remove samples, index -> reason, and add them to `left_out`."""
        self.left_out += [(self.names[index], reason) for index, reason in reasons.items()]
        kept = [index for index in range(len(self)) if index not in reasons]
        self.names, self._pairs = [self.names[index] for index in kept], [self._pairs[index] for index in kept]
        self._cache = {new: self._cache[old] for new, old in enumerate(kept) if old in self._cache}


def resolve(
    config: DataConfig,
    training: bool = False,
    say: Callable[[str], object] | None = None,
    before: ResolvedDataConfig | None = None,
) -> ResolvedDataConfig:
    """Fill in what `config` leaves out. A resolved one is returned as it is.

    This finds `root`, `layout` and `splits`, classes, ignore label, label map and colours, and the channels, type,
    orientation and normalisation of the images, from all files of all splits.

    say: is called with each decision, a line that begins with `data: `; by default, they go to the log.
    training: the data set is to be trained on, so that training masks of one class are an error.
    before: the data that the first weights were trained on, see `normalised`.
    Raises: DataError: no such folder, no known layout, a file that cannot be used, or files that contradict each other.
    """
    if isinstance(config, ResolvedDataConfig):
        return config
    if _says_all(config):
        return ResolvedDataConfig.model_validate({key: value for key, value in config if value is not None})
    if config.layout == "generated":
        named = generated_classes(config)
        data = described(config.model_copy(update={"classes": named}))
        return normalised(data, config, lambda: open_dataset(data, "train"), before=before)
    placed = resolve_layout(config)
    skip = config.on_bad_file == "skip"
    looks = look_at(_places(placed.config, skip), cache_folder())
    found, said, errors = decided(config, placed, looks)
    if errors:
        raise errors[0]
    faults = [look.error or seen_labels(found, look).error for look in looks]
    first = next((fault for fault in faults if fault is not None), None)
    inferred = not (placed.known or config.classes or config.num_classes)
    if first is not None and (all(faults) or (inferred and not skip)):  # else loading the pairs reports it
        raise first
    if training and (reason := unlearnable(found, looks)):
        raise reason
    data = described(found)
    split = "train" if "train" in (data.splits or {}) else next(iter(data.splits or {}))
    data = normalised(data, config, lambda: open_dataset(data, split), said.append, before)
    for line in said:
        (say or _log.info)(f"data: {line}")
    return data


def _places(config: DataConfig, skip: bool) -> list[tuple[str, Pair]]:
    """(split, pair) of all splits. What is wrong with others than the first is reported when these are opened."""
    places: list[tuple[str, Pair]] = []
    splits = sorted(config.splits or {}, key=lambda split: split != "train")
    for split in splits:
        try:
            places += [(split, pair) for pair in list_pairs(config, split, [] if skip or split != splits[0] else None)]
        except DataError:
            if split == splits[0]:
                raise
    return places


def open_dataset(config: ResolvedDataConfig, split: str) -> SegmentationDataset:
    """The samples of `split` (`train`, `val`, `test`, or one that `config.splits` names). Samples are read on access.

    If `config.on_bad_file` is `skip`, every file is read now, and the log names what is left out.

    Raises: DataError: no such split, no images, images without masks, or a label map to no class.
    """
    if config.layout == "generated":
        return GeneratedDataset(config, split)
    bad: BadFiles = [] if config.on_bad_file == "skip" else None
    dataset = FolderDataset(config, list_pairs(config, split, bad))
    if bad is None:
        return dataset
    dataset.left_out = [(name, str(reason)) for name, reason in bad]
    return _usable(dataset, config, split)


def describe_dataset(config: ResolvedDataConfig) -> str:
    """Describe a data set in one line: `Cityscapes: 2,975 train, 500 val, 19 classes`.

    Raises: DataError: a split that cannot be listed.
    """
    if config.layout == "generated":
        counts = {name: getattr(config.generated, name) for name in ("train", "val", "test")}
    else:
        counts = {split: _count(config, split) for split in config.splits or {}}
    title = title_of(config.layout)
    in_colour = config.colours and "colour" not in title
    if config.layout in ("folder", "list"):
        title = f"{Path(config.root or '').name} ({title})"
    parts = [*(f"{count:,} {split}" for split, count in counts.items()), counted(config.num_classes, "class")]
    if (config.channels, config.pixel_type) != (3, "uint8"):
        parts.append(f"{counted(config.channels, 'channel')} of {config.pixel_type}")
    if any(split.part for split in (config.splits or {}).values()):
        in_groups = " in groups" if config.group_by else ""
        parts.append(f"split by seed {config.split_seed}{in_groups} (data.val_share {config.val_share:g})")
    if in_colour:
        parts.append("masks in colour")
    if config.mask_threshold is not None:
        parts.append(f"{config.mask_threshold} or more is class 1")
    if config.layout in ("folder", "list") and config.label_map == {255: 1}:
        parts.append("255 is class 1")
    return f"{title}: {', '.join(parts)}"


def verify(dataset: SegmentationDataset, progress: Progress | None = None) -> None:
    """Load every sample once, so that a long run fails at its start; this fills the cache.

    `progress(done, total)` is called after each sample. Raises: DataError: the first sample that cannot be used.
    """
    # the sizes, since all samples together may exceed the memory
    in_threads(lambda index: dataset.load(index).mask.size, len(dataset), progress)


# --- opening ----------------------------------------------------------------------------------------------------------


def _says_all(config: DataConfig) -> bool:
    placed = config.layout == "generated" or (config.splits and config.root and Path(config.root).is_absolute())
    found = config.layout != "auto" and config.classes and config.num_classes and config.ignore_label is not None
    seen = config.channels and config.pixel_type and config.mean and config.std
    return bool(placed and found and seen)


def _count(config: DataConfig, split: str) -> int:
    """Number of images with masks. Only `train` and `val` must have some, since a run needs no other split."""
    try:
        return len(list_pairs(config, split, []))
    except DataError:
        if split in ("train", "val"):
            raise
        return 0


def _usable(dataset: FolderDataset, config: ResolvedDataConfig, split: str) -> FolderDataset:
    """Remove the samples that cannot be used. Raises: DataError: none is left."""

    def fault(index: int) -> str:
        try:
            dataset.load(index)
        except DataError as reason:
            return str(reason)
        return f"{dataset.where(index)} holds the ignore label alone" * (dataset.names[index] in dataset.unlabelled)

    faults = in_threads(fault, len(dataset))
    total = len(dataset) + len(dataset.left_out)
    dataset.leave_out({index: reason for index, reason in enumerate(faults) if reason})
    if not dataset.left_out:
        return dataset
    if len(dataset) == 0:
        raise DataError(
            f"no image of split '{split}' in {config.root} can be used; {dataset.left_out[0][1]}",
            code="no-usable-images",
        )
    names = first_of([name for name, _ in dataset.left_out], 10)
    _log.warning(
        f"left out {len(dataset.left_out)} of {counted(total, 'image')} of split '{split}' (on_bad_file: skip):"
        f" {names}; the first since {dataset.left_out[0][1]}"
    )
    return dataset


def check_sizes(
    image: Path, size: tuple[int, int], mask: Path | None = None, mask_size: tuple[int, int] | None = None
) -> None:
    """Raises: DataError: image and mask, if there is one, differ in size (H, W), or are too small."""
    if mask_size is not None and size != mask_size:
        raise DataError(
            f"{image} is {show_size(size)} pixels, but its mask {mask} is {show_size(mask_size)}; make them equal",
            code="mask-size-differs",
        )
    if min(size) < LEAST_SIDE:
        raise DataError(
            f"{image} is {show_size(size)} pixels, but images need at least {LEAST_SIDE} each way; remove it",
            code="image-too-small",
        )


def show_size(size: tuple[int, int]) -> str:
    """(H, W) as `640x480`, width first, as image viewers write it."""
    return f"{size[1]}x{size[0]}"
