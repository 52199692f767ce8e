"""labelme: one JSON file an image, beside it or in a folder of its own. https://github.com/wkentaro/labelme"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autoseg.data.annotations.folder import Folder, class_name, image_extent, invalid, read_json
from autoseg.data.annotations.regions import AnnotationSet, Drawing, Points, Region, box, ellipse, ring
from autoseg.errors import DataError

ORDER = "a later shape covers an earlier one"
WITHOUT_AREA = ("point", "points", "line", "linestrip")


def is_mine(content: Any) -> bool:
    """Whether JSON is an annotation of labelme."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def find(folder: Folder, files: Sequence[Path]) -> AnnotationSet:
    """The annotations in files of this format. Raises: DataError: one that makes no sense."""
    found = AnnotationSet("labelme", ORDER, files)
    names: set[str] = set()
    without_area = 0
    for file in files:
        content = read_json(file)
        for shape in content["shapes"]:
            if not isinstance(shape, dict):
                raise invalid(f"{file} has a shape that is no mapping")
            if shape.get("shape_type") in WITHOUT_AREA:
                without_area += 1
            else:
                names.add(class_name(shape.get("label"), file, "a shape"))
        image = _image(folder, file, content)
        found.add(folder.split(file, image), image, file, partial(read, file))
    found.say(without_area, "point", "or lines, which have no area, left out")
    found.say(len(set(folder.images) - found.annotated), "image", "without an annotation left out")
    found.names = _labels_file(folder.root, names) or sorted(names)
    return found


def read(file: Path) -> Drawing:
    """What an annotation draws."""
    content = read_json(file)
    size = None
    if content.get("imageHeight") is not None and content.get("imageWidth") is not None:
        size = image_extent(content["imageHeight"], content["imageWidth"], file)
    shapes = [shape for shape in content["shapes"] if shape.get("shape_type") not in WITHOUT_AREA]
    return Drawing(size, [_region(shape, file) for shape in shapes])


def _region(shape: dict[str, Any], file: Path) -> Region:
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    name = class_name(shape.get("label"), file, "a shape")
    if kind == "polygon":
        return Region.of(name, ring(points, file, f"a polygon of {name!r}"))
    corners = _corners(points, file, f"a {kind} of {name!r}")
    (x0, y0), (x1, y1) = corners
    if kind == "rectangle":
        return Region.of(name, box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
    if kind == "circle":
        radius = float(np.hypot(x1 - x0, y1 - y0))
        return Region.of(name, ellipse(x0, y0, radius, radius))
    if kind == "mask":
        return Region.of_pixels(name, _pixels(shape.get("mask"), file), round(y0), round(x0))
    raise DataError(
        f"{file} has a shape of type {kind!r}; draw it as polygon, rectangle, circle or mask", code="shape-unknown"
    )


def _corners(points: Any, file: Path, what: str) -> Points:
    try:
        corners = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError):
        corners = np.zeros(0)
    if corners.shape != (2, 2) or not np.isfinite(corners).all():
        raise invalid(f"{file} has {what} without its two points", "correct or remove it")
    return corners


def _pixels(text: Any, file: Path) -> Any:
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(text)))) as image:
            return np.asarray(image.convert("L")) > 0
    except Exception:  # base64 and Pillow raise many kinds
        raise invalid(f"{file} has a mask that cannot be read", "draw it again") from None


def _image(folder: Folder, file: Path, content: dict[str, Any]) -> Path:
    """The image of an annotation: the one that it names, or the one of its own name."""
    named = content.get("imagePath")
    try:
        return folder.image(str(named or file.stem), [file.parent], file)
    except DataError:
        alike = [image for image in folder.images if image.stem == file.stem]
        beside = [image for image in alike if image.parent == file.parent] or alike
        if len(beside) != 1:
            raise
        return beside[0]


def _labels_file(root: Path, names: set[str]) -> list[str] | None:
    """The names in labels.txt in its order, if all that occur are there. `__ignore__` and `_background_` come first."""
    try:
        lines = [line.strip() for line in (root / "labels.txt").read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError):
        return None
    listed = [line for line in lines if line]
    return listed if names <= set(listed) else None
