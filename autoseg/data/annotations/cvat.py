"""CVAT for images 1.1: one XML file. https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from autoseg.data.annotations.folder import Folder, class_name, image_extent, invalid
from autoseg.data.annotations.regions import AnnotationSet, Drawing, Region, box, ellipse, ring, runs, turned
from autoseg.data.io.reading import missing_file, unreadable
from autoseg.errors import DataError

ORDER = "a greater z_order covers a lower one, and of equals the later shape the earlier one"
WITHOUT_AREA = ("polyline", "points", "skeleton", "cuboid", "tag")


def find(folder: Folder) -> AnnotationSet | None:
    """The annotations of a folder; None if there are none. Raises: DataError: one that makes no sense."""
    sources: list[Path] = []
    found = AnnotationSet("cvat", ORDER, sources)
    names: list[str] = []
    without_area = 0
    for file in folder.texts[".xml"]:
        if (tree := _tree(file)) is None:
            continue
        sources.append(file)
        names += [class_name(one.findtext("name"), file, "a label") for one in tree.iter("label") if len(one)]
        for element in tree.iter("image"):
            image = folder.image(element.get("name", ""), [file.parent / "images", file.parent], file)
            without_area += sum(shape.tag in WITHOUT_AREA for shape in element)
            split = folder.split(element.get("subset", ""), file, image)
            found.add(split, image, file, partial(read, element, file))
            names += [class_name(one.get("label"), file, "a shape") for one in element if one.tag in SHAPES]
    if not sources:
        return None
    found.say(without_area, "shape", "without area left out")
    found.names = list(dict.fromkeys(names))
    return found


def _tree(file: Path) -> Element | None:
    """The annotations of a file; None if it is another XML file. Raises: DataError: it is no XML."""
    with unreadable(file, "XML", "export it again", OSError), missing_file(file):
        with file.open("rb") as opened:
            if b"<annotations" not in opened.read(4096):
                return None
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as reason:
            raise DataError(f"{file} is no XML ({reason}); export it again", code="file-malformed") from None
    return root if root.tag == "annotations" and root.find("image") is not None else None


def read(element: Element, file: Path) -> Drawing:
    """What is drawn on an image."""
    size = image_extent(_number(element, "height", file), _number(element, "width", file), file)
    shapes = [shape for shape in element if shape.tag in SHAPES]
    shapes.sort(key=lambda shape: _number(shape, "z_order", file, 0.0))
    return Drawing(
        size, [SHAPES[shape.tag](shape, class_name(shape.get("label"), file, "a shape"), file) for shape in shapes]
    )


def _number(shape: Element, key: str, file: Path, default: float | None = None) -> float:
    text = shape.get(key)
    try:
        return float(text) if text is not None or default is None else default  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise invalid(f"{file} has {key}={text!r} in <{shape.tag}>, which is no number") from None


def _polygon(shape: Element, name: str, file: Path) -> Region:
    points = [pair.split(",") for pair in shape.get("points", "").split(";") if pair]
    return Region.of(name, ring(points, file, f"a polygon of {name!r}"))


def _box(shape: Element, name: str, file: Path) -> Region:
    left, top, right, bottom = (_number(shape, key, file) for key in ("xtl", "ytl", "xbr", "ybr"))
    centre = ((left + right) / 2, (top + bottom) / 2)
    return Region.of(name, turned(box(left, top, right, bottom), centre, _number(shape, "rotation", file, 0.0)))


def _ellipse(shape: Element, name: str, file: Path) -> Region:
    x, y, radius_x, radius_y = (_number(shape, key, file) for key in ("cx", "cy", "rx", "ry"))
    return Region.of(name, ellipse(x, y, radius_x, radius_y, _number(shape, "rotation", file, 0.0)))


def _mask(shape: Element, name: str, file: Path) -> Region:
    left, top, width, height = (int(_number(shape, key, file)) for key in ("left", "top", "width", "height"))
    try:
        lengths = [int(length) for length in shape.get("rle", "").split(",")]
    except ValueError:
        raise invalid(f"{file} has run lengths that are no numbers") from None
    return Region.of_pixels(name, runs(lengths, (height, width), file), top, left)


SHAPES: dict[str, Callable[[Element, str, Path], Region]] = {
    "polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask,
}  # fmt: skip
"""Shapes with an area."""
