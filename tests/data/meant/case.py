"""A case: a data set that somebody has, what is meant by it, and how to find out what is read.

`python -m data.meant.case [WORDS]` (in tests/) prints what happens to every case, a line each; with words, to the cases
whose theme or name has one of them. `--yaml FILE` writes the outcomes as well, and `--before FILE --page FILE` a page
that compares them with such a file.
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


def outcomes(words: Sequence[str] = (), told: Callable[[str], object] = print) -> list[dict[str, str]]:
    """Read the cases whose theme or name has one of `words`; name, source, theme and outcome of each."""
    found = []
    for theme, case in all_cases():
        if words and not any(word in f"{theme} {case.name}" for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            result = read(case, Path(folder))
        wrong = result.wrong.encode(errors="replace").decode()
        stops = f"stops as meant ({result.error.code})" if isinstance(result.error, AutosegError) else "read as meant"
        told(f"{theme}, {case.name}: {wrong or 'as meant'}")
        outcome = textwrap.shorten(wrong, 160, placeholder=" ...") or stops
        found.append({"name": case.name, "source": case.source, "theme": theme, "outcome": outcome})
    return found


def is_right(outcome: str) -> bool:
    """Whether an outcome is what a case means."""
    return outcome.endswith("as meant") or outcome.startswith("stops as meant")


def page(before: Sequence[Mapping[str, str]], now: Sequence[Mapping[str, str]]) -> str:
    """docs/results/reading.md, from the outcomes of the code before and now."""
    old = {one["name"]: one["before"] for one in before}
    themes = list(dict.fromkeys(one["theme"] for one in now))
    total = [
        _counts("all", now, old),
        *(_counts(theme, [o for o in now if o["theme"] == theme], old) for theme in themes),
    ]
    parts = [
        _unwrapped(PRINCIPLE),
        "| theme | cases | as meant before | misread before | as meant now |",
        "|---|---:|---:|---:|---:|",
    ]
    parts += [f"| {' | '.join(row)} |" for row in (*total[1:], total[0])]
    for theme in themes:
        parts += ["", f"## {theme.replace('_', ' ').capitalize()}", "", "| case | before | now |", "|---|---|---|"]
        for one in (one for one in now if one["theme"] == theme):
            name = one["name"] if theme == "kinds" else f"[{one['name']}]({one['source']})"
            cells = name, _short(old.get(one["name"], "unknown")), _short(one["outcome"])
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(parts) + "\n"


def _counts(theme: str, now: Sequence[Mapping[str, str]], old: Mapping[str, str]) -> tuple[str, ...]:
    """Numbers of cases: all, right before, read as something else before, right now."""
    before = [old.get(one["name"], "unknown") for one in now]
    misread = sum(not is_right(one) and not one.startswith(("stops", "crashes")) for one in before)
    numbers = len(now), sum(map(is_right, before)), misread, sum(is_right(one["outcome"]) for one in now)
    return (theme.replace("_", " "), *map(str, numbers))


def _short(outcome: str) -> str:
    """An outcome in a few words: the code of an error, or what was read."""
    if outcome.startswith("stops with "):
        return f"stops ({outcome.split(':')[0].removeprefix('stops with ')})"
    return textwrap.shorten(outcome, 90, placeholder=" ...")


PRINCIPLE = """# What is read is what was meant

A property of a data set is decided from all of its files, never from the first one. What the files contradict or leave
open is an error or one clear line, never a silent default. What the user writes (classes, a file of names, a YAML)
counts more than what a layout suggests.

Each case is a small data set as somebody has it, with what it means: the classes, every label of its masks, values of
images, the split, or the code of the error that should stop it. The links lead to where somebody had it. Before is
commit `1fcc39d`. It misread a case if it went on with other classes, labels or images than are meant, or did not say
what it should. `tests/data/meant/test_meant.py` reads all cases, and checks that `autoseg check-data` decides and
proposes the same. In `tests/`, this makes the page again:

```bash
PYTHONPATH=.. python -m data.meant.case --before ../docs/results/reading_before.yaml --page ../docs/results/reading.md
```
"""


def _unwrapped(text: str) -> str:
    """Paragraphs on one line each."""
    parts = text.split("\n\n")
    return "\n\n".join(part if part.startswith("```") else part.replace("\n", " ") for part in parts)


def main(arguments: Sequence[str]) -> None:
    """Read the cases and print a line each."""
    options = {"--yaml": None, "--before": None, "--page": None}
    words = list(arguments)
    for option in options:
        if option in words:
            place = words.index(option)
            options[option] = Path(words[place + 1])
            del words[place : place + 2]
    found = outcomes(words)
    print(f"{sum(is_right(one['outcome']) for one in found)} of {len(found)} as meant")
    if options["--yaml"] is not None:
        _write_yaml(options["--yaml"], found)
    if options["--page"] is not None and options["--before"] is not None:
        before = yaml.safe_load(options["--before"].read_text(encoding="utf-8"))
        options["--page"].write_text(page(before, found), encoding="utf-8")


def _write_yaml(file: Path, found: Sequence[Mapping[str, str]]) -> None:
    rows = [{"name": one["name"], "theme": one["theme"], "before": one["outcome"]} for one in found]
    file.write_text(yaml.safe_dump(rows, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
