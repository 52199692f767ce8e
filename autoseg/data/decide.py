"""Deciding what a data set is from all of its files: runs and `check-data` both do it here.

Each decision is a function of the settings and of what was seen. It returns what is decided and one line that says it,
or a DataError where the files contradict each other or leave it open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.config.data import DataConfig, Orientation
from autoseg.data.base import LABELS
from autoseg.data.discovery.label_names import names_beside
from autoseg.data.discovery.label_values import TOPS, LabelReading, listed, read_labels
from autoseg.data.io.channel_files import files_of, shared_length
from autoseg.data.io.colour_tables import (
    MOST_COLOURS,
    Colour,
    ColourTable,
    MaskTable,
    as_colour,
    is_ignored,
    named_classes,
    table_beside,
)
from autoseg.data.io.images import read_image
from autoseg.data.io.masks import BRIGHT, MIDDLE, MaskFacts, read_mask
from autoseg.data.io.opening import Header, read_header
from autoseg.data.look import PairLook
from autoseg.data.wording import counted
from autoseg.errors import DataError

IGNORE_LABEL, WIDE_IGNORE_LABEL = 255, 65535
"""The ignore label if neither the user nor a known layout sets one; the second one beside 256 classes or more."""
ALPHA_FILES = 12
"""Number of images whose alpha channel is looked at."""
SHADES = 8
"""Least number of values between black and white that shows blurred edges instead of labels."""
LEAST_SCALE = 40
"""Least factor between two ways of writing the same classes, such as 0, 1 and 0, 255."""
LEAST_COUNTS = 5
"""Least number of different lengths of labels that count 1, 2, ... in every mask, if they number objects."""
LEAST_OBJECTS = 3
"""Least number of labels of one thousand, such as 26000, 26001 and 26002, if they number objects."""
MOST_IN_A_MASK = 150
"""Largest number of different labels in a mask; a file with more is taken for an image."""


class Decided(NamedTuple):
    """A decision: settings, and what to say of it."""

    settings: dict[str, Any]
    said: tuple[str, ...] = ()


class SeenMask(NamedTuple):
    """The labels of a mask, ascending, and the pixels of each; the error of one that cannot be used."""

    labels: NDArray[np.int64]
    pixels: NDArray[np.int64]
    error: DataError | None = None
    edges: frozenset[int] = frozenset()
    """Labels that fill no small square, so that they occur at edges or in thin lines alone."""
    path: Path | None = None


def palette(config: DataConfig, looks: Sequence[PairLook]) -> Decided:
    """The colour of each class, if masks are in colour or have palettes that show all classes."""
    classes, label_map = config.classes or (), config.label_map or {}
    if config.palette is not None or not classes:
        return Decided({})
    found: dict[int, Colour] = {}
    if config.colours is not None:
        labels = {name: number for number, name in enumerate(named_classes(config.colours))}
        shown = {labels.get(key, -1) if isinstance(key, str) else key: colour for key, colour in config.colours.items()}
    else:
        masks = [look.mask.palette or {} for look in looks if isinstance(look.mask, MaskFacts)]
        shown = {index: colour for mask in masks for index, colour in mask.items()}
    for label, colour in shown.items():
        found.setdefault(label_map.get(label, label), colour)
    if not all(label in found for label in range(len(classes))):
        return Decided({})
    return Decided({"palette": tuple(found[label] for label in range(len(classes)))})


def ignored_label(config: DataConfig) -> int:
    """The ignore label that is set, or else the usual one."""
    if config.ignore_label is not None:
        return config.ignore_label
    return WIDE_IGNORE_LABEL if (config.num_classes or len(config.classes or ())) > IGNORE_LABEL else IGNORE_LABEL


def mask_table_of(config: DataConfig) -> MaskTable | None:
    """How the values in masks become labels; None if they are labels."""
    return config.mask_threshold if config.colours is None else ColourTable(config.colours, ignored_label(config))


# --- the form of masks ------------------------------------------------------------------------------------------------


def mask_form(config: DataConfig, looks: Sequence[PairLook]) -> Decided:
    """`colours` or `mask_threshold`, if the masks hold no labels.

    Colours come from a table in the data set's folder, its parent, or a folder of masks.
    Raises: DataError: palettes contradict each other, or masks are in colour, and no table says which class is which.
    """
    if config.colours is not None or config.mask_threshold is not None:
        return Decided({})
    masks = [(look.pair[2], look.mask) for look in looks if isinstance(look.mask, MaskFacts)]
    coloured = [path for path, mask in masks if mask.kind == "colours"]
    clash = None if coloured else _palette_clash(masks)
    if coloured or clash:
        if colours := _colours_beside(config):
            return Decided({"colours": colours}, ("masks are read by their colours, from the table beside them",))
        if clash:
            raise DataError(clash, code="palettes-differ")
        if 2 * len(coloured) > len(masks):  # fewer are faults of their own
            raise _error_of(coloured[0], None)
    elif colours := _colours_of_palettes(config, masks):
        return Decided({"colours": colours}, ("masks are read by the colours of their palettes, which a table names",))
    classes = config.num_classes or len(config.classes or ())
    if classes in (0, 2) and config.label_map is None and is_black_and_white([mask for _, mask in masks]):
        text = f"masks are black and white with blurred edges: {MIDDLE} or more is class 1"
        return Decided({"mask_threshold": MIDDLE}, (text,))
    return Decided({})


def _colours_beside(config: DataConfig) -> dict[str | int, Colour] | None:
    root = Path(config.root or "")
    places = [root / split.masks for split in (config.splits or {}).values() if split.masks and "*" not in split.masks]
    return table_beside(root, root.parent, *homes(config)[1:], *dict.fromkeys(places))


def _colours_of_palettes(config: DataConfig, masks: Sequence[tuple[Path, MaskFacts]]) -> dict[str | int, Colour] | None:
    """The table beside masks with palettes, if it names all their colours and nothing else names their labels."""
    if not masks or any(mask.palette is None for _, mask in masks):
        return None
    if config.classes or config.num_classes or config.label_map is not None or names_beside(*homes(config)):
        return None
    try:
        table = _colours_beside(config)
    except DataError:  # a file that only masks in colour need
        return None
    if table is None or not all(isinstance(name, str) for name in table):
        return None
    used = {index: colour for _, mask in masks for index, colour in (mask.palette or {}).items()}
    border = used.get(TOPS[0])  # as in PASCAL VOC
    if border is not None and border not in table.values() and not any(map(is_ignored, map(str, table))):
        table = {**table, "ignore": border}
    return table if len(used) > 1 and {*used.values()} <= {*table.values()} else None


def _palette_clash(masks: Sequence[tuple[Path, MaskFacts]]) -> str | None:
    """Why palette indices are no labels: files give one index different colours."""
    colour_of: dict[int, tuple[Colour, Path]] = {}
    for path, mask in masks:
        for index, colour in (mask.palette or {}).items():
            known, first = colour_of.setdefault(index, (colour, path))
            if known != colour:
                return (
                    f"index {index} is {list(colour)} in the palette of {path}, but {list(known)} in that of {first},"
                    " so indices are no labels; set data.colours, by which masks are then read"
                )
    return None


def is_black_and_white(masks: Sequence[MaskFacts]) -> bool:
    """Whether all masks show two classes in black and white, and edges are blurred, as in JPEGs and enlarged masks."""
    if not masks or any(mask.shades is None for mask in masks):
        return False
    blurred = any(mask.kind == "lossy" or (mask.shades or 0) > 0 for mask in masks)
    between = {value for mask in masks for value in mask.values.tolist()} if blurred else set()
    bright = any((mask.values >= BRIGHT).any() for mask in masks)
    return bright and (any(mask.kind == "lossy" for mask in masks) or len(between) >= SHADES + 2)


def colours_seen(looks: Sequence[PairLook]) -> list[Colour] | None:
    """The colours of all masks, the commonest first; None if there are more than any table has."""
    totals: Counter[Colour] = Counter()
    for mask in (look.mask for look in looks if isinstance(look.mask, MaskFacts)):
        for value, pixels in zip(mask.values.tolist(), mask.pixels.tolist(), strict=True):
            totals[_shown(mask, value)] += pixels
    if len(totals) > MOST_COLOURS:
        return None
    return [colour for colour, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))]


def _shown(mask: MaskFacts, value: int) -> Colour:
    """The colour of a value in a mask."""
    if mask.kind == "colours":
        return as_colour(value)
    return (mask.palette or {}).get(value, (value, value, value))


# --- the labels -------------------------------------------------------------------------------------------------------


def seen_labels(config: DataConfig, look: PairLook) -> SeenMask:
    """The labels of a mask by `config`'s colours or threshold."""
    nothing = np.zeros(0, dtype=np.int64)
    if isinstance(look.mask, DataError):
        return SeenMask(nothing, nothing, look.mask, path=look.pair[2])
    mask, table, path = look.mask, mask_table_of(config), look.pair[2]
    labels = mask.values
    if isinstance(table, int):
        labels = (labels >= table).astype(np.int64)
    elif table is not None:
        colours = np.array([_shown(mask, value) for value in mask.values.tolist()], dtype=np.uint8).reshape(1, -1, 3)
        try:
            labels = table.read(colours, path).reshape(-1).astype(np.int64)
        except DataError:
            return SeenMask(nothing, nothing, _error_of(path, table), path=path)
    elif mask.kind != "labels":
        return SeenMask(nothing, nothing, _error_of(path, None), path=path)
    found, places = np.unique(labels, return_inverse=True)
    pixels = np.bincount(places, mask.pixels, len(found)).astype(np.int64)
    error = _label_error(path, found, config.num_classes or len(config.classes or ()))
    edges = frozenset(found.tolist()) - set((found if mask.flat is None or table is not None else mask.flat).tolist())
    return SeenMask(found, pixels, error, edges, path)


