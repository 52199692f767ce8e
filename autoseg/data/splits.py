"""The pairs of images and masks of a split, from folders, lists or annotations."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from autoseg.config.data import DataConfig
from autoseg.data.annotations.masks import annotations_in
from autoseg.data.discovery.label_names import plain_name, plain_words
from autoseg.data.discovery.pairs import BadFiles, Pair, checked_root, leave_out, pairs_of, split_config, within
from autoseg.data.groups import groups_of, refuse_one_group
from autoseg.data.loading.splits import nearest_share
from autoseg.errors import DataError
from autoseg.files import shell_quoted


def list_pairs(config: DataConfig, split: str, bad: BadFiles = None) -> list[Pair]:
    """Every image of a split with its mask, in the order of its list or else of its names. Masks alone are left out.

    A split with a `part` gets its share by `val_share` and `split_seed`. `bad` gets the images without a pair.
    Raises: DataError: no such split, a missing folder or file, no images; and unless there is `bad`, an image without a
    mask, or a name that comes twice.
    """
    root, place = checked_root(config.root or ""), split_config(config, split)
    pairs = _annotated(root, config, place.annotations, bad) if place.annotations else pairs_of(config, split, bad)
    unique: dict[str, Pair] = {}
    for pair in pairs:
        if pair[0] in unique:
            image = f"{within(root, pair[1])} of split '{split}' in {root}"
            leave_out(bad, pair[0], DataError(f"{image} comes twice; remove one", code="image-twice"))
        unique.setdefault(pair[0], pair)
    if not unique:
        where = root / (place.list or place.images or "")
        raise DataError(
            f"{where} has no image with a mask; see `autoseg check-data {shell_quoted(root)}`",
            code="no-image-with-mask",
        )
    if place.part is None:
        return list(unique.values())
    return _part(list(unique.values()), place.part, config, root)


def _annotated(root: Path, config: DataConfig, split: str, bad: BadFiles) -> list[Pair]:
    """The images of a split of annotations, with their painted masks."""
    painted = annotations_in(root, config.layout)
    if painted is None or split not in painted.images:
        raise DataError(
            f"{root} no longer has annotations of {config.layout} for the split '{split}'; restore them",
            code="annotations-missing",
        )
    _check_names(root, config, painted.names)
    pairs = []
    for pair in painted.images[split]:
        if pair[2] in painted.faults:
            leave_out(bad, pair[0], painted.faults[pair[2]])
        else:
            pairs.append(pair)
    return pairs


def _check_names(root: Path, config: DataConfig, names: Sequence[str]) -> None:
    """Check that `label_map` still fits the names of annotations: one more or one fewer shifts the labels of others.

    Raises: DataError: another name than in `label_names`, a label of another class than its name says, or a name that
    the map lacks.
    """
    if config.classes is None or config.label_map is None:
        return
    places = {plain_words(name): place for place, name in enumerate(config.classes)}
    before = [plain_name(name) for name in config.label_names or names]
    for label, name in enumerate(map(plain_name, names), start=1):
        place, target = places.get(plain_words(name)), config.label_map.get(label)
        is_new = (place is None and target is None) or before[label - 1 : label] != [name]
        if is_new or (place is not None and place != (label if target is None else target)):
            raise DataError(
                f"the class names of the annotations in {root} no longer fit data.label_map, first"
                f" {name!r} (label {label}); restore the annotations, or start from them anew without"
                " data.label_map",
                code="names-changed",
            )


def _part(pairs: list[Pair], part: str, config: DataConfig, root: Path) -> list[Pair]:
    """The pairs of the part `train` or `val`, by a hash of their names, so that new images move few others.

    A single image belongs to `train`. With `group_by`, the names of groups are hashed, and no group is in
    both parts.
    Raises: DataError: no image is left for validation. ConfigError: as `groups_of`; or all images are one group.
    """
    wanted = round(config.val_share * len(pairs)) or 1
    groups = [name for name, _, _ in pairs] if config.group_by is None else groups_of(config, pairs)
    sizes = Counter(groups)
    ranked = sorted(sizes, key=lambda name: hashlib.sha256(os.fsencode(f"{config.split_seed} {name}")).digest())
    if config.group_by is not None:
        refuse_one_group(config, pairs, groups)
        of_val = {ranked[index] for index in nearest_share([sizes[group] for group in ranked], wanted)}
    elif len(pairs) == 1 and part == "val":
        raise DataError(
            f"{root} has too few images with masks (1) to split them for training and validation; add images",
            code="too-few-images",
        )
    else:
        of_val = {*ranked[: min(wanted, len(pairs) - 1)]}
    return [pair for pair, group in zip(pairs, groups, strict=True) if (group in of_val) == (part == "val")]
