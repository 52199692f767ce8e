"""Recognising public data sets: each is a YAML file in `data_sets/`, or a file of the user's own.

A file has the keys of `KnownDataset`. If a data set comes in several forms, `forms` lists what each changes in these
keys; each form is a `KnownDataset`, and the first that fits a folder counts. In paths and names, `{split}` is the
value that `splits` has for a split, and `{a,b}` is `a` or else `b`, as in a shell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache, partial
from glob import iglob
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from autoseg.config.base import Flag, Settings, Whole, merge, parse
from autoseg.config.data import ANNOTATIONS, TITLES, Byte, SplitConfig
from autoseg.data.annotations.layout import find_annotated, find_named, find_own
from autoseg.data.discovery.folder_layouts import FoundLayout, find_folder, find_lists, image_folders, pick, split_of
from autoseg.data.discovery.lists import read_list
from autoseg.data.discovery.pairs import image_files, refuse_folder
from autoseg.data.io.colour_tables import ClassRow, Colour, is_ignored, read_class_table
from autoseg.data.io.masks import first_in_colour
from autoseg.data.io.opening import is_hidden
from autoseg.errors import DataError
from autoseg.files import read_yaml, user_path
from autoseg.library import hint, library, names_in

Labels = tuple[Annotated[Whole, Field(ge=0, le=65535)] | Annotated[str, Field(pattern=r"^\d+-\d+$")], ...]
"""Labels, or ranges of them: `7`, `1-150`."""
Find = Callable[[Path], FoundLayout | None]

FIRST_NAMES = 50
"""Number of image or mask names that `Detect` looks at."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_LABELS = ("classes", "labels", "ignored_labels", "ignore_label")
_KNOWN = (
    "folders of images and of masks by their names, such as train/ with train_masks/, images/train with masks/train,"
    " or images/ with labels/, annotations/ or gt/; a.jpg beside a_mask.png; JPEGImages with SegmentationClass; the"
    " folders of {}; and train.txt or train.csv, which lists images and masks"
)


class Detect(Settings):
    """Conditions besides the folders that identify a data set. All that are given must hold."""

    files: tuple[str, ...] = ()
    """Globs of files or folders that must exist."""
    image_names: str | None = None
    """A glob that one of the first image names, without suffix, must match."""
    mask_names: str | None = None
    """As `image_names`, for masks."""
    masks_in_colour: Flag | None = None
    """Whether the first mask that can be read must be in colour."""


class KnownDataset(Settings):
    """A form of a data set that autoseg recognises: where its files lie, and what their labels mean."""

    name: str
    """The value of `data.layout`: the file's name, or the path of a file of the user's own."""
    title: str
    labels_of: str | None = None
    """The known data set that has the same classes and labels."""
    variant_of: str | None = None
    """The known data set whose name as `data.layout` also selects this one."""
    detect: Detect = Detect()
    splits: Literal["any"] | Annotated[dict[str, str], Field(min_length=1)]
    """Split -> value of `{split}` in the paths. any: any folders of images and masks whose names tell their splits."""
    images: str | None = None
    masks: str | None = None
    list: str | None = None
    """The file that lists a split's images. Default: all images of the folder."""
    image_suffix: str | None = None
    mask_suffix: str | None = None
    """As in `data.splits`."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    class_file: str | None = None
    """A file in the data set that names the classes; `read_class_table` reads it."""
    labels: Labels | None = None
    """The label of each class in the masks. Default: 0, 1, ..."""
    ignored_labels: Labels = ()
    """Further labels in the masks, which are ignored."""
    ignore_label: Annotated[Whole, Field(ge=0, le=65535)] | None = None
    """Default: 255."""
    colours: dict[str, tuple[tuple[Byte, Byte, Byte], ...]] | None = None
    """Class -> its colour or colours in colour-coded masks; classes named `ignore`, `void` and the like are ignored."""

    @field_validator("colours", mode="before")
    @classmethod
    def _one_or_several(cls, colours: object) -> object:
        if not isinstance(colours, dict):
            return colours
        one = (isinstance(some, list) and some and isinstance(some[0], int) for some in colours.values())
        return {name: [some] if single else some for (name, some), single in zip(colours.items(), one, strict=True)}

    @property
    def ignored(self) -> int:
        """The ignore label."""
        return 255 if self.ignore_label is None else self.ignore_label

    @model_validator(mode="after")
    def _enough(self) -> KnownDataset:
        if self.splits != "any" and (self.images is None or self.masks is None):
            raise ValueError("needs 'images' and 'masks', the folders of each split (or splits: any)")
        stored, number = numbers(self.labels or ()), len(self.classes or ())
        if stored and len(stored) != number:
            raise ValueError(f"'classes' has {number} names, but 'labels' {len(stored)} labels")
        if stored and self.colours:
            raise ValueError("'labels' and 'colours' both say which class is which; leave one out (labels: null)")
        numbers(self.ignored_labels)
        for name in self.colours or ():
            if name not in (self.classes or ()) and not is_ignored(name):
                raise ValueError(f"'colours' has {name!r}, which is none of 'classes'")
        return self


# --- files ------------------------------------------------------------------------------------------------------------


def read_known(path: Path, name: str) -> tuple[KnownDataset, ...]:
    """The forms of the data set that a file describes. Raises: DataError: a mistake, with file and key."""
    data = read_yaml(path, DataError)
    if isinstance(source := data.get("labels_of"), str):
        data = _labels_of(source, path) | data
    forms = data.pop("forms", [{}])
    if not isinstance(forms, list) or not forms or not all(isinstance(form, dict) for form in forms):
        raise DataError(f"forms: should be a list of at least 1 mapping ({path})", code="setting-invalid")
    wheres = [str(path)] if len(forms) == 1 else [f"{path}, form {place}" for place in range(1, len(forms) + 1)]
    return tuple(
        parse(KnownDataset, {"name": name, **merge(data, form)}, where, DataError)
        for form, where in zip(forms, wheres, strict=True)
    )


def _labels_of(source: str, path: Path) -> dict[str, Any]:
    """The keys on classes and labels of the known data set `source`, which `path` names. Raises: DataError: unknown."""
    if source not in (known := names_in(library("data_sets"))):
        raise DataError(
            f"labels_of: unknown data set '{source}' ({path}) ({hint(source, known)})", code="unknown-layout"
        )
    data = read_yaml(library("data_sets") / f"{source}.yaml", DataError)
    base = _labels_of(data["labels_of"], path) if "labels_of" in data else {}
    return base | {key: data[key] for key in _LABELS if key in data}


def known_datasets() -> tuple[KnownDataset, ...]:
    """All forms of the data sets in `data_sets/`, which come in alphabetical order."""
    return _read_all(library("data_sets"))


@cache
def _read_all(folder: Path) -> tuple[KnownDataset, ...]:
    return tuple(known for name in names_in(folder) for known in read_known(folder / f"{name}.yaml", name))


def title_of(layout: str) -> str:
    """The title of a layout; the file name if a file of the user's own no longer exists."""
    titles = TITLES | {known.name: known.title for known in known_datasets()}
    if layout in titles:
        return titles[layout]
    try:
        return read_known(Path(layout), layout)[0].title
    except DataError:
        return Path(layout).stem


def known_label_maps() -> list[dict[int, int]]:
    """The label maps of the known data sets, without empty ones."""
    maps = (_labels(known)[0] for known in known_datasets())
    return [label_map for label_map in maps if label_map]


def numbers(labels: Labels) -> list[int]:
    """All labels, with ranges expanded. Raises: ValueError: a range that ends before it begins, or above 65535."""
    found: list[int] = []
    for label in labels:
        first, last = (label, label) if isinstance(label, int) else map(int, label.split("-"))
        if not first <= last <= 65535:
            raise ValueError(f"{label} is no range of labels, which are 0..65535")
        found += range(first, last + 1)
    return found


