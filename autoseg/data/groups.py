"""Groups of images that belong together, such as those of one patient, video or site (`data.group_by`).

Splits that autoseg makes keep each group whole. Splits that the user made are only looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from autoseg.config.data import FOLDER, GROUP_TABLE, DataConfig
from autoseg.data.decide import Decided
from autoseg.data.discovery.lists import is_index, plain, read_table
from autoseg.data.discovery.pairs import Pair, checked_root, within, without_suffix
from autoseg.data.io.opening import is_image
from autoseg.data.look import PairLook
from autoseg.data.wording import counted, first_of
from autoseg.errors import ConfigError

OF_OTHER_DATA = ("group-by-matches-nothing", "group-by-one-group", "group-table-missing")
"""Codes of the errors where `group_by` is that of another data set."""
NAME_FORMS = (
    FOLDER,
    r"([^-_ /]+)[-_ ][^/]*$",
    r"([^-_ /]+[-_ ][^-_ /]+)[-_ ][^/]*$",
    r"([^-_ /]+[-_ ][^-_ /]+[-_ ][^-_ /]+)[-_ ][^/]*$",
    r"([^/]+)[-_ ][^-_ /]*$",
    r"([^/]*\d)[A-Za-z]+\d*\.\w+$",
)
"""Values of `group_by` that names may suggest: the folder, what is before a separator, or before the last letters."""
LEAST_GROUPS = 3
"""Fewer groups of names say nothing."""
LEAST_IN_SEVERAL = 0.9
"""Least share of images that lie in groups of several, if names suggest groups."""
Table: TypeAlias = dict[str, dict[str, int]]
"""Image -> group -> number of the line that says so."""
_YEAR = re.compile(r"(19|20)\d\d")


def groups_of(config: DataConfig, pairs: Sequence[Pair]) -> list[str]:
    """The group of each pair by `config.group_by`.

    Raises: ConfigError: images without a group, or a table that cannot be used.
    """
    return _read_groups(config, pairs)[0]


def refuse_one_group(config: DataConfig, pairs: Sequence[Pair], groups: Sequence[str]) -> None:
    """Raises: ConfigError: all images are one group."""
    if len(set(groups)) == 1:
        raise ConfigError(
            f"data.group_by '{config.group_by}' puts all {counted(len(pairs), 'image')}, such as"
            f" {_shown(config, pairs[:1])}, into one group, {groups[0]!r}, which cannot be split; correct it, or leave"
            " it out",
            code="group-by-one-group",
        )


def grouping(config: DataConfig, looks: Sequence[PairLook]) -> Decided:
    """Nothing but lines: the groups of all images, and those on both sides of the user's own splits.

    Without `group_by`, the line says which groups the names suggest, if autoseg itself splits the images.
    Raises: ConfigError: as `groups_of`; or all images are one group.
    """
    pairs, splits = [look.pair for look in looks], [look.split for look in looks]
    if config.group_by is None or not pairs:
        is_own = any(place.part for place in (config.splits or {}).values())
        hint = suggestion(config, pairs, splits) if is_own else None
        return Decided({}, () if hint is None else (hint,))
    groups, unused = _read_groups(config, pairs)
    whole = set(splits) == set(config.splits or {})
    if whole:
        refuse_one_group(config, pairs, groups)
    sizes = sorted(Counter(groups).values())
    of = _by_split(groups, splits).items()
    counts = (f"{split} has {len(set(own)):,} ({counted(len(own), 'image')})" for split, own in of)
    what = f"{counted(len(sizes), 'group')} by data.group_by {config.group_by}"
    most = "" if sizes[0] == sizes[-1] else f" to {sizes[-1]:,}"
    said = [f"{what}, of {sizes[0]:,}{most} image{'s' * (sizes[-1] > 1)}: {', '.join(counts)}"]
    if sizes[-1] == 1:
        said.append(f"each of {counted(len(sizes), 'image')} is a group of its own, so data.group_by changes nothing")
    if unused and whole:
        said.append(f"{counted(unused, 'row')} of the table of groups {_verb(unused, 'name')} no image with a mask")
    return Decided({}, (*said, *shared_lines(shared_groups(groups, splits))))


def shared_images(config: DataConfig, looks: Sequence[PairLook]) -> Decided:
    """Nothing but a line, if images of training are also in another split. Copies under other names do not count."""
    shared = shared_groups([str(look.pair[1]) for look in looks], [look.split for look in looks])
    return Decided({}, tuple(shared_lines(shared, "image", lambda files: f"such as {Path(files[0]).name}")))


def shared_groups(groups: Sequence[str], splits: Sequence[str]) -> dict[str, list[str]]:
    """Split -> its groups that are also in train, in their order; only splits that share some."""
    of = _by_split(groups, splits)
    train = set(of.pop("train", ()))
    shared = {split: [group for group in dict.fromkeys(own) if group in train] for split, own in of.items()}
    return {split: some for split, some in shared.items() if some}


def _by_split(groups: Sequence[str], splits: Sequence[str]) -> dict[str, list[str]]:
    of: dict[str, list[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        of.setdefault(split, []).append(group)
    return of


def _such_as(groups: Sequence[str]) -> str:
    return groups[0] if len(groups) == 1 else f"such as {', '.join(groups[:3])}"


def shared_lines(
    shared: Mapping[str, Sequence[str]], noun: str = "group", such_as: Callable[[Sequence[str]], str] = _such_as
) -> list[str]:
    """A line for each split that shares groups, or what else the noun says, with train."""
    return [
        f"{counted(len(some), noun)} of {split} {'is' if len(some) == 1 else 'are'} also in train, {such_as(some)},"
        f" so scores on {split} would be too good"
        for split, some in shared.items()
    ]


# --- what the setting says --------------------------------------------------------------------------------------------


def _read_groups(config: DataConfig, pairs: Sequence[Pair]) -> tuple[list[str], int]:
    """The group of each pair, and the number of rows of a table that name none. Raises: ConfigError."""
    by, unused = config.group_by or "", 0
    root = checked_root(config.root or "")
    if table := GROUP_TABLE.fullmatch(by):
        found, unused = _by_table(root / table[1], table[2], [image for _, image, _ in pairs])
    else:
        found = _by_name(by, pairs, _paths(root, pairs))
    missing = [pair for pair, group in zip(pairs, found, strict=True) if not group]
    if missing:
        what, remedy = f"data.group_by '{by}' matches", "correct the expression"
        if table:
            what, remedy = f"{root / table[1]} names a group in column {table[2]!r} for", "add rows"
        elif Path(by).suffix == ".csv" or ".csv:" in by:
            remedy = f"write csv:{by} for a column of a table"
        none = len(missing) == len(pairs)
        count = "no image, such as" if none else f"{len(found) - len(missing):,} of {len(found):,} images, but not"
        raise ConfigError(
            f"{what} {count} {_shown(config, missing)}; {remedy}, or leave data.group_by out",
            code="group-by-matches-nothing" if none else "group-by-misses-images",
        )
    return [group for group in found if group], unused


def _paths(root: Path, pairs: Sequence[Pair]) -> list[str]:
    """The paths of images, relative to `root`."""
    return [plain(within(root, image)) for _, image, _ in pairs]


def _by_name(by: str, pairs: Sequence[Pair], paths: Sequence[str]) -> list[str | None]:
    """The groups by folder, or by an expression over `paths`."""
    if by == FOLDER:
        return [Path(name).parent.as_posix() for name, _, _ in pairs]
    search = re.compile(by).search
    return [_matched(search(path)) for path in paths]


def _matched(match: re.Match[str] | None) -> str | None:
    """What an expression's parts in parentheses hold, else all that it matched; None if that is nothing."""
    parts = (match.groups() or (match[0],)) if match else ()
    return "|".join(part or "" for part in parts) if any(parts) else None


def _by_table(file: Path, column: str, images: Sequence[Path]) -> tuple[list[str | None], int]:
    """The group of each image, and the number of rows that name none.

    A cell names an image by the end of its path, with or without suffix. The column of images is the one that names
    most of them. Raises: ConfigError: no such file or column, an image of two groups, or a row that names two images.
    """
    (_, header), *rows = read_table(file, "correct data.group_by") or [(0, [])]
    if column not in header:
        names = ", ".join(map(repr, header)) or "none"
        raise ConfigError(f"{file} has no column {column!r}; its columns are {names}", code="group-column-missing")
    place = header.index(column)
    rows = [(line, row) for line, row in rows if len(row) > place and row[place]]
    paths = [without_suffix(plain(image.as_posix())).lstrip("/").split("/") for image in images]
    found: list[tuple[tuple[int, int, bool], list[str | None], Table]] = []
    for other in (other for other in range(len(header)) if other != place):
        cells = [(line, row[other], row[place]) for line, row in rows if len(row) > other]
        table: Table = {}
        for line, cell, group in cells:
            key = without_suffix(plain(cell)).removeprefix("./").lstrip("/")
            table.setdefault(key, {}).setdefault(group, line)
        keys, texts = _keys(paths, table), [cell for _, cell, _ in cells]
        rank = sum(key is not None for key in keys), sum(map(is_image, texts)), not is_index(texts)
        found.append((rank, keys, table))
    if not found:
        return [None] * len(images), 0
    _, keys, table = max(found, key=lambda one: one[0])
    _refuse_unclear(file, column, images, keys, table)
    return [None if key is None else next(iter(table[key])) for key in keys], len(table.keys() - {*keys})


