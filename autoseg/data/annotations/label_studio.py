"""Label Studio: one JSON file of tasks. https://labelstud.io/guide/export"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from autoseg.data.annotations.folder import Folder, class_name, image_extent, invalid, number, read_json
from autoseg.data.annotations.regions import AnnotationSet, Drawing, Region, box, ellipse, ring, turned
from autoseg.data.io.opening import is_image
from autoseg.errors import DataError

ORDER = "a later region covers an earlier one"
KINDS = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio writes before the name of an uploaded file."""


def is_mine(content: Any) -> bool:
    """Whether JSON is an export of Label Studio."""
    first = content[0] if isinstance(content, list) and content else None
    return (
        isinstance(first, dict) and isinstance(first.get("data"), dict) and isinstance(first.get("annotations"), list)
    )


def find(folder: Folder, files: Sequence[Path]) -> AnnotationSet:
    """The annotations in files of this format. Raises: DataError: one that makes no sense."""
    found = AnnotationSet("label_studio", ORDER, files)
    names: set[str] = set()
    unfinished = several = 0
    for file in files:
        for task in read_json(file):
            done = [one for one in task.get("annotations", ()) if not one.get("was_cancelled")]
            if not done:
                unfinished += 1
                continue
            several += len(done) > 1
            results = [one for one in done[-1].get("result", ()) if one.get("type") in KINDS]
            image = _image(folder, file, task)
            found.add(folder.split(image, file), image, file, partial(read, results, file))
            names.update(_name(one, file) for one in results)
    found.say(unfinished, "task", "without an annotation left out")
    found.say(several, "image", "annotated by several people: the last annotation counts")
    found.names = sorted(names)
    return found


def _image(folder: Folder, file: Path, task: Mapping[str, Any]) -> Path:
    """The image of a task, by the path in its data or by the name of the file that was uploaded."""
    texts = [value for value in task.get("data", {}).values() if isinstance(value, str)]
    for text in texts:
        parts = urlsplit(text)
        path = unquote(parse_qs(parts.query).get("d", [parts.path])[0])
        if is_image(path):
            name = Path(path).name
            short = _UPLOADED.sub("", name)
            known = name if name.lower() in folder.by_name or short.lower() not in folder.by_name else short
            return folder.image(str(Path(path).with_name(known)).lstrip("/"), [folder.root, file.parent], file)
    raise DataError(f"{file} has task {task.get('id')} without an image; export it again", code="listed-file-missing")


def _name(result: Mapping[str, Any], file: Path) -> str:
    labels = result.get("value", {}).get(result["type"]) or [None]
    return class_name(labels[0], file, f"region {result.get('id')}")


def read(results: Sequence[Mapping[str, Any]], file: Path) -> Drawing:
    """What is drawn on an image. Coordinates are percents of its size."""
    sizes = {(one.get("original_height"), one.get("original_width")) for one in results}
    if len(sizes) > 1:
        raise DataError(
            f"{file} gives one image the sizes {sorted(map(str, sizes))}; export it again", code="sizes-disagree"
        )
    if not results:
        return Drawing(None, [])
    size = image_extent(*next(iter(sizes)), file)
    return Drawing(size, [_region(one, size, file) for one in results])


def _region(result: Mapping[str, Any], size: tuple[int, int], file: Path) -> Region:
    value, name = result.get("value", {}), _name(result, file)
    scale = np.array([size[1], size[0]]) / 100
    if result["type"] == "polygonlabels":
        return Region.of(name, ring(value.get("points"), file, f"a polygon of {name!r}") * scale)
    if result["type"] == "brushlabels":
        return Region.of_pixels(name, brush(value.get("rle"), size, file))
    x, y, turn = (number(value.get(key, 0), file, key) for key in ("x", "y", "rotation"))
    if result["type"] == "ellipselabels":
        radius_x, radius_y = (number(value.get(key), file, key) for key in ("radiusX", "radiusY"))
        return Region.of(name, ellipse(x * scale[0], y * scale[1], radius_x * scale[0], radius_y * scale[1], turn))
    width, height = (number(value.get(key), file, key) for key in ("width", "height"))
    corners = box(x, y, x + width, y + height) * scale
    return Region.of(name, turned(corners, (float(corners[0, 0]), float(corners[0, 1])), turn))


def brush(codes: Any, size: tuple[int, int], file: Path) -> NDArray[np.bool_]:
    """The pixels (H, W) of a brush: bytes of bits that pack runs of RGBA, of which alpha counts.

    A header of 32 bits for the number of values, 5 for the length of a value less one, and 4 times 4 for the lengths
    of a count less one. Then runs: a bit that says whether one value repeats, 2 bits for which length the count has,
    the count less one, and the value or values. (@thi.ng/rle-pack, which Label Studio uses.)
    """
    try:
        bits = _Bits(np.unpackbits(np.array(codes, dtype=np.uint8)))
        total, word = bits.take(32), bits.take(5) + 1
        lengths = [bits.take(4) + 1 for _ in range(4)]
        if total != 4 * size[0] * size[1]:
            raise DataError(
                f"{file} has a brush of {total // 4:,} pixels for an image of {size[1]}x{size[0]}; export it again",
                code="runs-of-another-size",
            )
        values = np.zeros(total, dtype=np.uint8)
        place = 0
        while place < total:
            repeats = bits.take(1)
            end = place + bits.take(lengths[bits.take(2)]) + 1
            if repeats:
                values[place:end] = bits.take(word)
            else:
                values[place:end] = [bits.take(word) for _ in range(end - place)]
            place = end
    except (TypeError, ValueError, OverflowError, IndexError):
        raise invalid(f"{file} has a brush that cannot be read") from None
    opaque: NDArray[np.bool_] = values.reshape(*size, 4)[:, :, 3] > 0
    return opaque


class _Bits:
    """Takes numbers from a row of bits. Raises: IndexError: there are no more."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self._text = "".join(map(str, bits.tolist()))
        self._place = 0

    def take(self, count: int) -> int:
        end = self._place + count
        if end > len(self._text):
            raise IndexError
        found = int(self._text[self._place : end], 2)
        self._place = end
        return found