def _error_of(path: Path, table: MaskTable | None) -> DataError:
    try:
        read_mask(path, table)
    except DataError as reason:
        return reason
    return DataError(f"{path} has changed while it was read; start again", code="file-changed")


def _label_error(path: Path, labels: NDArray[np.int64], classes: int) -> DataError | None:
    if labels.size and not 0 <= int(labels[0]) <= int(labels[-1]) < LABELS:
        return DataError(f"{path} has labels outside 0..{LABELS - 1}; correct the mask", code="label-out-of-range")
    if labels.size > max(MOST_IN_A_MASK, classes + 1):
        return DataError(
            f"{path} has {labels.size} different labels, as an image would; are images and masks in swapped"
            " folders? If not, set data.num_classes",
            code="mask-like-photo",
        )
    return None


def decide_classes(config: DataConfig, masks: Sequence[SeenMask]) -> Decided:
    """Classes, label map and ignore label, by what is set, by the names beside the data, or by the labels of all masks.

    Raises: DataError: as `read_labels`; or masks write the same classes in two ways.
    """
    by_mask = [set(mask.labels.tolist()) for mask in masks if mask.error is None]
    seen = set[int]().union(*by_mask)
    ignored = ignored_label(config)
    named = named_classes(config.colours or {})
    if len(named) > 1 and config.label_map is None and config.num_classes in (None, len(named)):
        return Decided({"classes": config.classes or named, "num_classes": len(named), "ignore_label": ignored})
    given = config.label_map or {}
    own = config.classes is not None or config.num_classes is not None
    if config.label_map == {} and not own:  # the user's own: labels stay
        count = max(seen - {ignored}, default=0) + 1
        config = config.model_copy(update={"num_classes": max(2, count)})
    used = {given.get(label, label) for label in seen}
    if config.mask_threshold is not None and not config.colours:
        used |= {0, 1}
    own = config.classes is not None or config.num_classes is not None
    files = [] if config.classes is not None else names_beside(*homes(config))
    unset = config.label_map is None and config.mask_threshold is None and config.colours is None
    if unset and not own and not files:
        _refuse_odd_labels([mask for mask in masks if mask.error is None], str(config.root))
    if config.label_map is None and (others := _other_scale(by_mask)):
        raise DataError(
            f"some masks in {config.root} hold the labels {listed(sorted(seen - others))}, and others"
            f" {listed(sorted(others | {0}))}, as if the same classes were written in two ways; rewrite some, or set"
            " data.label_map",
            code="labels-unclear",
        )
    if own and config.label_map is not None:
        reading = _as_set(config, used, ignored)
    else:
        is_set = config.ignore_label is not None or ignored in given.values()
        where, own_ignored = str(config.root), ignored if is_set else None
        try:
            reading = read_labels(used, where, own_ignored, files, config.classes, config.num_classes)
        except DataError as reason:
            raise DataError(f"{reason}{_where_alone(masks)}", code=reason.code) from None
    wide = len(reading.classes) > IGNORE_LABEL
    number_taken = ignored < len(reading.classes) and reading.labels[ignored] != ignored
    if number_taken or (wide and ignored == IGNORE_LABEL):
        ignored = WIDE_IGNORE_LABEL if wide else IGNORE_LABEL
    settings = {
        "classes": reading.classes,
        "num_classes": len(reading.classes),
        "label_map": _composed(config.label_map, reading, seen, ignored),
        "ignore_label": ignored,
    }
    return Decided(settings, (_class_line(reading, ignored),))