def alternatives(pattern: str) -> list[str]:
    """Expand braces: `a{b,c}` to `ab`, `ac`; the first braces change slowest."""
    if (found := _BRACES.search(pattern)) is None:
        return [pattern]
    both = pattern[: found.start()], pattern[found.end() :]
    return [text for choice in found[1].split(",") for text in alternatives(choice.join(both))]


# --- matching ---------------------------------------------------------------------------------------------------------


def find_layout(root: Path, name: str = "auto") -> tuple[Path, FoundLayout]:
    """The folder of a data set, and its layout: the one named, or the most specific one that fits.

    The folder is `root` or the only folder in it, as in unpacked archives. `name`: a data set in `data_sets/`,
    `folder`, `list`, or the path of such a YAML file.
    Raises: DataError: no layout fits, the one named does not fit, or its file has a mistake.
    """
    wanted = _finders(name)
    try:
        places = [root]
        while inside := _only_folder(places[-1]):
            places.append(inside)
        for folder in reversed(places):  # from outside, a known data set looks like any folder of images and masks
            for find in wanted:
                if found := find(folder):
                    return folder, found
    except OSError as reason:
        refuse_folder(reason)
    if name == "auto":
        raise _no_layout(root)
    raise DataError(
        f"{root} is not laid out as {title_of(name)}; correct data.root, or leave data.layout out",
        code="layout-differs",
    )


def _finders(name: str) -> list[Find]:
    """The layouts to try, in this order: known sets with fixed folders, those in any folders, and any folders."""
    folder: Find = cache(find_folder)  # several forms ask for it
    if name in ANNOTATIONS:
        return [partial(find_named, layout=name)]
    others = {"folder": folder, "list": find_lists}
    if name in others:
        return [others[name]]
    chosen = [known for known in known_datasets() if name in ("auto", known.name, known.variant_of)]
    if not chosen:
        path = user_path(name, DataError).resolve()
        chosen = list(read_known(path, str(path)))
    chosen.sort(key=lambda known: known.splits == "any")
    found: list[Find] = [partial(_match, known, folder) for known in chosen]
    return [*found, find_annotated, partial(find_own, folder), find_lists] if name == "auto" else found


def _match(known: KnownDataset, find_any: Find, root: Path) -> FoundLayout | None:
    """The layout of `root` by a known data set; None if it does not fit."""
    splits = _splits(known, find_any, root)
    if not splits or not _is_detected(known.detect, root, splits):
        return None
    classes, (label_map, colours) = known.classes, _labels(known)
    if known.class_file is not None:
        file = pick(root, alternatives(known.class_file))
        table = read_class_table(root / file) if file else []
        if classes is not None:
            classes = tuple(row.name for row in table) if len(table) == len(classes) else classes
        elif table:
            classes, label_map, colours = _from_table(table, known.ignored)
            colours = colours if _is_coloured(root, splits) else {}
        else:
            return None
    if classes is None:
        return FoundLayout(known.name, splits)
    sure = known.class_file is not None
    return FoundLayout(known.name, splits, classes, label_map, known.ignored, colours or None, sure=sure)


def _from_table(
    table: Sequence[ClassRow], ignored: int
) -> tuple[tuple[str, ...], dict[int, int], dict[str | int, Colour]]:
    """Classes, label map and colours of a table; if labels share a colour, the first has it."""
    used = [label for label, row in enumerate(table) if row.used]
    label_map = dict.fromkeys(range(len(table)), ignored) | {label: number for number, label in enumerate(used)}
    colours: dict[str | int, Colour] = {}
    for label, row in enumerate(table):
        if row.colour is not None and row.colour not in colours.values():
            colours[label] = row.colour
    return tuple(table[label].name for label in used), label_map, colours


