"""A case: a data set that somebody has, what is meant by it, and how to find out what is read.

`python -m data.meant.case [WORDS]` (in tests/) prints what happens to every case, a line each; with words, to the cases
whose theme or name has one of them. `--yaml FILE` writes the outcomes as well.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from autoseg.config.base import parse
from autoseg.config.data import DataConfig, ResolvedDataConfig, data_settings
from autoseg.data.dataset import describe_dataset, open_dataset, resolve
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
    val: tuple[str, ...] = ()
    """The names of all validation samples, where the data set tells them."""
    or_stops: str = ""
    """The code of an error that is as right as this reading, where the files leave it open."""
    only: bool = False
    """Whether there are no other samples than those of `masks`."""


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
    error: Exception | None
    wrong: str
    """Empty if all is as meant; else the first difference."""
    settings: Mapping[str, Any] = {}
    """What the case sets of data."""


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def read(case: Case, folder: Path) -> Read:
    """Build a case in `folder` and read it as a run does."""
    root = folder / "data"
    root.mkdir(parents=True)
    built = case.build(root)
    settings = built if isinstance(built, dict) else {}
    heard = _Lines()
    log = logging.getLogger("autoseg")
    level = log.level
    log.addHandler(heard)
    log.setLevel(logging.INFO)
    try:
        config = resolve(parse(DataConfig, {**data_settings(root), **settings}), training=True)
        by_split = {split: _samples(config, split) for split in ("train", "val")}
        heard.lines.append(describe_dataset(config))
    except AutosegError as reason:
        right = case.meant if isinstance(case.meant, str) else case.meant.or_stops
        wrong = "" if reason.code == right else f"stops with {reason.code}: {reason}".replace(str(root), "DATA")
        return Read(None, reason, wrong, settings)
    except Exception as reason:  # no mistake of a user may end in another error
        wrong = f"crashes with {type(reason).__name__}: {reason}".replace(str(root), "DATA")
        return Read(None, reason, wrong, settings)
    finally:
        log.removeHandler(heard)
        log.setLevel(level)
    if isinstance(case.meant, str):
        form = (
            f"{config.num_classes} classes ({', '.join(config.classes[:5])}), {config.channels} x {config.pixel_type}"
        )
        return Read(config, None, f"reads {form}, where it should stop", settings)
    return Read(config, None, difference(case.meant, config, by_split, heard.lines), settings)


def _samples(config: ResolvedDataConfig, split: str) -> dict[str, Any]:
    dataset = open_dataset(config, split)
    return {name: dataset.decode(index) for index, name in enumerate(dataset.names)}


def difference(
    meant: Meant, config: ResolvedDataConfig, by_split: Mapping[str, Mapping[str, Any]], lines: Sequence[str] = ()
) -> str:
    """The first difference between what is meant and what was read; empty if there is none."""
    samples = {name: sample for some in by_split.values() for name, sample in some.items()}
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
    if meant.only and (extra := set(samples) - set(meant.masks)):
        return f"{len(extra)} samples that are none, such as {min(extra)}"
    if meant.val and set(by_split["val"]) != set(meant.val):
        return f"validation is {', '.join(sorted(by_split['val']))} in place of {', '.join(meant.val)}"
    missing = [text for text in meant.says if not any(text in line for line in lines)]
    return f"no line says {missing[0]!r}" if missing else ""


def all_cases() -> list[tuple[str, Case]]:
    """(theme, case) of every module of this folder that has CASES; the theme is the module's name."""
    folder = Path(__file__).parent
    found: list[tuple[str, Case]] = []
    for module in sorted(one.name for one in pkgutil.iter_modules([str(folder)])):
        if module not in ("case", "build") and not module.startswith("test_"):
            cases = getattr(importlib.import_module(f"data.meant.{module}"), "CASES", ())
            found += [(module.removeprefix("oddities_"), case) for case in cases]
    return found


def main(arguments: Sequence[str]) -> None:
    """Read the cases and print a line each."""
    words = list(arguments)
    file = Path(words.pop(words.index("--yaml") + 1)) if "--yaml" in words else None
    words = [word for word in words if word != "--yaml"]
    outcomes = []
    for theme, case in all_cases():
        if words and not any(word in f"{theme} {case.name}" for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            wrong = read(case, Path(folder)).wrong
        wrong = wrong.encode(errors="replace").decode()
        short = textwrap.shorten(wrong, 160, placeholder=" ...")
        outcomes.append({"name": case.name, "source": case.source, "theme": theme, "before": short or "as meant"})
        print(f"{theme}, {case.name}: {wrong or 'as meant'}", flush=True)
    good = sum(one["before"] == "as meant" for one in outcomes)
    print(f"{good} of {len(outcomes)} as meant")
    if file is not None:
        file.write_text(yaml.safe_dump(outcomes, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
