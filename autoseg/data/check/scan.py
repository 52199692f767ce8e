"""Reading all of a data set, whatever is wrong with it, and filling in its settings from what was read.

`resolving` does the second for a run, and ends at the first thing that is wrong; here it becomes a problem of a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autoseg.config.data import DataConfig
from autoseg.data.check.inspection import Fault, PairFacts, inspect_pair
from autoseg.data.check.problems import NEEDED, Problem
from autoseg.data.check.summary import ClassCounter, Scan
from autoseg.data.dataset import folder_dataset
from autoseg.data.discovery.folder_layouts import checked_root
from autoseg.data.discovery.infer_classes import MOST_IN_A_MASK, binary_map, classes_of
from autoseg.data.discovery.pairs import BadFiles, Pair, list_pairs, within
from autoseg.data.io.colour_tables import Colour, mask_table, named_classes
from autoseg.data.io.images import first_in_colour
from autoseg.data.loading.threads import Progress, in_threads
from autoseg.data.resolve import (
    colours_beside,
    may_be_binary,
    resolve_classes,
    resolve_layout,
    resolve_normalisation,
    resolve_pixels,
    resolve_threshold,
)
from autoseg.data.wording import counted
from autoseg.errors import DataError

MOST_COLOURS = 256
"""Of colour-coded masks without a table: where there are more, none is made."""

Pairs = Mapping[str, Sequence[Pair]]
Facts = dict[str, list[PairFacts]]


def scan_dataset(config: DataConfig, split: str | None, progress: Progress | None) -> tuple[Scan, list[Problem]]:
    """A data set, or one split of it, and what is wrong with it as a whole; `Scan.config` is filled in.

    `progress(done, total)` is called after each pair. Raises: DataError: a folder that cannot be understood at all.
    """
    root = checked_root(config.root or "")
    config = resolve_layout(config.model_copy(update={"root": str(root)}), root)
    pairs, left_out, problems = _list(config, split)
    first = pairs.get("train") or next(iter(pairs.values()))
    config = _resolve_colours(config, [pair for listed in pairs.values() for pair in listed], problems)
    config = resolve_pixels(resolve_threshold(config, first), [image for _, image, _ in first])
    facts = _inspect(config, pairs, progress)
    config = _resolve_classes(config, pairs, facts, problems)
    scan = Scan(config, pairs, facts, left_out)
    usable = _usable(scan, "train")
    if usable:
        try:
            config = resolve_normalisation(config, lambda: folder_dataset(config, usable, cache_bytes=0))
        except DataError as reason:
            problems.append(Problem("layout", "train", "", str(reason), stops=True))
    return scan._replace(config=config), problems


def _usable(scan: Scan, split: str) -> list[Pair]:
    counter = ClassCounter(scan)
    both = zip(scan.pairs.get(split, ()), scan.facts.get(split, ()), strict=True)
    return [pair for pair, facts in both if not facts.faults and not counter.illegal(facts).size]


# --- the steps --------------------------------------------------------------------------------------------------------


def _list(config: DataConfig, split: str | None) -> tuple[Pairs, dict[str, list[tuple[str, str]]], list[Problem]]:
    """The pairs of each split, what has none, and what is wrong with whole splits."""
    root, splits = Path(config.root or ""), config.splits or {}
    if split is not None and split not in splits:
        raise DataError(
            f"{root} has no split '{split}'; it has {', '.join(splits)} (set others with data.splits)",
            code="unknown-split",
        )
    pairs: dict[str, list[Pair]] = {}
    left_out: dict[str, list[tuple[str, str]]] = {}
    problems: list[Problem] = []
    errors: list[DataError] = []
    seen: set[tuple[str, str]] = set()  # two parts of one folder have the same images without masks
    for name in splits if split is None else (split,):
        place, bad = splits[name], BadFiles(skip=True)
        try:
            pairs[name] = list_pairs(root, name, place, bad, config.val_share, config.split_seed)
        except DataError as reason:
            errors.append(bad.first or reason)
            stops = name in NEEDED or split is not None
            problems.append(Problem("layout", name, place.list or place.images or "", str(errors[-1]), stops))
        left_out[name] = [one for one in bad.left_out if one not in seen]
        seen.update(bad.left_out)
    if not pairs:
        raise errors[0]
    for name in NEEDED if split is None else ():
        if name not in splits:
            text = f"{root} has no split '{name}', which a run needs; it has {', '.join(splits)}; set data.splits"
            problems.append(Problem("layout", name, "", text, stops=True))
    return pairs, left_out, problems


def _inspect(config: DataConfig, pairs: Pairs, progress: Progress | None) -> Facts:
    """What is in the files; a few at a time are in memory."""
    table = mask_table(config.colours, config.mask_threshold, config.ignore_label)
    channels, pixel_type = config.channels or 3, config.pixel_type or "uint8"
    places = [(split, index) for split, listed in pairs.items() for index in range(len(listed))]
    found: dict[tuple[str, int], PairFacts] = {}

    def look(number: int) -> None:
        split, index = places[number]
        found[split, index] = inspect_pair(pairs[split][index], table, channels, pixel_type)

    in_threads(look, len(places), progress)
    return {split: [found[split, index] for index in range(len(listed))] for split, listed in pairs.items()}


def _resolve_colours(config: DataConfig, pairs: Sequence[Pair], problems: list[Problem]) -> DataConfig:
    """With the colours of a table beside the data, or else those of the masks, under names to be replaced."""
    first = first_in_colour(mask for _, _, mask in pairs)
    if config.colours is not None or first is None:
        return config
    if table := colours_beside(config):
        return config.model_copy(update={"colours": table})
    colours = _colours_of([mask for _, _, mask in pairs])
    if colours is None:  # each mask says so
        return config
    own = config.classes if len(config.classes or ()) == len(colours) else None
    names = own or tuple(f"class_{number}" for number in range(len(colours)))
    name = within(Path(config.root or ""), first)
    text = (
        f"{name} and other masks are in {counted(len(colours), 'colour')}, and nothing says which class each is; set"
        " data.colours, as proposed, with names of your own"
    )
    problems.append(Problem("layout", "train", name, text, stops=True))
    return config.model_copy(update={"colours": dict(zip(names, colours, strict=True))})


def _colours_of(masks: Sequence[Path]) -> list[Colour] | None:
    """The colours of masks, the commonest first; None where there are too many. What cannot be read has none."""
    found: dict[int, Any] = {}  # pixels and colour of each, or None where there are many

    def look(index: int) -> None:
        try:
            with Image.open(masks[index]) as image:
                found[index] = image.convert("RGB").getcolors(MOST_COLOURS)
        except Exception:  # of many kinds; it is said when the mask is read
            found[index] = []

    in_threads(look, len(masks))
    totals: Counter[Colour] = Counter()
    for index in range(len(masks)):
        for pixels, colour in found[index] or ():
            totals[colour] += pixels
    too_many = sum(colours is None for colours in found.values())
    if len(totals) > MOST_COLOURS or 2 * too_many > len(masks):
        return None
    return [colour for colour, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))]


def _resolve_classes(config: DataConfig, pairs: Pairs, facts: Facts, problems: list[Problem]) -> DataConfig:
    """With `classes`, `num_classes`, `ignore_label`, and a label map where the masks need one, by `labels`' rules."""
    named = len(named_classes(config.colours or {})) > 1 and config.label_map is None
    of_training = _labels_in(facts.get("train") or [one for found in facts.values() for one in found])
    if may_be_binary(config):
        config = config.model_copy(update={"label_map": binary_map(of_training)})
    if config.classes or config.num_classes or named:
        return resolve_classes(config, [])
    _mark_photos(pairs, facts)
    of_training = _labels_in(facts.get("train") or [one for found in facts.values() for one in found])
    everywhere = _labels_in([one for found in facts.values() for one in found])
    found = classes_of(of_training, str(config.root), config.label_map, config.ignore_label, everywhere)
    if found.problem and of_training:  # where there is none, each mask has a problem of its own
        problems.append(Problem("layout", "train", "", found.problem, stops=True))
    changes = {"classes": found.classes, "label_map": found.label_map or config.label_map}
    return resolve_classes(config.model_copy(update=changes), [])


def _labels_in(facts: Sequence[PairFacts]) -> set[int]:
    """All labels of masks that can be used."""
    fine = [one.labels for one in facts if not any(fault.kind in ("unreadable", "label") for fault in one.faults)]
    return set(np.unique(np.concatenate(fine)).tolist()) if fine else set()


def _mark_photos(pairs: Pairs, facts: Facts) -> None:
    """Give masks of more labels than a mask has a fault."""
    for split, found in facts.items():
        for index, one in enumerate(found):
            if one.labels.size > MOST_IN_A_MASK:
                mask = pairs[split][index][2]
                text = f"{mask} has {one.labels.size} different labels, as an image would; are images and masks in"
                fault = Fault("label", mask, f"{text} swapped folders? If not, set data.num_classes")
                found[index] = one._replace(faults=(*one.faults, fault))
