"""Pairing images with masks, by folders, lists and tables."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NoReturn, TypeAlias

from autoseg.config.data import DataConfig, SplitConfig
from autoseg.data.discovery.lists import find_listed, plain, read_list
from autoseg.data.io.channel_files import ChannelFiles, shared_length
from autoseg.data.io.opening import IMAGE_SUFFIXES, is_hidden, is_image
from autoseg.data.wording import counted
from autoseg.errors import DataError
from autoseg.files import user_path

Pair: TypeAlias = tuple[str, Path, Path]
"""Name, image, mask. The name is the image's path in the folder of images, without suffix."""

_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_gt", "_seg", "_segmentation", "_annotation")
BadFiles: TypeAlias = "list[tuple[str, DataError]] | None"
"""(name, reason) of the images that cannot be used. None: the first one is an error."""
Index: TypeAlias = Mapping[str, list[Path]]
"""Name -> files of that name."""

MASK_VARIANTS = (
    *("", *_ENDINGS, "_L", "_gtFine_labelTrainIds", "_gtFine_labelIds", "_labelTrainIds", "_labelIds"),
    *(form for ending in _ENDINGS for form in (ending.title(), ending.upper())),
)
"""Endings that a mask's stem may have after its image's stem, in the order in which they are tried."""
IMAGE_VARIANTS = ("_leftImg8bit", "_image", "_img", "_sat", "_rgb", "_Image", "_Img", "_Sat", "_IMG", "_RGB")
"""Endings of an image's stem that its mask's stem may lack."""
_WORD = re.compile(r"\d+|[^\W\d_]+")


def checked_root(root: str | Path) -> Path:
    """The data set's folder as an absolute path. Raises: DataError: it is missing, no folder, empty or unreadable."""
    path = user_path(root, DataError).resolve()
    try:
        if not path.exists():
            raise DataError(
                f"the data set folder {path} does not exist; set data.root to the right one", code="folder-missing"
            )
        if not path.is_dir():
            raise DataError(f"{path} is no folder; set data.root to the folder of the data set", code="folder-is-file")
        if next(path.iterdir(), None) is None:
            raise DataError(
                f"the data set folder {path} is empty; put images and masks there, or set data.root to another",
                code="folder-empty",
            )
    except OSError as reason:
        refuse_folder(reason)
    return path


def split_config(config: DataConfig, split: str) -> SplitConfig:
    """The place of a split. Raises: DataError: the data set has no split of that name."""
    splits = config.splits or {}
    if split not in splits:
        raise DataError(
            f"{config.root} has no split '{split}'; it has {', '.join(splits)} (set others with data.splits)",
            code="unknown-split",
        )
    return splits[split]


def pairs_of(config: DataConfig, split: str, bad: BadFiles = None) -> list[Pair]:
    """Every image of a split's folders or list with its mask, in the order of the list or else of the names.

    `bad` gets the images without a pair. Raises: DataError: as `data.splits.list_pairs`.
    """
    root, place = checked_root(config.root or ""), split_config(config, split)
    entries = read_list(root / place.list) if place.list else []
    stems = [entry[0] for entry in entries if len(entry) == 1]
    if place.channel_files and len(stems) < len(entries):
        raise DataError(
            f"{root / (place.list or '')} lists images and masks, but images have several files (channel_files); list"
            " the names of the images alone",
            code="list-with-channels",
        )
    pairs = [
        (without_suffix(image), _find(root, image, place.images), _find(root, mask, place.masks))
        for image, mask in (entry for entry in entries if len(entry) == 2)
        if _both_there(root, place, image, mask, bad)
    ]
    return pairs + (_paired(root, split, place, stems, bad) if stems or not place.list else [])


def _find(root: Path, name: str, folder: str | None) -> Path:
    """The file that a list names, in the data set's folder or else in that of the split's images or masks."""
    found = find_listed(root, name)
    inside = find_listed(root / folder, name) if folder and "*" not in folder else found
    return inside if inside.is_file() and not found.is_file() else found


def pairs_in_one_folder(folder: Path, most: int = 20_000) -> bool:
    """Whether one of the first `most` images of a folder lies beside its mask, such as `a.jpg` and `a_mask.png`."""
    names = {name for name, _ in islice(image_files(folder, "."), most)}
    return any(_mask_among(name, names) for name in names)


def within(root: Path, path: Path) -> str:
    """`path` relative to `root`, if it lies there."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def leave_out(bad: BadFiles, name: str, error: DataError) -> None:
    """Add the sample `name` to `bad`. Raises: DataError: the error, if there is no `bad`."""
    if bad is None:
        raise error
    bad.append((name, error))


# --- folders ----------------------------------------------------------------------------------------------------------


def _paired(root: Path, split: str, config: SplitConfig, stems: list[str], bad: BadFiles) -> list[Pair]:
    """The images of a folder, all or those of `stems`, with the masks of another folder."""
    if config.images is None or config.masks is None:
        raise DataError(
            f"{root / (config.list or '')} lists stems, but {root} has no folders images/ and masks/ to find them in;"
            " write `image mask` on each line, or name the folders in data.splits",
            code="list-without-folders",
        )
    images, masks = images_and_masks(root, split, config)
    faults: dict[str, DataError] = {}
    if config.channel_files:
        images, faults = with_channels(images, config.channel_files)
    matches = match_names(images, masks, config.mask_suffix)
    if not images:
        looked = " and ".join(config.channel_files or (", ".join(IMAGE_SUFFIXES),))
        raise DataError(f"{root / config.images} holds no images; looked for {looked}", code="no-images")
    without = {_listed_name(entry[0], config) for file in config.without or () for entry in read_list(root / file)}
    wanted = [_listed_name(stem, config) for stem in stems] or [name for name in sorted(images) if name not in without]
    missing = [name for name in wanted if name not in images]
    found: list[Pair] = []
    numbered = {_plain_mask(mask): files[0] for mask, files in masks.items() if _plain_mask(mask) != mask}
    further = {masks[mask][0]: file for mask, file in numbered.items() if mask in masks}
    for name in (name for name in wanted if matches.get(name)):
        files = max(images[name], matches[name], key=len)
        if (other := further.get(matches[name][0])) is not None:
            both = " and ".join(within(root, file) for file in (matches[name][0], other))
            text = f"{within(root, images[name][0])} has several masks, {both}; merge them into one mask of labels"
            leave_out(bad, name, DataError(f"{text}, with the image's stem", code="mask-in-parts"))
        elif name in faults:
            leave_out(bad, name, faults[name])
        elif len(files) > 1:
            both = " and ".join(within(root, file) for file in files[:2])
            error = DataError(f"{both} in {root} have the same stem; remove or rename one", code="same-stem-twice")
            leave_out(bad, name, error)
        else:
            found.append((name, images[name][0], matches[name][0]))
    for name in missing:
        error = DataError(
            f"{root / (config.list or '')} lists {name}, which is not in {root / config.images}"
            f" ({len(missing)} of {len(wanted)} are missing); add the images or correct the list",
            code="listed-file-missing",
        )
        leave_out(bad, name, error)
    unpaired = [name for name in wanted if name in images and not matches[name]]
    for name in unpaired:
        missed = f"{len(unpaired)} of {counted(len(wanted), 'image')} without"
        leave_out(bad, name, _without_mask(root, config, name, images, masks, matches, missed))
    return found


def _without_mask(
    root: Path, config: SplitConfig, name: str, images: Index, masks: Index, matches: Index, missed: str
) -> DataError:
    """The error of an image that finds no mask. missed: how many there are."""
    image, folder = within(root, images[name][0]), config.masks or ""
    if len(parts := _parts_of(name, masks, "*" in folder)) > 1:
        text = f"{image} has {len(parts)} masks, such as {within(root, masks[parts[0]][0])}, but none of the whole"
        return DataError(
            f"{text} image; merge them into one mask of labels, with the image's stem", code="mask-in-parts"
        )
    text = f"{image} has no mask in {root / folder} ({missed}); add the masks, with the images' stems, or remove the"
    bases = [name[:place] for place, letter in enumerate(name) if letter in "_-"]
    advice = "images"
    if base := next((base for base in bases if matches.get(base)), None):
        advice += f"; or, if it is a further channel of {base}, set channel_files: ['*', '*{name.removeprefix(base)}'],"
        advice += " beside images and masks in data.splits"
    return DataError(f"{text} {advice}", code="mask-missing")


def match_names(images: Index, masks: Index, suffix: str | None = None) -> dict[str, list[Path]]:
    """The mask files of each image; a pair has exactly one.

    Names match by the usual endings, or by `suffix`; where that is unique, also if only leading zeros differ. If no
    image finds a mask, names match without the words that all images, or all masks, begin and end with: `top_2_10_RGB`
    has the mask `top_2_10_label`.
    """
    found = {name: masks_of(name, masks, suffix) for name in images}
    if suffix is not None:
        return found
    if not all(found.values()):
        found = _by_number(found, images, masks)
    if any(found.values()):
        return found
    by_key: dict[str, list[str]] = {}
    for name, key in _keys(masks).items():
        by_key.setdefault(key, []).append(name)
    return {
        name: [file for mask in by_key.get(key, ()) if _agree(name, mask) for file in masks[mask]]
        for name, key in _keys(images).items()
    }


def are_named_alike(images: Index, masks: Index) -> bool:
    """Whether an image finds its mask by its own name, not only by what is left of all names."""
    return any(masks_of(name, masks, None) for name in images)


def _by_number(found: dict[str, list[Path]], images: Index, masks: Index) -> dict[str, list[Path]]:
    """`found`; images without a mask get the only one whose name differs in leading zeros alone."""
    shortened = {name: _without_zeros(name) for name in images}
    counts = Counter(shortened.values())
    by_name: dict[str, list[Path]] = {}
    for name in masks:
        by_name.setdefault(_without_zeros(name), []).extend(masks[name])
    alone = {name: short for name, short in shortened.items() if counts[short] == 1 and not found[name]}
    more = {name: masks_of(short, by_name, None) for name, short in alone.items()}
    return found | {name: files for name, files in more.items() if len(files) == 1}


def _without_zeros(name: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _agree(image: str, mask: str) -> bool:
    """Whether the numbers of one name are all in the other, in their order: `p2_s1` is not `m_p1_s2`."""
    short, long = sorted((re.findall(r"\d+", Path(name).name) for name in (image, mask)), key=len)
    rest = iter(long)
    return all(number in rest for number in short)


def _keys(names: Iterable[str]) -> dict[str, str]:
    """Name -> the name without the words that all names begin and end with; folders stay."""
    words = {name: _WORD.findall(Path(name).name) for name in names}
    first = shared_length(words.values())
    last = shared_length(way[first:][::-1] for way in words.values())
    return {
        name: Path(name).with_name("_".join(way[first : len(way) - last]) or Path(name).name).as_posix()
        for name, way in words.items()
    }


def _parts_of(name: str, masks: Index, own_folder: bool) -> list[str]:
    """The masks of parts of an image, such as its objects: `a_0` and `a_1` of `a`, `007_hair` of `7`.

    own_folder: each image has a folder of masks; all masks there are its parts.
    """
    if own_folder and "/" in name:
        return [mask for mask in masks if Path(mask).parent == Path(name).parent]
    stem = Path(name).name
    begins = re.compile((f"0*{int(stem)}" if stem.isdecimal() else re.escape(stem)) + "[_-]")
    return [mask for mask in masks if begins.match(Path(mask).name)]


def images_and_masks(root: Path, split: str, config: SplitConfig) -> tuple[Index, Index]:
    """The files of a split's images, by names without `image_suffix`, and of its masks. Raises: DataError."""
    assert config.images is not None and config.masks is not None  # noqa: PT018 - for the type checker alone
    files = index_files(root, config.images)
    together = config.images == config.masks
    masks: Index = files if together else index_files(root, config.masks)
    inside = os.path.relpath(root / config.masks, root / config.images) + os.sep
    images: Index = {name: paths for name, paths in files.items() if not name.startswith(inside)}
    if config.channel_files and together:
        ending = config.mask_suffix or MASK_VARIANTS[1:]
        images = {name: paths for name, paths in files.items() if not name.endswith(ending)}
        masks = {name: paths for name, paths in files.items() if name.endswith(ending)}
    elif config.image_suffix:
        ending = config.image_suffix
        images = {name.removesuffix(ending): paths for name, paths in images.items() if name.endswith(ending)}
        masks = {name: paths for name, paths in masks.items() if not (together and name.endswith(ending))}
    elif together:
        used = {variant for name in files for variant in _mask_among(name, files)}
        if not used and config.mask_suffix is None:
            raise DataError(
                f"split '{split}' has its images and masks in one folder, {config.images}, but no mask that is named as"
                " its image, such as a.jpg and a_mask.png; name them so, use two folders, or set data.splits",
                code="no-mask-in-folder",
            )
        endings = tuple(used if config.mask_suffix is None else [config.mask_suffix])
        are_masks = {name for name in files if _plain_mask(name).endswith(endings)}
        images = {name: paths for name, paths in files.items() if name not in are_masks}
        masks = {name: paths for name, paths in files.items() if name in are_masks}
    return images, masks


def _listed_name(stem: str, config: SplitConfig) -> str:
    """The name of an image in a list, which may have the folder of images before it, and a suffix."""
    return without_suffix(stem).removeprefix("./").removeprefix(f"{config.images}/")


def _plain_mask(name: str) -> str:
    """The name of a mask without its number: `a_mask_1` is another mask of `a`, as `a_mask` is."""
    plain_name = re.sub(r"[_-]\d+$", "", name)
    return plain_name if plain_name.endswith(MASK_VARIANTS[1:]) else name


def _mask_among(name: str, names: Mapping[str, object] | set[str]) -> list[str]:
    """The endings with which `names` has a mask of the image `name`."""
    return [ending for ending in MASK_VARIANTS if ending and any(base + ending in names for base in _bases(name))]


def masks_of(name: str, masks: Index, suffix: str | None) -> list[Path]:
    """The files of the first mask name that fits an image; several where one name has several files."""
    variants = MASK_VARIANTS if suffix is None else (suffix,)
    return next((masks[base + end] for base in _bases(name) for end in variants if base + end in masks), [])


def _bases(name: str) -> list[str]:
    """An image's name with and without its ending."""
    return [name, *(name.removesuffix(ending) for ending in IMAGE_VARIANTS if name.endswith(ending))]


def index_files(root: Path, folder: str) -> Index:
    """Path in `folder` without suffix -> image files of that name. Subfolders count, hidden files do not.

    A part `*` of `folder` stands for any folder, whose name then begins the path: `Urban/7` in `Train/*/images`.
    Raises: DataError: there is no such folder, or it is unreadable.
    """
    files: dict[str, list[Path]] = {}
    for name, path in image_files(root, folder):
        files.setdefault(name, []).append(path)
    return files


