"""The steps that fill in a `DataConfig`: layout, classes, form of the images, normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from autoseg.config.data import ANNOTATIONS, IMAGENET_MEAN, IMAGENET_STD, DataConfig, ResolvedDataConfig, Rgb
from autoseg.data.annotations.layout import layout_of, unread_folders
from autoseg.data.annotations.masks import annotations_in
from autoseg.data.base import SegmentationDataset
from autoseg.data.decide import (
    Decided,
    decide_classes,
    ignored_label,
    image_form,
    is_of_known,
    mask_form,
    orientation,
    palette,
    seen_labels,
)
from autoseg.data.discovery.channels import with_channel_files
from autoseg.data.discovery.folder_layouts import FoundLayout, with_validation
from autoseg.data.discovery.known_datasets import find_layout, known_label_maps, title_of
from autoseg.data.discovery.pairs import checked_root
from autoseg.data.generated import CLASSES
from autoseg.data.groups import grouping, shared_images
from autoseg.data.look import PairLook
from autoseg.data.statistics import channel_statistics
from autoseg.data.wording import counted
from autoseg.errors import DataError

FEW_IMAGES = 16
"""Number of images that tell whether ImageNet's mean and deviation describe a data set."""
MOST_FACTOR = 2.0
"""Largest factor between a channel's deviation and ImageNet's."""


class Placed(NamedTuple):
    """Settings with the places of the files."""

    config: DataConfig
    known: bool
    """Whether the classes are those of the layout."""
    sure: bool = False
    """Whether they need no proof by the labels."""
    said: tuple[str, ...] = ()
    """What to say of the layout, a line each."""


def resolve_layout(config: DataConfig) -> Placed:
    """`config` with `layout`, `splits`, `root`, and the labels, classes and colours of a known layout.

    If the user has another number of classes than the layout, or a label map, the layout's labels are not used. The
    user's classes are found in annotations by their names.
    Raises: DataError: no such folder, no known layout, or not the one that is named.
    """
    root = checked_root(config.root or "")
    if config.splits and config.layout in ("auto", "folder", "list"):
        found = FoundLayout("folder" if config.layout == "auto" else config.layout, config.splits)
    else:
        root, found = find_layout(root, config.layout)
        by_name = found.name in ANNOTATIONS and config.classes and config.label_map is None
        if by_name and (painted := annotations_in(root, found.name)):
            found = layout_of(painted, config.classes)
    splits, said = config.splits or with_validation(found.splits), found.said
    if not config.splits:
        splits, lines = with_channel_files(root, splits)
        said += (*lines, *(unread_folders(root, splits) if found.name == "folder" else ()))
    changes: dict[str, Any] = {"layout": found.name, "root": str(root), "splits": splits}
    own = config.num_classes or len(config.classes or ())
    # a label map that a known layout set for another folder does not apply to this one
    foreign = found.label_map is not None and config.label_map in known_label_maps()
    known = own in (0, len(found.classes or ())) and (config.label_map is None or foreign)
    if known:
        ignore = changes["ignore_label"] = found.ignore_label if config.ignore_label is None else config.ignore_label
        own_ignored = {}
        if found.label_map and ignore is not None and ignore < len(found.classes or ()):  # the number of a class
            own_ignored = {ignore: found.ignore_label}
            changes["ignore_label"] = ignore = found.ignore_label
        if found.label_map is not None:
            renamed = {source: ignore if target == found.ignore_label else target
                       for source, target in found.label_map.items()}  # fmt: skip
            changes["label_map"] = (renamed | own_ignored) or None
        if not config.classes:
            changes["classes"] = found.classes
    if config.label_map is None or config.label_names is None:
        changes["label_names"] = found.label_names
    if config.colours is None:
        changes["colours"] = None if found.colours is None else dict(found.colours)
    sure = found.sure or config.layout != "auto" or found.name in ANNOTATIONS
    return Placed(config.model_copy(update=changes), known and found.classes is not None, sure, said)


def decided(
    given: DataConfig, placed: Placed, looks: Sequence[PairLook]
) -> tuple[DataConfig, list[str], list[DataError]]:
    """The settings with all that the files decide but the normalisation; what to say, a line each; and the errors.

    given: the user's settings. placed: as `resolve_layout` returns them. Where the files leave something open,
    there is an error, and the setting stays as it is. Raises: ConfigError: `group_by` does not fit the images.
    """
    said = [*_places_said(placed.config), *placed.said]
    errors: list[DataError] = []

    def decide(
        config: DataConfig, decision: Callable[[DataConfig, Sequence[Any]], Decided], seen: Sequence[Any]
    ) -> DataConfig:
        try:
            settings, lines = decision(config, seen)
        except DataError as reason:
            errors.append(reason)
            return config
        said.extend(lines)
        return config.model_copy(update=settings)

    config, known = placed.config, placed.known
    if known and not placed.sure and not is_of_known(config, [seen_labels(config, look) for look in looks]):
        said.append(
            f"the folders are those of {title_of(config.layout)}, but not the labels: taken as a data set of your own"
            f" (data.layout: {config.layout} if it is that one)"
        )
        known, own = False, {"layout": "folder", "root": config.root, "splits": config.splits}
        config = given.model_copy(update=own)
    config = decide(config, mask_form, looks)
    masks = [seen_labels(config, look) for look in looks]
    if known:
        number = len(config.classes or ())
        config = config.model_copy(update={"num_classes": number})
        said.append(f"{number} classes of {title_of(config.layout)}, ignore label {ignored_label(config)}")
    elif any(mask.error is None for mask in masks):
        config = decide(config, decide_classes, masks)
    for decision in (image_form, orientation, palette, shared_images, grouping):
        config = decide(config, decision, looks)
    return config, said, errors


