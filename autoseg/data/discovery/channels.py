"""Finding images of several files, one a channel, by the names of all files: nnU-Net's, and bands of satellites.

The names are believed only where all images agree. Anything else stops where its masks are missing, or is set by the
user (`channel_files`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from autoseg.config.data import DataConfig, SplitConfig
from autoseg.data.discovery.pairs import Index, image_files, images_and_masks, index_files, masks_of, match_names
from autoseg.data.io.opening import read_header
from autoseg.data.io.reading import read_text
from autoseg.data.wording import counted, first_of
from autoseg.errors import DataError
from autoseg.files import parse_json

BANDS = ("red", "green", "blue", "rededge", "nir", "nir1", "nir2", "swir", "swir1", "swir2", "thermal", "tir", "pan")
"""Words for the bands of satellites and cameras, in the order of the channels; B1, B02, B8A and so on count."""
_BAND = rf"{'|'.join(sorted(BANDS, key=len, reverse=True))}|B\d{{1,2}}A?"
_ENDING = re.compile(rf"(.+?)([_-](?:\d{{4}}|{_BAND}))", re.IGNORECASE)
_FOLDER = re.compile(rf"((?:.*[/_-])?)({_BAND})((?:[_-][^/]*)?)", re.IGNORECASE)
_NUMBER = re.compile(r"\*_(\d{4})")


def with_channel_files(root: Path, splits: Mapping[str, SplitConfig]) -> tuple[dict[str, SplitConfig], tuple[str, ...]]:
    """`splits` with the `channel_files` of those whose images have several, and a line that says them.

    Raises: DataError: the numbers of nnU-Net's files leave some out.
    """
    changed = {split: _of_folders(root, place) or place for split, place in splits.items()}
    found = {split: _patterns(root, split, place) for split, place in changed.items() if not place.channel_files}
    names: list[str] = []
    if patterns := set[str]().union(*found.values()):
        ordered, names = _ordered(root, splits, patterns)
        changed |= {
            split: changed[split].model_copy(update={"channel_files": ordered}) for split, own in found.items() if own
        }
    for split, place in changed.items():
        if split in found and len(place.channel_files or ()) < 2:
            _refuse_lacking(root, place)
    several = dict.fromkeys(place.channel_files for place in changed.values() if len(place.channel_files or ()) > 1)
    return changed, tuple(_said(files, names) for files in several if files)


def _said(files: Sequence[str], names: Sequence[str]) -> str:
    named = [f"{file} ({name})" for file, name in zip(files, names, strict=False)] or files
    return f"an image is {len(files)} files, whose channels follow each other so: {', '.join(named)}"


def _patterns(root: Path, split: str, place: SplitConfig) -> set[str]:
    """`channel_patterns` of a split's files, in any order."""
    if place.annotations or place.image_suffix or not (place.images and place.masks):
        return set()
    try:
        files = images_and_masks(root, split, place.model_copy(update={"channel_files": ("*",)}))
    except DataError:  # pairing reports it
        return set()
    return channel_patterns(*files, place.mask_suffix)


def channels_in_one_folder(folder: Path, most: int = 20_000) -> bool:
    """Whether the channels of images lie beside their masks, such as `a_B02.tif`, `a_B03.tif` and `a_mask.tif`."""
    some = islice(image_files(folder, "."), most)
    return any(_ENDING.fullmatch(name) for name, _ in some) and bool(
        _patterns(folder, "train", SplitConfig(images=".", masks="."))
    )


def channel_patterns(images: Index, masks: Index, suffix: str | None = None) -> set[str]:
    """The names of files around those of their images, such as `*_0000`; none unless all files tell it together.

    A file with a mask of its own is an image; one that is more than the name of an image with a mask is a channel.
    """
    endings = {name: found for name in images if (found := _ENDING.fullmatch(name))}
    if not endings:
        return set()
    matches = match_names(images, masks, suffix)
    channels = [found for name, found in endings.items() if not matches[name]]
    bases = {found[1] for found in channels}
    paired = sum(bool(masks_of(base, masks, suffix)) for base in bases)
    patterns = {f"*{found[2]}" for found in channels}
    alone = [name for name in images if name not in endings or matches[name]]
    numbered = [one for one in patterns if _NUMBER.fullmatch(one)]
    if not 2 * paired >= len(bases) > 0 or not all(matches[name] for name in alone):
        return set()
    if numbered and (alone or len(numbered) < len(patterns) or "*_0000" not in patterns):
        return set()
    return patterns | {"*" for _ in alone[:1]}


def _ordered(
    root: Path, splits: Mapping[str, SplitConfig], patterns: Iterable[str]
) -> tuple[tuple[str, ...], list[str]]:
    """The patterns in the order of the channels, and the channels' names if dataset.json has them.

    Raises: DataError: a number between 0000 and the last one, or those of dataset.json, has no files.
    """
    ordered = sorted(patterns, key=_place)
    if not _NUMBER.fullmatch(ordered[0]):
        return tuple(ordered), []
    place = next(place for place in splits.values() if place.images)
    names = _channel_names(root, (root / str(place.images)).parent)
    expected = [f"*_{number:04}" for number in range(len(names) or len(ordered))]
    if len(ordered) > 1 and ordered != expected and (not names or {*ordered} - {*expected}):
        lacking = next((one for one in expected if one not in ordered), "")
        told = f"dataset.json names {len(names)}" if names else f"none with {lacking[1:]}"
        raise DataError(
            f"the images in {root / str(place.images)} have files that end with"
            f" {', '.join(one[1:] for one in ordered)}, but {told}; add what is missing, or set data.splits: {{train:"
            f" {{images: {place.images}, masks: {place.masks}, channel_files: {json.dumps(ordered)}}}}}",
            code="channels-unclear",
        )
    ordered = expected if len(ordered) > 1 else ordered
    return tuple(ordered), names


