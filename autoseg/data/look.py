"""Looking at every file of a data set once: the facts from which its settings are decided.

Images are looked at by their headers, masks by all their values. The facts are kept in the cache folder, and a file is
looked at again only if its size in bytes or its time of change has changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from autoseg.data.discovery.pairs import Pair
from autoseg.data.io.channel_files import state_of
from autoseg.data.io.masks import MaskFacts, look_at_mask
from autoseg.data.io.opening import Header, read_header
from autoseg.data.loading.threads import Progress, in_threads
from autoseg.errors import DataError, RunError
from autoseg.files import digest, make_folder, read_sealed_json, write_sealed_json

VERSION = 3


class PairLook(NamedTuple):
    """What was seen of an image and its mask; an error if a file cannot be used."""

    split: str
    pair: Pair
    image: Header | DataError
    mask_header: Header | DataError
    mask: MaskFacts | DataError

    @property
    def error(self) -> DataError | None:
        """Why the pair cannot be used, if it cannot."""
        return next((one for one in (self.mask, self.image) if isinstance(one, DataError)), None)


def look_at(places: Sequence[tuple[str, Pair]], cache: Path, progress: Progress | None = None) -> list[PairLook]:
    """Look at the (split, pair) of a data set. `progress(done, total)` is called after each pair."""
    parents = sorted({str(pair[2].parent) for _, pair in places})
    file = cache / "looks" / f"{digest([VERSION, parents])[:24]}.json"
    known = _read(file)
    fresh: dict[str, Any] = {}

    def look(index: int) -> PairLook:
        split, pair = places[index]
        seen = [
            _seen(path, kind, known, fresh)
            for path, kind in ((pair[1], "image"), (pair[2], "image"), (pair[2], "mask"))
        ]
        return PairLook(split, pair, *seen)

    looks = in_threads(look, len(places), progress)
    if any(key not in known for key in fresh):
        with contextlib.suppress(RunError):  # it only saves time
            make_folder(file.parent)
            write_sealed_json(file, fresh)
    return looks


def _seen(path: Path, kind: str, known: dict[str, Any], fresh: dict[str, Any]) -> Any:
    """The facts of a file; errors are found anew each time."""
    look, pack, unpack = _KINDS[kind]
    key = f"{kind} {path} {state_of(path)}"
    if key in known:
        fresh[key] = known[key]
        with contextlib.suppress(TypeError, ValueError, KeyError):  # a damaged file of facts
            return unpack(known[key])
    try:
        facts = look(path)
    except DataError as reason:
        return reason
    fresh[key] = pack(facts)
    return facts


def _read(file: Path) -> dict[str, Any]:
    try:
        content = read_sealed_json(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _unpack_header(content: list[Any]) -> Header:
    form, mode, bands, bits, channels, pixel_type, size, orientation = content
    return Header(form, mode, bands, bits, channels, pixel_type, (size[0], size[1]), orientation)


def _pack_mask(facts: MaskFacts) -> list[Any]:
    palette = None if facts.palette is None else [[index, *colour] for index, colour in facts.palette.items()]
    facts_as_lists = facts._asdict() | {"palette": palette}
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in facts_as_lists.values()]


def _unpack_mask(content: list[Any]) -> MaskFacts:
    size, orientation, kind, values, pixels, palette, shades, flat = content
    colours = None if palette is None else {index: (red, green, blue) for index, red, green, blue in palette}
    counted = np.array(values, dtype=np.int64), np.array(pixels, dtype=np.int64)
    squares = None if flat is None else np.array(flat, dtype=np.int64)
    return MaskFacts((size[0], size[1]), orientation, kind, *counted, colours, shades, squares)


_KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "image": (read_header, list, _unpack_header),
    "mask": (look_at_mask, _pack_mask, _unpack_mask),
}
"""How to look at a file, and how its facts are written and read."""
