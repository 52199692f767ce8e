"""The steps that fill in a `DataConfig`: layout, classes, form of the images, normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Any

from autoseg.config.data import IMAGENET_MEAN, IMAGENET_STD, DataConfig, ResolvedDataConfig, Rgb
from autoseg.data.base import SegmentationDataset
from autoseg.data.discovery.folder_layouts import FoundLayout, with_validation
from autoseg.data.discovery.infer_classes import FoundClasses, binary_map, classes_of
from autoseg.data.discovery.known_datasets import find_layout, known_label_maps
from autoseg.data.discovery.pairs import Pair, checked_root
from autoseg.data.generated import CLASSES
from autoseg.data.io.colour_tables import ColourTable, MaskTable, named_classes, table_beside
from autoseg.data.io.images import FIRST_FILES, are_black_and_white, first_in_colour, image_format
from autoseg.data.statistics import channel_statistics
from autoseg.data.wording import counted
from autoseg.errors import DataError

IGNORE_LABEL = 255
"""The ignore label if neither the user nor a known layout sets one."""
MIDDLE = 128
"""The threshold between black and white."""


def resolve_layout(config: DataConfig) -> DataConfig:
    """`config` with `layout`, `splits`, `root`, and the labels, classes and colours of a known layout.

    If the user has another number of classes than the layout, the layout's label map is not used.
    Raises: DataError: no such folder, no known layout, or not the one that is named.
    """
    root = checked_root(config.root or "")
    if config.splits and config.layout in ("auto", "folder", "list"):
        found = FoundLayout("folder" if config.layout == "auto" else config.layout, config.splits)
    else:
        root, found = find_layout(root, config.layout)
    splits = config.splits or with_validation(found.splits)
    changes: dict[str, Any] = {"layout": found.name, "root": str(root), "splits": splits}
    own = config.num_classes or len(config.classes or ())
    # a label map that a known layout set for another folder does not apply to this one
    foreign = found.label_map is not None and config.label_map in known_label_maps()
    if own in (0, len(found.classes or ())) and (config.label_map is None or foreign):
        if config.ignore_label is None:
            changes["ignore_label"] = found.ignore_label
        ignore = found.ignore_label if config.ignore_label is None else config.ignore_label
        if found.label_map is not None:
            renamed = {source: ignore if target == found.ignore_label else target
                       for source, target in found.label_map.items()}  # fmt: skip
            changes["label_map"] = renamed or None
        if not own:
            changes["classes"] = found.classes
    if config.colours is None:
        changes["colours"] = None if found.colours is None else dict(found.colours)
    return config.model_copy(update=changes)


def resolve_forms(config: DataConfig, pairs: Sequence[Pair]) -> DataConfig:
    """`config` with what the first masks and images tell of all.

    This is `colours` or `mask_threshold`, if masks hold no labels, and `channels` and `pixel_type`. Colours come from a
    table in the data set's folder, its parent, or a folder of masks.
    """
    config = _with_mask_form(config, pairs)
    channels, pixel_type = 3, "uint8"
    for _, image, _ in islice(pairs, 0 if config.channels and config.pixel_type else FIRST_FILES):
        try:
            channels, pixel_type = image_format(image)
            break
        except DataError:  # `read_image` reports it
            continue
    form = {"channels": config.channels or channels, "pixel_type": config.pixel_type or pixel_type}
    return config.model_copy(update=form)


def _with_mask_form(config: DataConfig, pairs: Sequence[Pair]) -> DataConfig:
    if config.colours is None and config.root and first_in_colour(mask for _, _, mask in pairs):
        root, splits = Path(config.root), (config.splits or {}).values()
        folders = [root / split.masks for split in splits if split.masks and "*" not in split.masks]
        config = config.model_copy(update={"colours": table_beside(root, root.parent, *dict.fromkeys(folders))})
    said = config.colours or config.label_map or config.mask_threshold is not None
    if said or (config.num_classes or len(config.classes or ())) not in (0, 2):
        return config
    if not are_black_and_white(mask for _, _, mask in pairs):
        return config
    return config.model_copy(update={"mask_threshold": MIDDLE})


def mask_table_of(config: DataConfig) -> MaskTable | None:
    """How the values in masks become labels; None if they are labels."""
    return config.mask_threshold if config.colours is None else ColourTable(config.colours, ignored_label(config))


def ignored_label(config: DataConfig) -> int:
    """The ignore label that is set, or else `IGNORE_LABEL`."""
    return IGNORE_LABEL if config.ignore_label is None else config.ignore_label


def find_classes(config: DataConfig, labels: Callable[[], tuple[Set[int], Set[int]]]) -> FoundClasses:
    """The classes that the settings name or count, or else those of the labels in the masks.

    config: as `resolve_forms` returns it. labels: the labels of the training masks, and of the masks of all splits
    as far as they were read; called if the masks must tell the classes, or the label map of two classes.
    """
    named, label_map = named_classes(config.colours or {}), config.label_map
    said = config.colours or label_map or config.mask_threshold is not None or config.ignore_label is not None
    if (config.num_classes or len(config.classes or ())) == 2 and not said:
        label_map = binary_map(labels()[0])
    if config.classes:
        return FoundClasses(config.classes, label_map)
    if config.num_classes in (None, len(named)) and len(named) > 1 and label_map is None:
        return FoundClasses(named)
    if config.num_classes:
        return FoundClasses(tuple(f"class_{label}" for label in range(config.num_classes)), label_map)
    if config.layout == "generated":
        return FoundClasses(_generated_classes(config), label_map)
    free = label_map is None and config.ignore_label is None
    found = classes_of(*labels(), str(config.root), label_map, ignored_label(config), may_be_binary=free)
    return found._replace(label_map=found.label_map or label_map)


def described(config: DataConfig, found: FoundClasses) -> ResolvedDataConfig:
    """`config`, as `resolve_forms` returns it, with its classes and without normalisation."""
    mean, std = unscaled(config.channels or 3)
    known = {
        "classes": found.classes,
        "num_classes": len(found.classes),
        "label_map": found.label_map,
        "ignore_label": ignored_label(config),
        "mean": mean,
        "std": std,
    }
    # not validated, since a check of data continues with one class
    return ResolvedDataConfig.model_construct(**{**dict(config), **known})


def unscaled(channels: int) -> tuple[Rgb, Rgb]:
    """Mean and standard deviation that normalise nothing."""
    return (0.0,) * channels, (1.0,) * channels


def normalised(
    data: ResolvedDataConfig, given: DataConfig, training: Callable[[], SegmentationDataset]
) -> ResolvedDataConfig:
    """`data` with the `mean` and `std` that are `given`, or else those of ImageNet or of the images of `training`.

    Raises: DataError: ImageNet's are set, but there are not three channels; or an image that cannot be used.
    """
    if given.mean and given.std:
        mean, std = given.mean, given.std
    elif data.normalise == "imagenet" or (
        data.normalise is None and data.channels == 3 and data.pixel_type != "float32"
    ):
        mean, std = given.mean or IMAGENET_MEAN, given.std or IMAGENET_STD
    else:
        found = channel_statistics(training())
        rounded = [tuple(float(f"{value:.6g}") for value in values) for values in found]
        mean, std = given.mean or rounded[0], given.std or rounded[1]
    if not len(mean) == len(std) == data.channels:
        raise DataError(
            f"the images have {counted(data.channels, 'channel')}, but there are {counted(len(mean), 'mean')}"
            f" and {counted(len(std), 'standard deviation')}; correct data.mean and data.std, or set"
            " data.normalise: data",
            code="mean-count-differs",
        )
    return data.model_copy(update={"mean": mean, "std": std})


def _generated_classes(config: DataConfig) -> tuple[str, ...]:
    if not config.label_map:
        return CLASSES
    used = {config.label_map.get(label, label) for label in range(len(CLASSES))} - {ignored_label(config)}
    return tuple(f"class_{label}" for label in range(max(used, default=0) + 1))
