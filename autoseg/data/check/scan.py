"""Reading all of a data set, whatever is wrong with it, and filling in its settings from what was read.

The settings are filled in by the functions that a run calls (`data.resolve`). A run ends at the first thing that is
wrong; here it becomes a problem of a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from itertools import count
from pathlib import Path
from typing import TypeAlias

from autoseg.config.data import DataConfig, SplitConfig
from autoseg.data.check.inspection import inspect_pair
from autoseg.data.check.problems import Problem, shortened
from autoseg.data.check.summary import ClassCounter, Scan
from autoseg.data.dataset import NEEDED, FolderDataset
from autoseg.data.decide import SeenMask, colours_seen, seen_labels, unlearnable
from autoseg.data.discovery.label_values import MOST_CLASSES
from autoseg.data.discovery.pairs import Pair, split_config, within
from autoseg.data.flip_pairs import found_pairs, pairs_line
from autoseg.data.io.masks import MaskFacts
from autoseg.data.io.opening import Header
from autoseg.data.loading.threads import Progress, in_threads
from autoseg.data.look import PairLook, look_at
from autoseg.data.resolve import decided, described, normalised, resolve_layout
from autoseg.data.splits import list_pairs
from autoseg.errors import DataError
from autoseg.files import cache_folder

OF_FILES = ("channels-differ", "pixel-types-differ")
"""Codes of errors that a file may have on its own too."""
MOST_PNG_PIXELS = 2**30
"""PNGs of more pixels together are not compared across splits, since only that needs them decoded in full (30 seconds
on one core); JPEGs are decoded at an eighth of their size anyway."""
Pairs: TypeAlias = dict[str, list[Pair]]


def scan_dataset(given: DataConfig, split: str | None, progress: Progress | None) -> tuple[Scan, list[Problem]]:
    """Read a data set, or one of its splits; also return the problems of the data set as a whole.

    `progress(done, total)` is called when a pair was looked at, and again when it was checked.

    Raises: DataError: a folder of no known layout.
    """
    placed = resolve_layout(given)
    splits = placed.config.splits or {}
    splits = splits if split is None else {split: split_config(placed.config, split)}
    stopping = {name for name in splits if given.on_bad_file == "fail" and (name in NEEDED or len(splits) == 1)}
    pairs, problems = _list(placed.config, splits, stopping)
    for name in (name for name in NEEDED if split is None and name not in splits):
        text = f"{placed.config.root} has no split '{name}', which a run needs; it has {', '.join(splits)}"
        problems.append(Problem("layout", name, "", f"{text}; set data.splits", stops=True))
    places = [(name, pair) for name, listed in pairs.items() for pair in listed]
    total = 2 * len(places)
    looks = look_at(places, cache_folder(), None if progress is None else lambda done, _: progress(done, total))
    config, said, errors = decided(given, placed, looks)
    config = _propose_colours(config, looks, errors)
    masks = [seen_labels(config, look) for look in looks]
    undecided = config.classes is None and any(mask.error is None for mask in masks)
    data = described(_with_each_label(config, masks) if undecided else config)
    compare = _are_compared(looks, said)
    facts = in_threads(
        lambda index: inspect_pair(looks[index], masks[index], data, compare), len(places),
        None if progress is None else lambda done, _: progress(len(places) + done, total),
    )  # fmt: skip
    if not errors and (reason := unlearnable(config, looks)):
        errors = [reason]
    faulty = [fault.file for one in facts for fault in one.faults]
    for error in errors:
        of_one_file = error.code in OF_FILES and any(str(file) in str(error) for file in faulty)
        if _concerns_all(error, looks) and not of_one_file:
            problems.append(
                Problem("layout", "train", _file_of(error, looks, data.root), shortened(str(error), config), stops=True)
            )
    counter = ClassCounter(data)
    usable = [one.pair for one in facts if one.split == "train" and counter.is_usable(one)]
    if usable:
        try:
            data = normalised(data, given, lambda: FolderDataset(data, usable, cache_bytes=0), said.append)
        except DataError as reason:
            problems.append(Problem("layout", "train", "", str(reason), stops=True))
    said += pairs_line(found_pairs(data), data)
    return Scan(data, facts, stopping, said, undecided), problems


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


def _are_compared(looks: Sequence[PairLook], said: list[str]) -> bool:
    """Whether images of training are compared with those of other splits; a line in `said` if that takes too long."""
    splits = {look.split for look in looks}
    if "train" not in splits or len(splits) == 1:
        return False
    pngs = [look.image.size for look in looks if isinstance(look.image, Header) and look.image.format == "PNG"]
    pixels = sum(height * width for height, width in pngs)
    if pixels > MOST_PNG_PIXELS:
        said.append(f"images are not compared across splits: {len(pngs):,} PNGs would be decoded in full for it")
    return pixels <= MOST_PNG_PIXELS


def _propose_colours(config: DataConfig, looks: Sequence[PairLook], errors: Sequence[DataError]) -> DataConfig:
    """`config` with the colours of the masks under made-up names, if masks hold no labels and no table names them."""
    unset = any(error.code in ("mask-colours-unset", "palettes-differ") for error in errors)
    if not unset or (colours := colours_seen(looks)) is None:
        return config
    own = config.classes if len(config.classes or ()) == len(colours) else None
    names = own or tuple(f"class_{number}" for number in range(len(colours)))
    proposed = {"colours": dict(zip(names, colours, strict=True)), "classes": names, "num_classes": len(names)}
    return config.model_copy(update=proposed)


def _with_each_label(config: DataConfig, masks: Sequence[SeenMask]) -> DataConfig:
    """`config` with a class for each label in the masks, to count them where nothing decides what they mean."""
    labels = sorted({label for mask in masks if mask.error is None for label in mask.labels.tolist()})
    if len(labels) > MOST_CLASSES:
        return config
    counted = {"classes": tuple(f"class_{label}" for label in labels), "label_map": dict(zip(labels, count()))}
    return config.model_copy(update=counted)


def _file_of(error: DataError, looks: Sequence[PairLook], root: str | None) -> str:
    """The file that an error names first, relative to `root`; empty if it names none."""
    files = [file for look in looks for file in look.pair[1:] if str(file) in str(error)]
    return within(Path(root or ""), min(files, key=lambda file: str(error).index(str(file)))) if files else ""


def _concerns_all(error: DataError, looks: Sequence[PairLook]) -> bool:
    """Whether an error is of the data set; of single files, or if no mask can be read, the files have their own."""
    if error.code in ("mask-like-photo", "mask-compression-lossy"):
        return False
    return any(isinstance(look.mask, MaskFacts) for look in looks)