def _refuse_lacking(root: Path, place: SplitConfig) -> None:
    """Raises: DataError: no image, of one file each, has the several channels that nnU-Net's dataset.json names."""
    names = _channel_names(root, (root / str(place.images)).parent) if place.images and not place.list else []
    if len(names) < 2:
        return
    found: dict[int, Path] = {}
    for name, paths in index_files(root, str(place.images)).items():
        if not name.endswith("_0000"):
            return
        with suppress(DataError):  # a fault of its own
            found.setdefault(read_header(paths[0]).channels, paths[0])
    if found and len(names) not in found:
        channels, path = next(iter(found.items()))
        raise DataError(
            f"dataset.json names {len(names)} channels ({first_of(names, 4)}), but {path} has"
            f" {counted(channels, 'channel')} and no other file beside it; add the files of the other channels, or"
            " correct dataset.json",
            code="channels-unclear",
        )


def differ_in_band(folders: Iterable[str]) -> bool:
    """Whether names of folders differ in a word for a band alone: `train_red`, `train_nir`."""
    forms = [_FOLDER.fullmatch(folder) for folder in folders]
    return len({form and (form[1], form[3]) for form in forms}) == 1 and None not in forms


def _of_folders(root: Path, place: SplitConfig) -> SplitConfig | None:
    """The place of a split whose images have a folder for each band, such as `red/`, `green/`, `nir/`."""
    if place.annotations or place.list or not (place.images and place.masks) or not differ_in_band([place.images]):
        return None
    home = (root / place.images).parent
    beside = [(home / name).relative_to(root).as_posix() for name in sorted(os.listdir(home)) if (home / name).is_dir()]
    folders = [folder for folder in beside if differ_in_band([place.images, folder])]
    found = {folder: _in_folder(folder, home.relative_to(root), index_files(root, folder)) for folder in folders}
    own = found[place.images][1]
    patterns = [pattern for pattern, names in found.values() if 2 * len(names & own) >= len(names | own)]
    patterns.sort(key=lambda pattern: _place(_FOLDER.sub(r"\2", pattern.partition("/")[0])))
    if len(patterns) < 2:
        return None
    changes = {"images": home.relative_to(root).as_posix(), "channel_files": tuple(patterns)}
    return place.model_copy(update=changes)


def channel_words(config: DataConfig) -> tuple[str, ...]:
    """What the names of an image's files say of its channels, such as `red` and `nir`; nothing if it is one file."""
    places = [place.channel_files or () for place in (config.splits or {}).values()]
    return tuple(_word(pattern) for pattern in next((files for files in places if len(files) > 1), ()))


def in_order(config: DataConfig, words: Sequence[str]) -> dict[str, SplitConfig]:
    """The splits with the files of each image in the order of `words`, which are those of `config` in another order."""
    return {
        split: place.model_copy(
            update={"channel_files": tuple(sorted(place.channel_files, key=lambda one: words.index(_word(one))))}
        )
        if place.channel_files
        else place
        for split, place in (config.splits or {}).items()
    }


def _in_folder(folder: str, home: Path, files: Index) -> tuple[str, set[str]]:
    """The pattern of a band's files, whose names may begin or end with its word; and what `*` stands for."""
    word, place = str(_FOLDER.sub(r"\2", folder)), Path(folder).relative_to(home).as_posix()
    for form, pattern in ((rf"(?P<end>{word}[_-])(?P<name>.+)", "{}*"), (rf"(?P<name>.+)(?P<end>[_-]{word})", "*{}")):
        found = [re.fullmatch(form, name, re.IGNORECASE) for name in files]
        ends = {one and one["end"] for one in found}
        if len(ends) == 1 and None not in ends:
            return f"{place}/{pattern.format(ends.pop())}", {one["name"] for one in found if one}
    return f"{place}/*", {*files}


def _place(pattern: str) -> tuple[int, int, str]:
    """By what patterns are ordered: the bare name, numbers, words for bands."""
    word = _word(pattern)
    if number := re.fullmatch(r"b?(\d+)a?", word):
        return 1, int(number[1]), word
    return (2, BANDS.index(word), "") if word in BANDS else (0, 0, word)


def _word(pattern: str) -> str:
    """The word for a channel in `*_red`, `red/*` or `red/*_red`."""
    return pattern.partition("/")[0].strip("*_-").lower() or pattern.strip("*/_-").lower()


def _channel_names(*folders: Path) -> list[str]:
    """The names of the channels in nnU-Net's dataset.json, in their order; none if there is no such file."""
    for folder in folders:
        try:
            content = parse_json(read_text(folder / "dataset.json"))
            found = content.get("channel_names") or content.get("modality") or {}
            if all(isinstance(number, int) for number in found.values()):  # name -> number
                found = {str(number): name for name, number in found.items()}
            return [str(found[str(number)]) for number in range(len(found))]
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            continue
    return []
