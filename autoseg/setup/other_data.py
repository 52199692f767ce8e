"""The data to evaluate a trained network on, with the network's classes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from autoseg.config.base import merge, parse
from autoseg.config.data import ANNOTATIONS, DataConfig, ResolvedDataConfig
from autoseg.data.base import NO_CLASS
from autoseg.data.dataset import resolve
from autoseg.data.discovery.channels import channel_words, in_order
from autoseg.data.discovery.label_names import has_names, plain_words
from autoseg.data.groups import OF_OTHER_DATA
from autoseg.data.wording import first_of
from autoseg.errors import ConfigError, DataError
from autoseg.setup.settings import Source, data_overrides, given_data

OF_MASKS = (
    "classes", "num_classes", "label_map", "label_names", "ignore_label", "colours", "mask_threshold", "orientation",
)  # fmt: skip
"""Settings that say how masks and images of one data set are read; another data set has its own."""

_log = logging.getLogger(__name__)


def data_for_run(
    own: ResolvedDataConfig,
    data: Source | None,
    overrides: Mapping[str, Any] | None = None,
    say: Callable[[str], object] | None = None,
) -> ResolvedDataConfig:
    """The data to evaluate a trained network on: its run's own, as changed by `data` and `overrides`.

    Another data set keeps the network's size and normalisation, and its classes are matched with the network's by their
    names. If one of the two has no names, its labels count as the network's. The run's groups stay if they fit, so that
    the training data in another place is split as it was. `say`: is called with each decision on the data; by default,
    they go to the log.
    Raises: ConfigError: classes or channels that the network does not have. DataError: the data cannot be used.
    """
    say = say or _log.info
    changes = data_overrides(overrides)
    given: Mapping[str, Any] = {} if data is None else given_data(data)
    said = {**given, **changes}
    try:
        return in_own_order(own, _merged(own, given, changes, is_given=data is not None, say=say), say)
    except ConfigError as reason:
        if "root" not in said or "group_by" in said or reason.code not in OF_OTHER_DATA:
            raise
        say(f"data: the run's data.group_by {own.group_by} does not fit this data, and is left out")
    other = _merged(own.model_copy(update={"group_by": None}), given, changes, is_given=data is not None, say=say)
    return in_own_order(own, other, say)


def in_own_order(
    own: ResolvedDataConfig, other: ResolvedDataConfig, say: Callable[[str], object]
) -> ResolvedDataConfig:
    """`other` with the channel files of its images in the order that a network was trained on.

    Where the names are others, a line says both orders. own: the data that the network was trained on.
    """
    words, theirs = channel_words(own), channel_words(other)
    if words == theirs:
        return other
    if sorted(words) == sorted(theirs):
        say(f"data: channels are read in the network's order: {', '.join(words)}")
        return other.model_copy(update={"splits": in_order(other, words)})
    shown = [", ".join(names) or f"those of one file, {own.channels}" for names in (words, theirs)]
    say(f"data: the network was trained on the channels {shown[0]}; the data has, in this order, {shown[1]}")
    return other


def _merged(
    own: ResolvedDataConfig,
    given: Mapping[str, Any],
    changes: Mapping[str, Any],
    *,
    is_given: bool,
    say: Callable[[str], object],
) -> ResolvedDataConfig:
    """As `data_for_run`, of the settings that `data` stands for and of `overrides`. is_given: there is `data`."""
    said = {**given, **changes}
    settings = own.to_dict()
    if "root" in said:
        settings |= _found_anew(own, said)
    if is_given:
        # another folder has its own splits, and another YAML may have its own classes
        settings = {**settings, "splits": None, **({"layout": "auto"} if "root" in given else {}), **given}
        if "classes" in given or "num_classes" in given:
            settings |= {key: given.get(key) for key in ("classes", "num_classes")}
    merged = merge(settings, changes)
    if "root" in changes:
        merged |= {"splits": changes.get("splits"), "layout": changes.get("layout", given.get("layout", "auto"))}
    if merged["channels"] not in (None, own.channels):
        raise ConfigError(
            f"data.channels is {merged['channels']}, but the network was trained on images of {own.channels};"
            " give images with as many channels",
            code="channels-differ",
        )
    if ("root" in said or "classes" in said) and (theirs := _on_its_own(merged, said)):
        if has_names(theirs.classes) and has_names(own.classes):
            return as_trained(own, theirs, say)
        whose = "its" if has_names(own.classes) else "the network's"
        say(f"data: {whose} classes have no names: labels count as they are")
    wanted = parse(DataConfig, merged, "data")
    resolved = resolve(wanted, say=say)
    labels_are_classes = own.label_map is None or own.layout in ANNOTATIONS
    if wanted.label_map is None and labels_are_classes and _is_renumbered(resolved):
        # other labels than those of the run are no classes of its network; reading a mask reports them
        resolved = resolve(wanted.model_copy(update={"label_map": {}}), say=_silent)
    if resolved.num_classes != own.num_classes:
        raise ConfigError(
            f"the data has {resolved.num_classes} classes, but the network was trained for {own.num_classes};"
            " give data with the same classes",
            code="classes-differ",
        )
    return resolved.model_copy(update={"classes": own.classes})


def _silent(line: str) -> None:
    """Says nothing."""


def _is_renumbered(data: ResolvedDataConfig) -> bool:
    """Whether masks of unknown layout hold other labels than 0, 1, ... for more than two classes."""
    targets = set((data.label_map or {}).values()) - {data.ignore_label}
    return data.layout in ("folder", "list") and data.num_classes > 2 and bool(targets)


def as_trained(
    own: ResolvedDataConfig, other: ResolvedDataConfig, say: Callable[[str], object] = _silent
) -> ResolvedDataConfig:
    """`other` with the classes, in their order, and the ignore label of `own`; names match but for case, `-` and `_`.

    Raises: ConfigError: `other` has a class that `own` lacks.
    """
    places = {plain_words(name): place for place, name in enumerate(own.classes)}
    strange = [repr(name) for name in other.classes if plain_words(name) not in places]
    if strange:
        raise ConfigError(
            f"the data has classes that the network does not know ({first_of(strange, 4)}); its classes are"
            f" {first_of(own.classes, 8)}; rename them with data.classes, or ignore"
            " them with data.label_map",
            code="classes-differ",
        )
    targets = {label: places[plain_words(name)] for label, name in enumerate(other.classes)}
    targets[other.ignore_label] = own.ignore_label
    stored = {**{label: label for label in targets}, **(other.label_map or {})}
    label_map = dict.fromkeys([*range(own.num_classes), own.ignore_label], NO_CLASS)  # what the other set lacks
    label_map |= {label: targets.get(used, used) for label, used in stored.items()}
    if targets != {label: label for label in range(len(other.classes))} | {other.ignore_label: other.ignore_label}:
        say(f"data: {len(other.classes)} classes are matched with the network's by their names")
    changed = {label: used for label, used in sorted(label_map.items()) if label != used}
    return other.model_copy(
        update={
            "classes": own.classes,
            "num_classes": own.num_classes,
            "ignore_label": own.ignore_label,
            "label_map": changed or None,
        }
    )


def _on_its_own(merged: Mapping[str, Any], said: Mapping[str, Any]) -> ResolvedDataConfig | None:
    """The data set by its own names and labels; None if they do not tell its classes."""
    settings = {**merged, **{key: said.get(key) for key in OF_MASKS}}
    try:
        return resolve(parse(DataConfig, settings, "data"), say=_silent)
    except DataError:
        return None


def _found_anew(own: ResolvedDataConfig, said: Collection[str]) -> dict[str, None]:
    """Settings to find again in another folder, except those that the user has set (`said`).

    These are how images are turned, the labels of annotations and, for two-class masks, what their labels mean: in
    masks of 0 and 1, 255 is the ignore label; in masks of 0 and 255 it is a class.
    """
    if own.layout in ANNOTATIONS:  # painted masks number the names of each folder
        return dict.fromkeys({"orientation", "label_map", "label_names", "ignore_label"} - {*said})
    found = own.num_classes == 2 and own.colours is None and own.ignore_label == 255
    if not found or own.label_map not in (None, {255: 1}) or "colours" in said:
        return dict.fromkeys({"orientation"} - {*said})
    return dict.fromkeys({"orientation", "label_map", "ignore_label", "mask_threshold"} - {*said})
