"""The steps by which a `DataConfig` is filled in: its layout, its classes, the form of its images, their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from autoseg.config.data import IMAGENET_MEAN, IMAGENET_STD, DataConfig
from autoseg.data.base import SegmentationDataset
from autoseg.data.discovery.folder_layouts import FoundLayout, with_validation
from autoseg.data.discovery.infer_classes import binary_map, find_classes, labels_in
from autoseg.data.discovery.known_datasets import find_layout, known_label_maps
from autoseg.data.discovery.pairs import Pair
from autoseg.data.generated import CLASSES
from autoseg.data.io.colour_tables import Colour, mask_table, named_classes, table_beside
from autoseg.data.io.images import FIRST_FILES, are_black_and_white, first_in_colour, image_format
from autoseg.data.statistics import channel_statistics
from autoseg.data.wording import counted
from autoseg.errors import DataError

MIDDLE = 128
"""Of the shades of grey."""


def resolve_layout(config: DataConfig, root: Path) -> DataConfig:
    """With `layout`, `splits`, `root`, and what a known layout says of labels, classes and colours.

    Where the user's classes are of another number than the layout's, its labels are taken as they are.
    Raises: DataError: no layout that is known, or not the one that is named.
    """
    if config.splits and config.layout in ("auto", "folder", "list"):
        found = FoundLayout("folder" if config.layout == "auto" else config.layout, config.splits)
    else:
        root, found = find_layout(root, config.layout)
    splits = config.splits or with_validation(found.splits)
    changes: dict[str, Any] = {"layout": found.name, "root": str(root), "splits": splits}
    own = config.num_classes or len(config.classes or ())
    # a label map that a layout gave to another folder does not hold for this one
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


def resolve_classes(config: DataConfig, pairs: Sequence[Pair]) -> DataConfig:
    """With `classes`, `num_classes`, `ignore_label`, and the colours of a table that lies beside the data.

    Raises: DataError: masks that cannot be read, or fewer than two classes.
    """
    if config.layout == "generated":
        return _with_classes(config, _generated_classes(config))
    if config.colours is None and config.root and first_in_colour(mask for _, _, mask in pairs):
        config = config.model_copy(update={"colours": colours_beside(config)})
    config = resolve_threshold(config, pairs)
    named = named_classes(config.colours or {})
    table = mask_table(config.colours, config.mask_threshold, config.ignore_label)
    skip = config.on_bad_file == "skip"
    if may_be_binary(config):
        config = config.model_copy(update={"label_map": binary_map(labels_in(pairs, table, skip))})
    if config.classes:
        return _with_classes(config, config.classes)
    if config.num_classes in (None, len(named)) and len(named) > 1 and config.label_map is None:
        return _with_classes(config, named)
    if config.num_classes:
        return _with_classes(config, tuple(f"class_{label}" for label in range(config.num_classes)))
    found = find_classes(pairs, str(config.root), config.label_map, config.ignore_label, table, skip)
    return _with_classes(config, found.classes, found.label_map)


def resolve_threshold(config: DataConfig, pairs: Sequence[Pair]) -> DataConfig:
    """With `mask_threshold`, where nothing says of which classes masks are, and the first are black and white."""
    said = config.colours or config.label_map or config.mask_threshold is not None
    if said or (config.num_classes or len(config.classes or ())) not in (0, 2):
        return config
    if not are_black_and_white([mask for _, _, mask in islice(pairs, FIRST_FILES)]):
        return config
    return config.model_copy(update={"mask_threshold": MIDDLE})


def colours_beside(config: DataConfig) -> dict[str | int, Colour] | None:
    """Those of a table in the data set's folder, the one that it is in, or one of masks."""
    root = Path(config.root or "")
    masks = [root / split.masks for split in (config.splits or {}).values() if split.masks and "*" not in split.masks]
    return table_beside(root, root.parent, *dict.fromkeys(masks))


def may_be_binary(config: DataConfig) -> bool:
    """Whether two classes are named and 255 may be the second, as far as the settings say."""
    two = (config.num_classes or len(config.classes or ())) == 2
    said = config.colours or config.label_map or config.mask_threshold is not None or config.ignore_label is not None
    return two and not said


def resolve_pixels(config: DataConfig, images: Sequence[Path]) -> DataConfig:
    """With `channels` and `pixel_type`: those of the first image that can be read."""
    if config.channels and config.pixel_type:
        return config
    channels, pixel_type = 3, "uint8"
    for path in islice(images, FIRST_FILES):
        try:
            channels, pixel_type = image_format(path)
            break
        except DataError:  # it is said when the image is read
            continue
    return config.model_copy(
        update={"channels": config.channels or channels, "pixel_type": config.pixel_type or pixel_type}
    )


def resolve_normalisation(config: DataConfig, training: Callable[[], SegmentationDataset]) -> DataConfig:
    """With `mean` and `std`: ImageNet's, or those of the images of `training`, which is called where they are needed.

    Raises: DataError: ImageNet's are asked for, but there are not three channels; or an image that cannot be used.
    """
    if config.mean and config.std:
        mean, std = config.mean, config.std
    elif config.normalise == "imagenet" or (
        config.normalise is None and config.channels == 3 and config.pixel_type != "float32"
    ):
        mean, std = config.mean or IMAGENET_MEAN, config.std or IMAGENET_STD
    else:
        found = channel_statistics(training())
        rounded = [tuple(float(f"{value:.6g}") for value in values) for values in found]
        mean, std = config.mean or rounded[0], config.std or rounded[1]
    if not len(mean) == len(std) == config.channels:
        raise DataError(
            f"the images have {counted(config.channels or 3, 'channel')}, but there are {counted(len(mean), 'mean')}"
            f" and {counted(len(std), 'standard deviation')}; correct data.mean and data.std, or set"
            " data.normalise: data",
            code="mean-count-differs",
        )
    return config.model_copy(update={"mean": mean, "std": std})


def _with_classes(config: DataConfig, classes: tuple[str, ...], label_map: dict[int, int] | None = None) -> DataConfig:
    return config.model_copy(
        update={
            "classes": classes,
            "num_classes": len(classes),
            "label_map": label_map or config.label_map,
            "ignore_label": 255 if config.ignore_label is None else config.ignore_label,
        }
    )


def _generated_classes(config: DataConfig) -> tuple[str, ...]:
    if config.classes:
        return config.classes
    if config.num_classes:
        return tuple(f"class_{label}" for label in range(config.num_classes))
    if not config.label_map:
        return CLASSES
    ignored = 255 if config.ignore_label is None else config.ignore_label
    used = {config.label_map.get(label, label) for label in range(len(CLASSES))} - {ignored}
    return tuple(f"class_{label}" for label in range(max(used, default=0) + 1))
