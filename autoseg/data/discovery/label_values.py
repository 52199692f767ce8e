"""What the stored values of masks mean, if no layout says it: which are classes, which are ignored, and their names.

Classes are the labels that occur, numbered in their order. 255 (65535 in masks of 16 bits, where -1 is stored so too)
is ignored beside labels that count from 0 or 1, is a class at the end of even grey levels or alone beside 0, and is
unclear otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from autoseg.data.wording import counted
from autoseg.errors import DataError

BINARY = ("background", "foreground")
TOPS = (255, 65535)
"""Values that often mark ignored pixels."""
MOST_CLASSES = 256
"""More labels without names are taken for the numbers of objects."""
LEAST_DENSE = 3
"""Number of labels from which a gap, a class that does not occur, leaves the meaning of 255 clear."""


class LabelNames(NamedTuple):
    """The content of a file of class names."""

    file: Path
    names: Mapping[int, str]
    """Label -> name of each class."""
    ignored: Set[int] = frozenset()
    """Labels that the file's names ignore."""
    numbered: bool = True
    """Whether the file gives the labels; else they are the places of its lines."""
    fault: DataError | None = None
    """Why the file cannot be used, though it names classes."""


class LabelReading(NamedTuple):
    """What the labels of a data set mean."""

    classes: tuple[str, ...]
    labels: tuple[int, ...]
    """The stored label of each class."""
    ignored: frozenset[int]
    """Stored labels of ignored pixels."""
    because: str
    """The reason, in words."""

    def label_map(self, ignore_label: int) -> dict[int, int] | None:
        """Stored label -> label used, without those that stay; None if all stay."""
        found = {label: number for number, label in enumerate(self.labels)} | dict.fromkeys(self.ignored, ignore_label)
        return {label: used for label, used in sorted(found.items()) if label != used} or None


def read_labels(
    seen: Set[int], where: str, ignored: int | None = None, names: Sequence[LabelNames] = (),
    classes: Sequence[str] | None = None, num_classes: int | None = None,
) -> LabelReading:  # fmt: skip
    """What the labels `seen` in all masks of a data set mean.

    where: the data set, for messages. ignored: the ignore label, if the user sets it. names: the files of class names
    beside the data. classes, num_classes: the user's own, which come before any file.
    Raises: DataError: the labels have several meanings, are of fewer than two classes, or do not fit the names.
    """
    ignored_labels = frozenset() if ignored is None else frozenset({ignored})
    if ignored is not None and {label for label in seen if label > TOPS[0]} == {TOPS[1]} and len(seen) > 2:
        ignored_labels |= {TOPS[1]}  # the pixels without data of files that mark them by a negative number
    rest = sorted(set(seen) - ignored_labels)
    fitting = [one for file in names if (one := _named(file, rest, ignored_labels, ignored is None))]
    own = [one for one in fitting if len(one.classes) == len(set(one.classes)) == num_classes]
    if classes is None and own:
        return _checked(own[0], where)
    if classes is not None or num_classes is not None:
        count = len(classes) if classes is not None else num_classes or 0
        found = _numbered(rest, count, ignored_labels, ignored is None)
        return _checked(found._replace(classes=tuple(classes)) if classes is not None else found, where)
    if fitting:
        return _checked(fitting[0], where)
    if fault := next((file.fault for file in names if file.fault), None):
        raise fault
    strict = [file for file in names if file.file.suffix not in (".yaml", ".yml")]  # these name objects, not labels
    if strict:
        raise _names_differ(strict[0], rest)
    return _checked(_unnamed(rest, ignored_labels, ignored is None, where), where)


# --- without names ----------------------------------------------------------------------------------------------------


def _unnamed(rest: Sequence[int], ignored: frozenset[int], may_ignore: bool, where: str) -> LabelReading:
    labels, top = _without_top(rest, where) if may_ignore else (tuple(rest), None)
    if len(labels) > MOST_CLASSES:
        raise DataError(
            f"the masks in {where} hold {len(labels):,} labels, more than classes are; if they number objects, map them"
            " with data.label_map, else set data.num_classes",
            code="too-many-labels",
        )
    binary = top is None and labels in ((0, 1), *((0, value) for value in TOPS))
    names = BINARY if binary else tuple(f"class_{label}" for label in labels)
    because = f"the labels that occur, {listed(labels)}"
    if top is not None:
        because += f"; {top} beside them is ignored"
    return LabelReading(names, labels, ignored | ({top} if top is not None else set()), because)