def _places_said(config: DataConfig) -> list[str]:
    """Where the images and masks of each split are, in one line; none for annotations, which say it themselves."""
    places = [
        f"{split}: {place.list or f'{place.images} with {place.masks}'}"
        for split, place in (config.splits or {}).items()
        if not place.annotations
    ]
    return ["; ".join(places)] if places else []


def described(config: DataConfig) -> ResolvedDataConfig:
    """`config` as resolved, without normalisation; usual values where nothing could be decided."""
    mean, std = unscaled(config.channels or 3)
    usual = {
        "classes": config.classes or ("class_0",),
        "num_classes": len(config.classes or ("class_0",)),
        "ignore_label": ignored_label(config),
        "channels": config.channels or 3,
        "pixel_type": config.pixel_type or "uint8",
        "orientation": config.orientation or "upright",
    }
    # not validated, since a check of data continues with one class
    return ResolvedDataConfig.model_construct(**{**dict(config), **usual, "mean": mean, "std": std})


def unscaled(channels: int) -> tuple[Rgb, Rgb]:
    """Mean and standard deviation that normalise nothing."""
    return (0.0,) * channels, (1.0,) * channels


def _is_like_imagenet(dataset: SegmentationDataset) -> bool:
    """Whether each channel's mean is within ImageNet's deviation of its mean, and its deviation within a factor of 2.

    So are images that are flat, and those that cannot be read, which are reported elsewhere.
    """
    try:
        mean, std = channel_statistics(dataset, FEW_IMAGES)
    except DataError:
        return True
    near = all(abs(a - b) <= c for a, b, c in zip(mean, IMAGENET_MEAN, IMAGENET_STD, strict=True))
    alike = all(1 / MOST_FACTOR <= a / b <= MOST_FACTOR for a, b in zip(std, IMAGENET_STD, strict=True))
    return (near and alike) or all(value == 1 for value in std)


def normalised(
    data: ResolvedDataConfig,
    given: DataConfig,
    training: Callable[[], SegmentationDataset],
    say: Callable[[str], object] | None = None,
    before: ResolvedDataConfig | None = None,
) -> ResolvedDataConfig:
    """`data` with the `mean` and `std` that are `given`, or else those of ImageNet or of the images of `training`.

    say: is called with where they are from. before: the data that the first weights were trained on, whose `mean` and
    `std` these weights expect: they come first, if images of the same kind had them and the user has set nothing.
    Raises: DataError: ImageNet's are set, but there are not three channels; or an image that cannot be used.
    """
    mean, std = given.mean, given.std
    alike = before is not None and (before.channels, before.pixel_type) == (data.channels, data.pixel_type)
    if before is not None and alike and not (mean or std or data.normalise):
        mean, std = before.mean, before.std
        if say is not None:
            say("mean and deviation of the data that the weights were trained on")
    if not (mean and std):
        photos = data.channels == 3 and (data.pixel_type == "uint8" or data.layout == "generated")
        usual = data.normalise == "imagenet" or (data.normalise is None and photos)
        if usual and data.normalise is None and data.layout != "generated":
            usual = _is_like_imagenet(training())
        if say is not None:
            say(f"mean and deviation of {'ImageNet' if usual else 'the training images'}")
        if usual:
            found: tuple[Rgb, Rgb] = IMAGENET_MEAN, IMAGENET_STD
        else:
            exact = channel_statistics(training())
            found = tuple(tuple(float(f"{value:.6g}") for value in values) for values in exact)  # type: ignore[assignment]
        mean, std = mean or found[0], std or found[1]
    if not len(mean) == len(std) == data.channels:
        raise DataError(
            f"the images have {counted(data.channels, 'channel')}, but there are {counted(len(mean), 'mean')}"
            f" and {counted(len(std), 'standard deviation')}; correct data.mean and data.std, or set"
            " data.normalise: data",
            code="mean-count-differs",
        )
    return data.model_copy(update={"mean": mean, "std": std})


def generated_classes(config: DataConfig) -> tuple[str, ...]:
    """The classes of the generated set."""
    if config.classes:
        return config.classes
    if config.num_classes:
        return tuple(f"class_{label}" for label in range(config.num_classes))
    if not config.label_map:
        return CLASSES
    used = {config.label_map.get(label, label) for label in range(len(CLASSES))} - {ignored_label(config)}
    return tuple(f"class_{label}" for label in range(max(used, default=0) + 1))
