"""Write masks as annotations of labelme, COCO or YOLO: the same regions, as outlines along the pixels' edges.

Painted again, the outlines give the same masks. Usage:

    python scripts/annotate_masks.py DATA OUT --format coco

DATA is anything that `--data` takes. Images are linked, not copied, where the system can.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.config.base import parse
from autoseg.config.data import DataConfig, data_settings
from autoseg.data.dataset import FolderDataset, open_dataset, resolve

Outline = tuple[int, list[tuple[int, int]]]
"""A label, and the corners of one of its regions as x, y."""
RIGHT, DOWN, LEFT, UP = (1, 0), (0, 1), (-1, 0), (0, -1)


def outlines(mask: NDArray[np.integer]) -> list[Outline]:
    """The outer outlines of the 4-connected regions of a mask, larger ones first, so that the inner ones come later."""
    found = [
        (int(label), corners) for label in np.unique(mask) for corners in loops(mask == label) if area(corners) > 0
    ]
    return sorted(found, key=lambda outline: -area(outline[1]))


def area(corners: list[tuple[int, int]]) -> float:
    """Positive if the corners turn clockwise as an image shows them: an outline and no hole."""
    x, y = np.array(corners).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def loops(inside: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """The loops of edges around the pixels of a region, with the region on the right hand, corners only."""
    padded = np.pad(inside, 1)
    edges: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    here = padded[1:-1, 1:-1]
    sides = (
        (here & ~padded[:-2, 1:-1], (0, 0), RIGHT),
        (here & ~padded[1:-1, 2:], (1, 0), DOWN),
        (here & ~padded[2:, 1:-1], (1, 1), LEFT),
        (here & ~padded[1:-1, :-2], (0, 1), UP),
    )
    for side, (right, down), way in sides:
        for row, column in np.argwhere(side).tolist():
            edges[column + right, row + down].append(way)
    found = []
    while edges:
        start = next(iter(edges))
        place, corners, last = start, [], None
        while True:
            ways = edges[place]
            # where two regions touch at a corner, turn right, which keeps them apart
            way = ways[0] if last is None or len(ways) == 1 else next(one for one in ways if one == turned(last))
            ways.remove(way)
            if not ways:
                del edges[place]
            if way != last:
                corners.append(place)
            place, last = (place[0] + way[0], place[1] + way[1]), way
            if place == start and (place not in edges or turned(last) not in edges[place]):
                break
        found.append(corners)
    return found


def turned(way: tuple[int, int]) -> tuple[int, int]:
    """To the right."""
    return -way[1], way[0]


def write(dataset: FolderDataset, split: str, out: Path, form: str) -> None:
    """Annotate a split."""
    folder = out / split / "images" if form == "yolo" else out / split
    folder.mkdir(parents=True, exist_ok=True)
    names = [*dataset.classes, "void"]
    coco: dict[str, list[object]] = {
        "images": [], "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }  # fmt: skip
    for index in range(len(dataset)):
        source = dataset.image_path(index)
        image = folder / source.name
        link(source, image)
        mask = np.where(dataset.load(index).mask == dataset.ignore_label, len(names) - 1, dataset.load(index).mask)
        height, width = mask.shape
        drawn = outlines(mask)
        if form == "labelme":
            shapes = [{"label": names[label], "points": corners, "shape_type": "polygon"} for label, corners in drawn]
            content = {"version": "5.0.1", "flags": {}, "shapes": shapes, "imagePath": image.name, "imageData": None,
                       "imageHeight": height, "imageWidth": width}  # fmt: skip
            image.with_suffix(".json").write_text(json.dumps(content))
        elif form == "yolo":
            labels = out / split / "labels" / f"{image.stem}.txt"
            labels.parent.mkdir(exist_ok=True)
            rows = (
                f"{label} " + " ".join(f"{x / width:.7g} {y / height:.7g}" for x, y in corners)
                for label, corners in drawn
            )
            labels.write_text("\n".join(rows) + "\n")
        else:
            coco["images"].append({"id": index, "file_name": image.name, "height": height, "width": width})
            for label, corners in drawn:
                flat = [value for corner in corners for value in corner]
                coco["annotations"].append({"id": len(coco["annotations"]), "image_id": index, "category_id": label + 1,
                                            "iscrowd": 0, "area": area(corners), "segmentation": [flat]})  # fmt: skip
    if form == "coco":
        (out / split / "_annotations.coco.json").write_text(json.dumps(coco))
    if form == "yolo":
        lines = "".join(f"  {number}: {name}\n" for number, name in enumerate(names))
        (out / "data.yaml").write_text(f"train: train/images\nval: val/images\nnames:\n{lines}")


def link(source: Path, target: Path) -> None:
    """A hard link, or else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def main() -> None:
    """Annotate the training and validation images of a data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--format", choices=("labelme", "coco", "yolo"), required=True)
    given = parser.parse_args()
    config = resolve(parse(DataConfig, data_settings(given.data), given.data))
    for split in ("train", "val"):
        dataset = open_dataset(config, split)
        assert isinstance(dataset, FolderDataset), "the generated set has no files"
        write(dataset, split, given.out, given.format)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