def _labels(known: KnownDataset) -> tuple[dict[int, int], dict[str | int, Colour]]:
    """Label map and colours of a known data set; the colours have the labels 0, 1, ... in their order."""
    classes, ignored = known.classes or (), known.ignored
    if known.colours is not None:
        rows = [(name, colour) for name, colours in known.colours.items() for colour in colours]
        label_map = {n: classes.index(name) if name in classes else ignored for n, (name, _) in enumerate(rows)}
        return label_map, {number: colour for number, (_, colour) in enumerate(rows)}
    if known.labels is None:
        return {}, {}
    used = {label: number for number, label in enumerate(numbers(known.labels))}
    return dict.fromkeys(numbers(known.ignored_labels), ignored) | used, {}


def _splits(known: KnownDataset, find_any: Find, root: Path) -> Mapping[str, SplitConfig]:
    """The splits of `known` that exist in `root`."""
    if known.splits == "any":
        found = find_any(root)
        splits = {} if found is None else found.splits
        return splits if all(_holds_masks(root, place) for place in splits.values()) else {}
    places = {split: _place(root, known, value) for split, value in known.splits.items()}
    return {split: place for split, place in places.items() if place is not None}


def _holds_masks(root: Path, place: SplitConfig) -> bool:
    """Whether a split has two folders of its own, the second with masks and not, say, YOLO's text files."""
    own = place.images and place.masks and place.part is None
    return bool(own and any(image_files(root, place.masks or "")))


def _place(root: Path, known: KnownDataset, value: str) -> SplitConfig | None:
    """The place of a split; None if a part of it is missing."""
    places: dict[str, Any] = {}
    for key in ("images", "masks", "list"):
        if template := getattr(known, key):
            place = pick(root, alternatives(template.replace("{split}", value)))
            if place is None:
                return None
            places[key] = place
    return SplitConfig(**places, image_suffix=known.image_suffix, mask_suffix=known.mask_suffix)


def _is_detected(detect: Detect, root: Path, splits: Mapping[str, SplitConfig]) -> bool:
    """Whether all conditions hold in `root`."""
    for pattern in detect.files:
        if not any(any(iglob(name, root_dir=root, recursive=True)) for name in alternatives(pattern)):
            return False
    return (
        (detect.image_names is None or _is_any_named(detect.image_names, root, splits, "images"))
        and (detect.mask_names is None or _is_any_named(detect.mask_names, root, splits, "masks"))
        and (detect.masks_in_colour is None or _is_coloured(root, splits) == detect.masks_in_colour)
    )


def _is_any_named(pattern: str, root: Path, splits: Mapping[str, SplitConfig], key: Literal["images", "masks"]) -> bool:
    """Whether one of the first names matches `pattern`, in the first split that has files."""
    for place in splits.values():
        if place.list is not None and key == "images":
            found = (Path(entry[0]) for entry in read_list(root / place.list))
        else:
            found = (path for _, path in image_files(root, getattr(place, key)))
        if names := [path.stem for path in islice(found, FIRST_NAMES)]:
            return any(fnmatchcase(name, choice) for name in names for choice in alternatives(pattern))
    return False


def _is_coloured(root: Path, splits: Mapping[str, SplitConfig]) -> bool:
    """Whether the first mask that can be read is in colour."""
    masks = next(iter(splits.values())).masks or ""
    return first_in_colour(path for _, path in image_files(root, masks)) is not None


def _only_folder(root: Path) -> Path | None:
    """The folder in `root`, if `root` holds nothing else and its name tells no split."""
    inside = [path for path in islice(root.iterdir(), 20) if not is_hidden(path.name)]
    alone = len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink()
    return inside[0] if alone and split_of(inside[0].name) is None else None


def _no_layout(root: Path) -> DataError:
    """The error for a folder that is no data set."""
    places = image_folders(root)
    held = f" (images are in {', '.join(places[:4])}{', ...' * (len(places) > 4)})" if places else ""
    looked_for = _KNOWN.format(", ".join(dict.fromkeys(known.title for known in known_datasets())))
    return DataError(
        f"{root} has no layout that is known{held}; looked for {looked_for}; or say where they lie with data.splits",
        code="unknown-layout",
    )