def _as_set(config: DataConfig, used: set[int], ignored: int) -> LabelReading:
    """The reading where the user sets the classes and the label map: the labels after the map are the classes."""
    classes = config.classes or tuple(f"class_{label}" for label in range(config.num_classes or 0))
    tops = {label for label in used if config.ignore_label is None and label in TOPS and label >= len(classes)}
    because = "the classes and the label map that are set"
    return LabelReading(classes, tuple(range(len(classes))), frozenset({ignored, *tops}), because)


def _where_alone(masks: Sequence[SeenMask]) -> str:
    """The labels that one mask alone holds, and its file, if there are others; they are often the mistake."""
    counts = Counter(label for mask in masks for label in mask.labels.tolist())
    alone = {
        mask.path: labels for mask in masks if (labels := [one for one in mask.labels.tolist() if counts[one] < 2])
    }
    if len(alone) != 1 or max(counts.values()) < 2:
        return ""
    path, labels = next(iter(alone.items()))
    return f" ({path} alone holds {listed(labels)})"


def _composed(
    given_map: dict[int, int] | None, reading: LabelReading, seen: set[int], ignored: int
) -> dict[int, int] | None:
    """The user's label map, and after it that of the reading."""
    then, given = reading.label_map(ignored) or {}, given_map or {}
    if not given:
        return then or ({} if given_map == {} else None)
    first = {label: given.get(label, label) for label in {*given, *then, *seen}}
    both = {label: then.get(target, target) for label, target in first.items()}
    return {label: both[label] for label in sorted(both) if label in given or both[label] != label}