def image_files(root: Path, folder: str) -> Iterator[tuple[str, Path]]:
    """The names and files of `index_files`, folder by folder in the order of names. Raises: DataError: as there."""
    for prefix, place in _folders(root, folder):
        for inside, _, files in _walk(place):
            for path in (inside / name for name in files if is_image(name)):
                yield plain(prefix + path.relative_to(place).with_suffix("").as_posix()), path


def _folders(root: Path, folder: str) -> list[tuple[str, Path]]:
    """The names that stand for each `*`, each followed by `/`, and the folder. Raises: DataError: there is none."""
    found = [("", root)]
    for part in Path(folder).parts:
        if part == "*":
            found = [(f"{prefix}{name}/", place / name) for prefix, place in found for name in next(_walk(place))[1]]
        else:
            found = [(prefix, place / part) for prefix, place in found]
    found = [(prefix, place) for prefix, place in found if place.is_dir()]
    if not found:
        raise DataError(f"{root / folder} is no folder; make it, or correct data.splits", code="folder-missing")
    return found


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, in the order of names and without hidden files, following links. Raises: DataError."""
    for folder, folders, files in os.walk(root, onerror=refuse_folder, followlinks=True):
        place = Path(folder)
        if place.is_symlink() and place.parent.resolve().is_relative_to(place.resolve()):
            raise DataError(
                f"{place} is a symbolic link to a folder that it lies in; remove the link", code="folder-link-loop"
            )
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield place, folders, sorted(name for name in files if not is_hidden(name))


def refuse_folder(reason: OSError) -> NoReturn:
    """Raises: DataError: a folder cannot be listed for `reason`."""
    raise DataError(
        f"{reason.filename} cannot be looked into ({reason.strerror}); change its permissions, or remove it",
        code="folder-unreadable",
    ) from None


# --- images of several files ------------------------------------------------------------------------------------------


def with_channels(files: Index, patterns: Sequence[str]) -> tuple[Index, dict[str, DataError]]:
    """The images that files make up by `channel_files`, and why some cannot be used; these lack files, or have two.

    Files that fit no pattern are left out.
    """
    halves = {pattern: pattern.split("*") for pattern in sorted(patterns, key=len, reverse=True)}
    found: dict[str, dict[str, list[Path]]] = {}
    for name, paths in files.items():
        for pattern, (first, last) in halves.items():
            if name.startswith(first) and name.endswith(last) and len(name) >= len(pattern):
                found.setdefault(name[len(first) : len(name) - len(last)], {})[pattern] = paths
                break
    images: dict[str, list[Path]] = {}
    faults: dict[str, DataError] = {}
    for name, by_pattern in found.items():
        own = [by_pattern[pattern][0] for pattern in patterns if pattern in by_pattern]
        images[name] = [ChannelFiles.of(own) if len(own) > 1 else own[0]]
        lacking = [pattern.replace("*", name) for pattern in patterns if pattern not in by_pattern]
        twice = next((paths for paths in by_pattern.values() if len(paths) > 1), None)
        if lacking:
            text = f"{own[0]} is one of {len(patterns)} channel files of its image, of which {' and '.join(lacking)}"
            what = f"{'is' if len(lacking) == 1 else 'are'} missing; add what is missing, or remove the image"
            faults[name] = DataError(f"{text} {what}", code="channel-missing")
        elif twice:
            text = f"{twice[0]} and {twice[1].name} are the same channel of one image; remove or rename one"
            faults[name] = DataError(text, code="same-stem-twice")
    return images, faults


# --- lists ------------------------------------------------------------------------------------------------------------


def _both_there(root: Path, place: SplitConfig, image: str, mask: str, bad: BadFiles) -> bool:
    for file, folder in ((image, place.images), (mask, place.masks)):
        if not _find(root, file, folder).is_file():
            error = DataError(
                f"{root / (place.list or '')} lists {file}, which is not in {root}; add the file or correct the list",
                code="listed-file-missing",
            )
            leave_out(bad, without_suffix(image), error)
            return False
    return True


def without_suffix(name: str) -> str:
    """A path without the suffix of an image; other endings stay."""
    path = Path(name)
    return path.with_suffix("").as_posix() if is_image(path.name) else path.as_posix()