def _without_top(rest: Sequence[int], where: str) -> tuple[tuple[int, ...], int | None]:
    """The labels of classes, and 255 or 65535 if that is ignored. Raises: DataError: both readings are possible."""
    top = next((value for value in reversed(TOPS) if value in rest and value == rest[-1]), None)
    others = tuple(label for label in rest if label != top)
    if top is None or others in ((), (0,)) or _is_ladder(rest):
        return tuple(rest), None
    if len(others) > 1 and (others[0] in (0, 1) and others[-1] - others[0] == len(others) - 1):
        return others, top
    if len(others) >= LEAST_DENSE and 2 * len(others) > others[-1]:
        return others, top
    as_class = ", ".join(f"{label}: {number}" for number, label in enumerate(rest) if label != number)
    raise DataError(
        f"the masks in {where} hold the labels {listed(rest)}: {top} may mark ignored pixels (set data.ignore_label:"
        f" {top}) or a class (set data.num_classes: {len(rest)} and data.label_map: {{{as_class}}})",
        code="labels-unclear",
    )


def _is_ladder(labels: Sequence[int]) -> bool:
    """Whether three or more labels are even steps from 0 to the last one, to a rounding: 0, 127, 255."""
    steps, last = len(labels) - 1, labels[-1]
    even = all(abs(label - place * last / steps) <= 1 for place, label in enumerate(labels)) if steps > 1 else False
    return even and last > 2 * steps


# --- with names -------------------------------------------------------------------------------------------------------


def _numbered(rest: Sequence[int], count: int, ignored: frozenset[int], may_ignore: bool) -> LabelReading:
    """`count` classes that the user sets: the labels 0..count-1, or as many other labels that occur."""
    names, plain = tuple(f"class_{label}" for label in range(count)), tuple(range(count))
    tops = frozenset(label for label in rest if may_ignore and label in TOPS and label >= count)
    inside = tuple(label for label in rest if label not in tops)
    black_and_white = count == 2 and len(rest) == 2 and inside == (0,)
    if set(inside) <= set(plain) and not black_and_white:
        because = "the classes that are set" + f"; {listed(sorted(tops))} ignored" * bool(tops)
        return LabelReading(names, plain, ignored | tops, because)
    for left, top in ((tuple(rest), frozenset[int]()), (inside, tops)):
        if len(left) == count:
            because = f"the {count} classes that are set, in the order of the labels {listed(left)}"
            return LabelReading(names, left, ignored | top, because)
    return LabelReading(names, plain, ignored | tops, "the classes that are set")  # a strange label is its mask's fault


def _named(file: LabelNames, rest: Sequence[int], ignored: frozenset[int], may_ignore: bool) -> LabelReading | None:
    """The reading by a file of names; None if it does not fit."""
    if file.fault is not None:
        return None
    keys = tuple(sorted(set(file.names) - ignored))
    names = tuple(file.names[key] for key in keys)
    dropped = ignored | file.ignored
    left = [label for label in rest if label not in dropped]
    tops = [label for label in left if may_ignore and label in TOPS and label not in keys]
    inside = [label for label in left if label not in tops]
    if len(keys) == 1:  # the object of binary masks
        two = len(left) == 2 and left[0] == 0 and (left[1] in TOPS or left[1] == 1) and names[0] != BINARY[0]
        because = f"{file.file.name}, which names the foreground"
        return LabelReading((BINARY[0], *names), tuple(left), frozenset(dropped), because) if two else None
    in_order = f"{file.file.name}, in the order of the labels"
    if set(inside) <= set(keys):
        if inside == [0] and keys == (0, 1) and tops:  # 0 and 255 are the two that are named
            return LabelReading(names, (0, tops[-1]), frozenset(dropped), in_order)
        return LabelReading(names, keys, frozenset(dropped | set(tops)), file.file.name)
    for labels, ignored_too in ((left, dropped), (inside, dropped | set(tops))):
        if not file.numbered and not file.ignored and len(labels) == len(keys):
            return LabelReading(names, tuple(labels), frozenset(ignored_too), in_order)
    return None


def _names_differ(file: LabelNames, rest: Sequence[int]) -> DataError:
    strange = [label for label in rest if label not in file.names and label not in file.ignored]
    return DataError(
        f"{file.file} names {counted(len(file.names), 'class')} of the labels {listed(sorted(file.names))}, but the"
        f" masks also hold {listed(strange)}; correct it, or set data.classes or data.num_classes, which count more",
        code="names-differ",
    )


def _checked(found: LabelReading, where: str) -> LabelReading:
    """Raises: DataError: a name that comes twice, or fewer than two classes."""
    twice = next((name for name in found.classes if found.classes.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"the class name {twice!r} comes twice ({found.because}); rename one", code="class-name-twice")
    if len(found.classes) < 2:
        text = f"all masks in {where} are ignored"
        if found.labels:
            text = f"the masks in {where} hold the label {listed(found.labels)} and no other"
        raise DataError(
            f"{text}, which makes fewer than two classes; give others with data.label_map or data.ignore_label, or set"
            " data.num_classes",
            code="too-few-classes",
        )
    return found


def listed(labels: Sequence[int]) -> str:
    """`0..18, 255`, or the first eight."""
    runs: list[list[int]] = []
    for label in labels:
        if runs and label == runs[-1][-1] + 1:
            runs[-1].append(label)
        else:
            runs.append([label])
    words = [f"{run[0]}..{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(words[:8]) + ", ..." * (len(words) > 8)