def homes(config: DataConfig) -> list[Path]:
    """The folders whose files describe a data set: its own, and the one that holds all its images and masks."""
    root = Path(config.root or "")
    places = [place for split in (config.splits or {}).values() for place in (split.images, split.masks) if place]
    parts = [Path(place.partition("*")[0]).parts for place in places]
    inner = root.joinpath(*parts[0][: shared_length(parts)]) if len(parts) > 1 else root
    return [root, inner] if inner != root else [root]


def _refuse_odd_labels(masks: Sequence[SeenMask], where: str) -> None:
    """Raises: DataError: labels that nobody chose as classes: numbers of objects, or values that resizing mixed."""
    by_mask = [set(mask.labels.tolist()) for mask in masks]
    seen = sorted(set[int]().union(*by_mask))
    counts = {len(labels - {0}) for labels in by_mask if max(labels, default=0) == len(labels - {0}) > 0}
    counting = all(max(labels, default=0) == len(labels - {0}) for labels in by_mask)
    thousands = Counter(label // 1000 for label in seen if 1000 <= label < TOPS[-1])
    if (counting and len(counts) >= LEAST_COUNTS) or max(thousands.values(), default=0) >= LEAST_OBJECTS:
        how = f"each mask counts from 1 to {min(counts)}..{max(counts)}" if counting else f"the labels {listed(seen)}"
        raise DataError(
            f"the masks in {where} look as if their labels numbered objects ({how}); make one label of all objects of a"
            " class, map them with data.label_map, or set data.num_classes, if these are classes",
            code="labels-like-instances",
        )
    edges = set(seen).difference(*(mask.labels[~np.isin(mask.labels, list(mask.edges))].tolist() for mask in masks))
    flat = [label for label in seen if label not in edges]
    between = len(flat) > 1 and edges and flat[0] < min(edges) and max(edges) < flat[-1]
    if between and len(edges) >= max(SHADES, 2 * len(flat)):
        raise DataError(
            f"the masks in {where} hold the labels {listed(seen)}, of which only {listed(flat)} fill areas and the"
            " others lie at edges, as if masks were resized with interpolation; resize them by nearest neighbour, or"
            " set data.num_classes, if these are classes",
            code="labels-unclear",
        )


def _other_scale(by_mask: Sequence[set[int]]) -> set[int]:
    """Labels that are a multiple of others, where no mask holds both: 255 beside 1, or 85 and 170 beside 1 and 2."""
    seen = sorted(set[int]().union(*by_mask) - {0})
    for place in range(1, len(seen)):
        small, large = set(seen[:place]), set(seen[place:])
        if large <= set(TOPS) and (small != {1} or not any({0} < labels <= {0, *large} for labels in by_mask)):
            continue  # ignored pixels
        scale, rest = divmod(min(large), min(small))
        alike = {label // scale for label in large} <= small and not rest and not any(label % scale for label in large)
        if scale >= LEAST_SCALE and alike and not any(labels & small and labels & large for labels in by_mask):
            return large
    return set()


def _class_line(reading: LabelReading, ignored: int) -> str:
    others = sorted(label for label in reading.ignored if label != ignored)
    text = f"{counted(len(reading.classes), 'class')} from {reading.because}"
    if reading.labels != tuple(range(len(reading.labels))):
        text += f": the labels {listed(reading.labels)} become 0..{len(reading.labels) - 1}"
    return text + (f"; {listed(others)} ignored" if others else "")


def is_of_known(known: DataConfig, masks: Sequence[SeenMask]) -> bool:
    """Whether masks hold the labels of a known data set, whose classes, label map and colours `known` has.

    They do not if most have others or cannot be read so, if none shows a class, if the labels only count 0, 1, ... to
    less than the set's last one, or if a file beside the data names other classes.
    """
    label_map, ignored, number = known.label_map or {}, ignored_label(known), len(known.classes or ())
    legal = {*(label_map or range(number)), ignored, IGNORE_LABEL}
    fine = [set(mask.labels.tolist()) for mask in masks if mask.error is None]
    fine = [labels for labels in fine if labels <= legal]
    if not masks or 2 * len(fine) <= len(masks):
        return not masks
    files = names_beside(*homes(known))
    listed_names = {name.lower() for file in files for name in file.names.values()}
    if files and 2 * len(listed_names & {name.lower() for name in known.classes or ()}) < len(listed_names):
        return False
    seen = set().union(*fine) - {IGNORE_LABEL, ignored}
    used = {label for label in seen if label_map.get(label, label) != ignored}
    last = max([label for label, target in label_map.items() if target != ignored] or [number - 1])
    counting = sorted(seen) == list(range(len(seen)))
    return bool(used) and (bool(known.colours) or not counting or max(seen) >= last)


def unlearnable(config: DataConfig, looks: Sequence[PairLook]) -> DataError | None:
    """Why a run would learn nothing: the training masks show one class, or ignored pixels alone.

    None if no training mask was looked at or can be read, which is another error.
    """
    masks = [mask for look in looks if look.split == "train" and (mask := seen_labels(config, look)).error is None]
    label_map, ignored = config.label_map or {}, ignored_label(config)
    seen = {label_map.get(label, label) for mask in masks for label in mask.labels.tolist()} - {ignored}
    if not masks or len(seen) >= 2:
        return None
    names = config.classes or ()
    what = next((f"the class {names[label]!r} alone" for label in seen if label < len(names)), "ignored pixels alone")
    return DataError(
        f"the training masks in {config.root} show {what}, so that there is nothing to learn; look at `autoseg"
        f" check-data`, and correct data.label_map or data.ignore_label ({ignored})",
        code="too-few-classes",
    )


# --- the images -------------------------------------------------------------------------------------------------------


def image_form(config: DataConfig, looks: Sequence[PairLook]) -> Decided:
    """Channels and pixel type, from all images. Grey among colour becomes colour.

    Raises: DataError: images of other channels, or of several pixel types; if bad files are skipped, most decide.
    """
    headers = [(look.pair[1], look.image) for look in looks if isinstance(look.image, Header)]
    channels = Counter(header.channels for _, header in headers)
    types = Counter(header.pixel_type for _, header in headers)
    may_differ, said = config.on_bad_file == "skip", []
    files = [path for path, _ in headers]
    if config.channels is None and set(channels) == {1, 3}:
        said.append(f"{channels[1]:,} of {counted(len(headers), 'image')} are grey and become colours by copying")
        channels = Counter({3: len(headers)})
    elif config.channels is None and len(channels) > 1 and not may_differ:
        text = _differ([header.channels for _, header in headers], files, "channels")
        raise DataError(f"{text}; convert some, or set data.channels", code="channels-differ")
    if config.pixel_type is None and len(types) > 1 and not may_differ:
        text = _differ([header.pixel_type for _, header in headers], files, "values")
        advice = "convert some, or set data.pixel_type, to which integers are scaled"
        raise DataError(f"{text}; {advice}", code="pixel-types-differ")
    _refuse_unclear_alpha(config, headers)
    cut = next((path for path, header in headers if (header.bits, header.pixel_type) == (16, "uint8")), None)
    if cut is not None:
        said.append(f"{cut.name} and others have 16 bits a colour, of which 8 are read; save TIFF or NPY to keep all")
    found = (*(most.most_common(1)[0][0] if most else usual for most, usual in ((channels, 3), (types, "uint8"))),)
    form = config.channels or found[0], config.pixel_type or found[1]
    scaled = next((path for path, header in headers if header.pixel_type == "uint16" and header.has_8_bits), None)
    if scaled is not None and form[1] == "uint16":
        said.append(f"{scaled.name} and others have files of 8 bits beside files of 16, to which they are scaled")
    said.append(f"images have {counted(int(form[0]), 'channel')} of {form[1]}")
    return Decided({"channels": form[0], "pixel_type": form[1]}, tuple(said))


def _refuse_unclear_alpha(config: DataConfig, headers: Sequence[tuple[Path, Header]]) -> None:
    """Raises: DataError: TIFFs call their fourth band alpha, but it holds more than opaque and transparent pixels."""
    images = [path for path, header in headers if "TIFF" in header.format and "RGBA" in header.mode]
    if config.channels is not None or not images or len(images) < len(headers):
        return
    for image in images[:: -(-len(images) // ALPHA_FILES)]:
        for path in files_of(image):
            header = read_header(path)
            if (header.format, header.mode) != ("TIFF", "RGBA"):
                continue
            values = np.unique(read_image(path, channels=4, orientation="stored")[:, :, 3])
            if len(values) > 2:
                own, total = "set data.channels: 4", 3
                if path != image:  # one file of several
                    own, total = "save it as a file of its own", headers[0][1].channels
                raise DataError(
                    f"{path} and all other images have a fourth band that the files call alpha, and it holds"
                    f" {counted(len(values), 'value')}; {own} if it is data such as near infrared, else set"
                    f" data.channels: {total}",
                    code="channels-unclear",
                )


def _differ(found: Sequence[object], files: Sequence[Path], noun: str) -> str:
    """Name a file of the rarest kind, and one of the commonest. found: the kind of each file."""
    (common, most), *_, (rare, fewest) = Counter(found).most_common()
    return (
        f"{files[found.index(rare)]} has {rare} {noun}, but {files[found.index(common)]} has {common} {noun}"
        f" ({fewest:,} and {most:,} of {len(found):,} images)"
    )


def orientation(config: DataConfig, looks: Sequence[PairLook]) -> Decided:
    """Whether images are turned as their EXIF notes say, from the files of which the sizes tell.

    Raises: DataError: some files tell one, and some the other.
    """
    if config.orientation is not None:
        return Decided({"orientation": config.orientation})
    votes: dict[Orientation, Path] = {}
    noted: list[Path] = []
    for look in looks:
        image, mask = look.image, look.mask_header
        if isinstance(image, DataError) or isinstance(mask, DataError) or image.orientation == mask.orientation == 1:
            continue
        noted.append(look.pair[1])
        stored, upright = image.size == mask.size, image.upright_size == mask.upright_size
        if stored != upright:
            votes.setdefault("stored" if stored else "upright", look.pair[1])
    if len(votes) == 2:
        raise DataError(
            f"the mask of {votes['upright']} is drawn on the image as its EXIF note turns it, and that of"
            f" {votes['stored']} on the image as stored; save images upright, or set data.orientation: by_size, if all"
            " sizes tell",
            code="orientations-differ",
        )
    decided: Orientation = next(iter(votes), "upright")
    if not noted:
        return Decided({"orientation": decided})
    names = f"{noted[0].name}" + f" and {len(noted) - 1:,} others" * (len(noted) > 1)
    text = f"EXIF notes turn {names}: images are read {'as stored' if decided == 'stored' else 'upright'}"
    why = "as the sizes of their masks tell" if votes else (
        "but no size tells whether the masks are drawn so; look at `autoseg check-data --out`, or set data.orientation:"
        " stored"
    )  # fmt: skip
    return Decided({"orientation": decided}, (f"{text}, {why}",))
