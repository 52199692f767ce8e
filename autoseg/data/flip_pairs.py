"""Pairs of classes that mirroring swaps: the left arm of a mirrored image looks like a right arm."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from autoseg.config.data import ResolvedDataConfig
from autoseg.config.training import FlipPairs
from autoseg.data.discovery.label_names import plain_words
from autoseg.data.wording import counted, first_of
from autoseg.errors import ConfigError
from autoseg.library import hint

_EDGE = r"(?:(?<![^\W\d_])|(?![^\W\d_])|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]))"
_SIDE = re.compile(f"{_EDGE}(?i:left|right){_EDGE}")
"""The whole words left and right: an edge has no letter on one side, or begins a word of `leftArm`."""
_OTHER = {"left": "right", "right": "left"}


def pairs_by_name(classes: Iterable[str]) -> FlipPairs:
    """The pairs of names that become each other if their whole words left and right are swapped.

    Names are compared as `plain_words` has them; two classes of one such name are in no pair.
    """
    words = {name: plain_words(name) for name in classes}
    number = Counter(words.values())
    names = {text: name for name, text in words.items() if number[text] == 1}
    partner = {
        name: names.get(plain_words(_SIDE.sub(lambda side: _OTHER[side[0].lower()], name))) for name in names.values()
    }
    pairs = [(name, other) for name, other in partner.items() if other is not None and partner[other] == name]
    places = {name: place for place, name in enumerate(words)}
    return tuple((name, other) for name, other in pairs if places[name] < places[other])


def found_pairs(data: ResolvedDataConfig) -> FlipPairs | None:
    """The pairs of a data set's classes by their names; None if there are none. The ignored label is no class."""
    return pairs_by_name(_classes(data).values()) or None


def resolved_pairs(given: FlipPairs | None, data: ResolvedDataConfig, key: str) -> FlipPairs | None:
    """The names of the classes in `given`, or else the pairs found by name; None if there are none.

    key: the setting, for messages.
    Raises: ConfigError: a class that the data does not have, or a class that comes twice.
    """
    if given is None:
        return found_pairs(data)
    classes = _classes(data)
    named = tuple((_named(one, classes, key), _named(other, classes, key)) for one, other in given)
    number = Counter(name for pair in named for name in pair)
    if twice := next((name for name in number if number[name] > 1), None):
        raise ConfigError(
            f"{key}: the class {twice!r} comes twice; a class is swapped with one other class",
            code="flip-pairs-overlap",
        )
    return named


def _classes(data: ResolvedDataConfig) -> dict[int, str]:
    return {label: name for label, name in enumerate(data.classes) if label != data.ignore_label}


def _named(one: str | int, classes: dict[int, str], key: str) -> str:
    if isinstance(one, int) and one in classes:
        return classes[one]
    if one not in classes.values():
        last, names = max(classes), list(classes.values())
        advice = f"the numbers are 0..{last}" if isinstance(one, int) else hint(one, names[:8])
        raise ConfigError(f"{key}: the data has no class {one!r} ({advice})", code="unknown-class")
    return str(one)


def pairs_line(pairs: FlipPairs | None, data: ResolvedDataConfig) -> list[str]:
    """What to say of the pairs of a data set's classes: one line, or none if there are none."""
    if not pairs:
        return []
    shown = first_of([f"{one} and {other}" for one, other in pairs], 4)
    number = counted(len(pairs), "pair")
    how = "by their names; augment.flip_pairs sets it" if pairs == found_pairs(data) else "augment.flip_pairs"
    return [f"mirrored images swap {number} of classes: {shown} ({how})"]


def mirrored_classes(pairs: FlipPairs | None, classes: Sequence[str]) -> list[int] | None:
    """(K,): the class that each class is in a mirrored image; None if all stay what they are."""
    if not pairs:
        return None
    labels = list(range(len(classes)))
    for pair in pairs:
        one, other = (classes.index(name) if isinstance(name, str) else name for name in pair)
        labels[one], labels[other] = other, one
    return labels


def mirrored_labels(pairs: FlipPairs | None, classes: Sequence[str], ignore_label: int) -> Tensor | None:
    """As `mirrored_classes`, for every label of a mask, int64; the ignore label stays."""
    swapped = mirrored_classes(pairs, classes)
    if swapped is None:
        return None
    table = torch.arange(max(len(classes), ignore_label + 1))
    table[: len(classes)] = torch.tensor(swapped)
    return table