def _keys(paths: Sequence[Sequence[str]], table: Iterable[str]) -> list[str | None]:
    """The longest end of each path, in parts, that the table has."""
    names = set(table) - {""}
    depth = max((name.count("/") + 1 for name in names), default=0)
    ends = (("/".join(parts[-length:]) for length in range(min(depth, len(parts)), 0, -1)) for parts in paths)
    return [next((end for end in some if end in names), None) for some in ends]


def _refuse_unclear(file: Path, column: str, images: Sequence[Path], keys: Sequence[str | None], table: Table) -> None:
    """Raises: ConfigError: an image of two groups, or a row that names two images."""
    named: dict[str, Path] = {}
    for key, image in zip(keys, images, strict=True):
        if key is None:
            continue
        (first, line), *others = table[key].items()
        if others:
            raise ConfigError(
                f"{file} gives {key} the {column} {first!r} in line {line} and {others[0][0]!r} in line"
                f" {others[0][1]}; remove one, or write the image's path where several have the name",
                code="group-unclear",
            )
        if named.setdefault(key, image) != image:
            raise ConfigError(
                f"line {line} of {file} names both {named[key]} and {image}; write the paths of images, relative to the"
                " data set's folder",
                code="group-unclear",
            )


def _shown(config: DataConfig, pairs: Sequence[Pair]) -> str:
    root = checked_root(config.root or "")
    return first_of([within(root, image) for _, image, _ in pairs], 3)


def _verb(number: int, plural: str) -> str:
    """`lies` for one, else `lie`."""
    return plural + "s" * (number == 1)


# --- what names suggest -----------------------------------------------------------------------------------------------


def suggestion(config: DataConfig, pairs: Sequence[Pair], splits: Sequence[str]) -> str | None:
    """The line on groups that the names of images suggest, if training shares some with another split, or has several.

    Names suggest groups if they all have one of `NAME_FORMS`, which makes several groups of several images each. What
    a group is called must have a digit, as `patient07` or `0016E5` and unlike `cat`, and must not be a year.
    """
    found = _suggested(config, pairs)
    if found is None:
        return None
    form, groups = found
    shared = shared_groups(groups, splits)
    of_train = {group for group, split in zip(groups, splits, strict=True) if split == "train"}
    names = sorted(set(groups))
    if not shared and len(of_train) < LEAST_GROUPS:
        return None
    text = f"the names of images suggest {counted(len(names), 'group')}, {_such_as(names)}"
    for split, some in shared.items():
        which = "all" if len(some) == len(names) else f"{len(some):,}, {_such_as(some)},"
        text += f"; {which} {_verb(len(some), 'lie')} in both train and {split}"
    is_own = any(place.part for place in (config.splits or {}).values())
    sides = "train and val, and of " * is_own + "trainA and trainB of a search"
    return f"{text}. If they are patients, videos or sites: data.group_by '{form}' keeps each on one side of {sides}"


def _suggested(config: DataConfig, pairs: Sequence[Pair]) -> tuple[str, list[str]] | None:
    """The form of names that makes the fewest groups, and the group of each pair; None if names suggest none."""
    paths = _paths(checked_root(config.root or ""), pairs)
    images = {path: name for path, (name, _, _) in zip(paths, pairs, strict=True)}
    restart = len({path.rpartition("/")[2] for path in images}) < len(
        images
    )  # names that begin anew in each folder tell nothing
    restart_in_split = len({*images.values()}) < len(images)
    best: tuple[int, str, list[str]] | None = None
    for form in NAME_FORMS:
        if restart_in_split if form == FOLDER else restart:
            continue
        groups = [group for group in _by_name(form, pairs, paths) if group]
        if len(groups) == len(pairs) and _are_groups(groups) and (best is None or len(set(groups)) < best[0]):
            best = len(set(groups)), form, groups
    return best and best[1:]


def _are_groups(groups: Sequence[str]) -> bool:
    sizes = Counter(groups)
    in_several = sum(size for size in sizes.values() if size > 1)
    named = all(any(map(str.isdigit, group)) for group in sizes) and not all(map(_YEAR.fullmatch, sizes))
    return len(sizes) >= LEAST_GROUPS and in_several >= LEAST_IN_SEVERAL * len(groups) and named
