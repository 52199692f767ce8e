"""Reading all of a data set, whatever is wrong with it, and filling in its settings from what was read.

The settings are filled in by the functions that a run calls (`data.resolve`). A run ends at the first thing that is
wrong; here it becomes a problem of a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from autoseg.config.data import DataConfig, SplitConfig
from autoseg.data.check.inspection import Fault, PairFacts, inspect_pair
from autoseg.data.check.problems import NEEDED, Problem, shortened
from autoseg.data.check.summary import ClassCounter, Scan
from autoseg.data.dataset import FolderDataset
from autoseg.data.discovery.infer_classes import check_mask_like
from autoseg.data.discovery.pairs import Pair, list_pairs, split_config, within
from autoseg.data.io.colour_tables import Colour
from autoseg.data.io.images import first_in_colour
from autoseg.data.loading.threads import Progress, in_threads
from autoseg.data.resolve import described, find_classes, mask_table_of, normalised, resolve_forms, resolve_layout
from autoseg.data.wording import counted
from autoseg.errors import DataError

Pairs: TypeAlias = dict[str, list[Pair]]

MOST_COLOURS = 256
"""Largest number of colours in masks for which a table is proposed."""


def scan_dataset(given: DataConfig, split: str | None, progress: Progress | None) -> tuple[Scan, list[Problem]]:
    """Read a data set, or one of its splits; also return the problems of the data set as a whole.

    `progress(done, total)` is called after each pair. Raises: DataError: a folder of no known layout.
    """
    config = resolve_layout(given)
    splits = config.splits or {} if split is None else {split: split_config(config, split)}
    stopping = {name for name in splits if config.on_bad_file == "fail" and (name in NEEDED or len(splits) == 1)}
    pairs, problems = _list(config, splits, stopping)
    for name in (name for name in NEEDED if split is None and name not in splits):
        text = f"{config.root} has no split '{name}', which a run needs; it has {', '.join(splits)}; set data.splits"
        problems.append(Problem("layout", name, "", text, stops=True))
    first = pairs.get("train") or next(iter(pairs.values()))
    places = [(name, pair) for name, listed in pairs.items() for pair in listed]
    config = resolve_forms(config, first)
    config = _propose_colours(config, [mask for _, (_, _, mask) in places], problems)
    table = mask_table_of(config)
    # only a few pairs are in memory at a time
    facts = in_threads(lambda index: inspect_pair(*places[index], table, config), len(places), progress)
    found = find_classes(config, lambda: _labels(facts))
    if found.error and _labels(facts)[0]:  # without labels, each mask has its own problem
        problems.append(Problem("layout", "train", "", str(found.error), stops=True))
    data = described(config, found)
    counter = ClassCounter(data)
    usable = [one.pair for one in facts if one.split == "train" and counter.is_usable(one)]
    if usable:
        try:
            data = normalised(data, config, lambda: FolderDataset(data, usable, cache_bytes=0))
        except DataError as reason:
            problems.append(Problem("layout", "train", "", str(reason), stops=True))
    return Scan(data, facts, stopping), problems


# --- the steps --------------------------------------------------------------------------------------------------------


def _list(config: DataConfig, splits: Mapping[str, SplitConfig], stopping: Set[str]) -> tuple[Pairs, list[Problem]]:
    """The pairs of each split, and the problems of whole splits and of images without a pair.

    stopping: the splits in which a bad file ends a run. Raises: DataError: no split has pairs.
    """
    pairs: Pairs = {}
    problems: list[Problem] = []
    errors: list[DataError] = []
    seen: set[tuple[str, str]] = set()  # two parts of one folder report the same images
    for name, place in splits.items():
        bad: list[tuple[str, DataError]] = []
        try:
            pairs[name] = list_pairs(config, name, bad)
        except DataError as reason:
            errors.append(bad[0][1] if bad else reason)
            stops = name in NEEDED or len(splits) == 1
            problems.append(Problem("layout", name, place.list or place.images or "", str(errors[-1]), stops))
        unpaired = [(stem, shortened(str(reason), config)) for stem, reason in bad]
        problems += [Problem("pairing", name, *one, name in stopping) for one in unpaired if one not in seen]
        seen.update(unpaired)
    if not pairs:
        raise errors[0]
    return pairs, problems


def _propose_colours(config: DataConfig, masks: Sequence[Path], problems: list[Problem]) -> DataConfig:
    """`config` with the colours of the masks under made-up names, if masks are in colour and no table names them."""
    first = first_in_colour(masks)
    if config.colours is not None or first is None:
        return config
    colours = _colours_of(masks)
    if colours is None:  # each mask has its own problem
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
    """The colours of all masks that can be read, the commonest first; None if there are too many."""

    def colours_of(index: int) -> list[tuple[int, Any]] | None:
        """(pixels, colour) of each colour; None if there are many."""
        try:
            with Image.open(masks[index]) as image:
                return image.convert("RGB").getcolors(MOST_COLOURS)
        except Exception:  # Pillow raises many kinds; `read_mask` reports it
            return []

    found = in_threads(colours_of, len(masks))
    totals: Counter[Colour] = Counter()
    for colours in found:
        for pixels, colour in colours or ():
            totals[colour] += pixels
    if len(totals) > MOST_COLOURS or 2 * found.count(None) > len(masks):
        return None
    return [colour for colour, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))]


def _labels(facts: list[PairFacts]) -> tuple[set[int], set[int]]:
    """The labels of the training masks, and of all, that can be used. A mask of too many labels gets a fault."""
    for index, one in enumerate(facts):
        try:
            check_mask_like(one.pair[2], one.labels)
        except DataError as reason:
            if not any(fault.kind == "label" for fault in one.faults):
                fault = Fault("label", one.pair[2], str(reason))
                facts[index] = one._replace(faults=(*one.faults, fault))
    has_training = any(one.split == "train" for one in facts)
    training, everywhere = set[int](), set[int]()
    for one in facts:
        if not any(fault.kind in ("unreadable", "label") for fault in one.faults):
            everywhere.update(one.labels.tolist())
            if one.split == "train" or not has_training:
                training.update(one.labels.tolist())
    return training, everywhere
