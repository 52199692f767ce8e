"""COCO: one JSON file a split, with polygons and run lengths. https://cocodataset.org/#format-data"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from autoseg.data.annotations.folder import Folder, class_name, image_extent, invalid, read_json
from autoseg.data.annotations.regions import AnnotatedImage, AnnotationSet, Drawing, Region, by_area, ring, runs
from autoseg.errors import DataError

ORDER = "a smaller region covers a larger one, and both cover crowds"
KEYS = {"images", "annotations", "categories"}


def is_mine(content: Any) -> bool:
    """Whether JSON is of COCO, with regions of at least one image or of none."""
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in KEYS):
        return False
    some = content["annotations"][:50]
    return not some or any(isinstance(one, dict) and "segmentation" in one for one in some)


def find(folder: Folder, files: Sequence[Path]) -> AnnotationSet:
    """The annotations in files of this format. Raises: DataError: one that makes no sense."""
    result = AnnotationSet("coco", ORDER, files)
    categories: dict[int, str] = {}
    used: set[int] = set()
    for file in files:
        content = read_json(file)
        names = _categories(content, file)
        for key, name in names.items():
            if categories.setdefault(key, name) != name:
                raise DataError(
                    f"{file} calls category {key} {name!r}, and another file {categories[key]!r}; make them agree",
                    code="classes-differ",
                )
        found, boxes = _images(folder, file, content, names)
        split = folder.split(file)
        for one in found:
            result.images[split or folder.split(one.image)].append(one)
        if boxes == len(content["annotations"]) > 0:
            raise DataError(
                f"{file} has boxes of an object detector, and no outlines; export polygons or masks",
                code="boxes-not-regions",
            )
        used.update(one["category_id"] for one in content["annotations"] if one.get("segmentation"))
        result.say(boxes, "box", f"of {file.name} without a region left out")
    empty = [categories[key] for key in sorted(categories) if key not in used] if used else []
    if empty:
        some = ", ".join(empty[:8]) + ", ..." * (len(empty) > 8)
        result.said.append(f"categories without a region left out: {some}")
    result.names = list(dict.fromkeys(categories[key] for key in sorted(categories) if not used or key in used))
    return result


def _categories(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for one in content["categories"]:
        key = one.get("id") if isinstance(one, dict) else None
        if not isinstance(key, int):
            raise invalid(f"{file} has a category without an id")
        names[key] = class_name(one.get("name"), file, f"category {key}")
        if (twice := next((other for other in names if other != key and names[other] == names[key]), None)) is not None:
            raise DataError(
                f"{file} calls the categories {twice} and {key} both {names[key]!r}; rename one, or make them one",
                code="class-name-twice",
            )
    return names


def _images(
    folder: Folder, file: Path, content: Mapping[str, Any], names: Mapping[int, str]
) -> tuple[list[AnnotatedImage], int]:
    """The images of a file, and the number of annotations that have a box and no region."""
    beside = _places(folder, file)
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    boxes = 0
    for one in content["annotations"]:
        if not isinstance(one, dict):
            raise invalid(f"{file} has an annotation that is no mapping")
        if not one.get("segmentation"):
            boxes += 1
            continue
        if one.get("category_id") not in names:
            raise DataError(
                f"{file} has an annotation of category {one.get('category_id')}, which it does not list; correct it",
                code="unknown-class",
            )
        by_image[one.get("image_id")].append(one)
    found: list[AnnotatedImage] = []
    sizes: dict[Path, tuple[int, int]] = {}
    for one in content["images"]:
        if not isinstance(one, dict) or not isinstance(one.get("file_name"), str):
            raise invalid(f"{file} has an image without file_name")
        image = folder.image(one["file_name"], beside, file)
        size = image_extent(one.get("height"), one.get("width"), file)
        if image in sizes:
            differ = "" if sizes[image] == size else ", once in another size"
            raise DataError(f"{file} lists the image {one['file_name']} twice{differ}; remove one", code="image-twice")
        sizes[image] = size
        found.append(AnnotatedImage(image, file, partial(_drawing, by_image.get(one.get("id"), []), size, names, file)))
    if strays := by_image.keys() - {one.get("id") for one in content["images"]}:
        raise DataError(
            f"{file} has annotations of the image {next(iter(strays))!r}, which it does not list; correct it",
            code="listed-file-missing",
        )
    return found, boxes


def _places(folder: Folder, file: Path) -> list[Path]:
    """Where the images of a file may lie: instances_train2017.json has its own in train2017."""
    words = file.stem.removeprefix("instances_").removeprefix("stuff_").removeprefix("annotations_")
    above = [file.parent, file.parent.parent] if file.parent != folder.root else [file.parent]
    places = [place / sub for place in above for sub in (words, f"images/{words}", "images", ".")]
    return [place for place in places if place.is_relative_to(folder.root)]


def _drawing(
    annotations: Sequence[Mapping[str, Any]], size: tuple[int, int], names: Mapping[int, str], file: Path
) -> Drawing:
    crowds = [_region(one, size, names, file) for one in annotations if one.get("iscrowd")]
    others = [_region(one, size, names, file) for one in annotations if not one.get("iscrowd")]
    return Drawing(size, [*by_area(crowds), *by_area(others)])


def _region(one: Mapping[str, Any], size: tuple[int, int], names: Mapping[int, str], file: Path) -> Region:
    """A region of polygons, each a flat list x, y, x, y, ..., or of run lengths by columns."""
    name, drawn = names[one["category_id"]], one["segmentation"]
    where = f"{file}, annotation {one.get('id')}"
    if isinstance(drawn, dict):
        stated = drawn.get("size")
        if stated != list(size):
            raise DataError(
                f"{where} has run lengths of size {stated}, but its image is {list(size)} (height, width); export it"
                " again",
                code="runs-of-another-size",
            )
        counts = drawn.get("counts")
        lengths = uncompressed(counts, where) if isinstance(counts, str) else counts
        if not isinstance(lengths, list) or not all(isinstance(length, int) for length in lengths):
            raise invalid(f"{where} has run lengths that are no numbers")
        return Region.of_pixels(name, runs(lengths, size, where, by_column=True))
    if not isinstance(drawn, list):
        raise invalid(f"{where} has no list of polygons")
    polygons = drawn if not drawn or isinstance(drawn[0], list) else [drawn]
    return Region(name, tuple((ring(polygon, where, flat=True),) for polygon in polygons))


def uncompressed(text: str, where: str) -> list[int]:
    """The run lengths of COCO's compressed text: five bits a letter, from the fourth on differences."""
    lengths: list[int] = []
    place = 0
    letters = [ord(letter) - 48 for letter in text]
    while place < len(letters):
        value = shift = 0
        more = True
        while more:
            if place >= len(letters) or not 0 <= letters[place] < 64 or shift > 60:
                raise invalid(f"{where} has run lengths that are cut off")
            value |= (letters[place] & 31) << shift
            more = bool(letters[place] & 32)
            shift += 5
            if not more and letters[place] & 16:
                value -= 1 << shift
            place += 1
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths
