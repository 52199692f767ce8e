"""A case: a data set that somebody has, what is meant by it, and how to find out what is read.

`python -m data.meant.case` (in tests/) prints what happens to every case, a line each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.config.base import parse
from autoseg.config.data import DataConfig, ResolvedDataConfig, data_settings
from autoseg.data.dataset import open_dataset, resolve
from autoseg.errors import AutosegError

IGNORED = -1


class Meant(NamedTuple):
    """What a data set means."""

    classes: tuple[str, ...] | int
    """The names of the classes, or their number where nothing names them."""
    masks: Mapping[str, NDArray[Any]]
    """Name of a sample -> its mask: numbers of classes, and IGNORED."""
    images: Mapping[str, NDArray[Any]] = {}
    """Name of a sample -> its image (H, W, C)."""
    says: tuple[str, ...] = ()
    """What the lines on the data must say."""


class Case(NamedTuple):
    """A data set and what is meant by it."""

    name: str
    source: str
    """Where somebody asked for it: an address, or the format's own page."""
    build: Callable[[Path], object]
    """Writes the data set into an empty folder; may return settings of data."""
    meant: Meant | str
    """The right reading, or the code of the error that stops it."""


class Read(NamedTuple):
    """What was read of a case."""

    config: ResolvedDataConfig | None
    error: AutosegError | None
    wrong: str
    """Empty if all is as meant; else the first difference."""


def read(case: Case, folder: Path) -> Read:
    """Build a case in `folder` and read it as a run does."""
    root = folder / "data"
    root.mkdir(parents=True)
    settings = case.build(root)
    try:
        given = parse(DataConfig, {**data_settings(root), **(settings if isinstance(settings, dict) else {})})
        config = resolve(given)
        samples = {name: sample for split in ("train", "val") for name, sample in _samples(config, split)}
    except AutosegError as reason:
        wrong = "" if reason.code == case.meant else f"stops with {reason.code}: {reason}"
        return Read(None, reason, wrong.replace(str(root), "DATA"))
    if isinstance(case.meant, str):
        return Read(
            config,
            None,
            f"reads {config.num_classes} classes, {config.channels} x {config.pixel_type}, where it should stop",
        )
    return Read(config, None, difference(case.meant, config, samples))


def _samples(config: ResolvedDataConfig, split: str) -> list[tuple[str, Any]]:
    dataset = open_dataset(config, split)
    return [(name, dataset.decode(index)) for index, name in enumerate(dataset.names)]


def difference(meant: Meant, config: ResolvedDataConfig, samples: Mapping[str, Any]) -> str:
    """The first difference between what is meant and what was read; empty if there is none."""
    classes: object = config.classes if isinstance(meant.classes, tuple) else config.num_classes
    if classes != meant.classes:
        return f"classes {classes} in place of {meant.classes}"
    for name, expected in meant.masks.items():
        if name not in samples:
            return f"no sample {name}; there are {', '.join(sorted(samples)[:4])}"
        found = np.where(samples[name].mask == config.ignore_label, IGNORED, samples[name].mask.astype(int))
        if found.shape != expected.shape:
            return f"mask {name} is {found.shape} in place of {expected.shape}"
        if (found != expected).any():
            place = tuple(int(one) for one in np.argwhere(found != expected)[0])
            return f"mask {name} is {found[place]} in place of {expected[place]} at {place}"
    for name, expected in meant.images.items():
        found = samples[name].image
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return f"image {name} is {found.shape} {found.dtype} in place of {expected.shape} {expected.dtype}"
        if not np.array_equal(found, expected):
            return f"image {name} has other values, such as {found.ravel()[:3]} in place of {expected.ravel()[:3]}"
    return ""
