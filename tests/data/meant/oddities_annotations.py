"""Annotations of labelling programs: paths, orders, unused and ignored classes, boxes, runs, bitmaps.

The scene is the same in all: a cat, and a dog that is smaller and drawn later. Where nothing is drawn is background.
Names of samples are relative to the folder that holds all images of their split.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.meant.build import HEIGHT, WIDTH, colours, meant_masks, pairs, photos, save, stems, write
from data.meant.case import Case, Meant

Box = tuple[int, int, int, int]
CAT, DOG, SHADE = (4, 4, 28, 26), (18, 12, 36, 28), (0, 28, 10, 32)
"""left, top, right, bottom."""
CLASSES = ("background", "cat", "dog")
BOXES = (("cat", CAT), ("dog", DOG))


def scene(*boxes: tuple[int, Box]) -> NDArray[np.int64]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    for label, (left, top, right, bottom) in boxes or ((1, CAT), (2, DOG)):
        mask[top:bottom, left:right] = label
    return mask


def scenes(names: Sequence[str], mask: NDArray[np.int64] | None = None) -> dict[str, NDArray[np.int64]]:
    return {name: scene() if mask is None else mask for name in names}


def corners(box: Box) -> list[list[float]]:
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def flat(box: Box) -> list[float]:
    return [value for corner in corners(box) for value in corner]


def write_json(path: Path, content: Any) -> None:
    write(path, json.dumps(content))


# --- labelme ----------------------------------------------------------------------------------------------------------


def labelme(root: Path, boxes: Sequence[tuple[str, Box]] = BOXES, path: str = "{}.png", folder: str = ".") -> None:
    for stem in stems():
        shapes = [{"label": name, "points": corners(box), "shape_type": "polygon", "group_id": None, "flags": {}}
                  for name, box in boxes]  # fmt: skip
        content = {"version": "5.2.1", "flags": {}, "shapes": shapes, "imagePath": path.format(stem),
                   "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}  # fmt: skip
        write_json(root / folder / f"{stem}.json", content)


def labelme_windows(root: Path) -> None:
    photos(root, [f"files/{stem}.png" for stem in stems()])
    labelme(root, path="..\\files\\{}.png", folder="annotations")


def labelme_ignored(root: Path) -> None:
    photos(root, [f"{stem}.png" for stem in stems()])
    labelme(root, (*BOXES, ("__ignore__", SHADE)))
    write(root / "labels.txt", "__ignore__\n_background_\ncat\ndog\n")


def labelme_order(root: Path) -> None:
    photos(root, [f"{stem}.png" for stem in stems()])
    labelme(root, BOXES[::-1])


def labelme_beside_masks(root: Path) -> None:
    pairs(root, (0, 1, 2))
    labelme(root, folder="images")


# --- COCO -------------------------------------------------------------------------------------------------------------


def coco(
    root: Path, folder: str, names: Sequence[str], ids: tuple[int, int], categories: Sequence[dict[str, Any]]
) -> None:
    photos(root, [f"{folder}/{name}.jpg" for name in names])
    rows = [{"id": number, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(names)]  # fmt: skip
    drawn = [
        {"id": 10 * number + place, "image_id": number, "category_id": category, "iscrowd": 0,
         "segmentation": [flat(box)], "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]]}
        for number in range(len(names))
        for place, (category, (_, box)) in enumerate(zip(ids, BOXES, strict=True))
    ]  # fmt: skip
    content = {"images": rows, "annotations": drawn, "categories": list(categories)}
    write_json(root / folder / "_annotations.coco.json", content)


def coco_parent(root: Path) -> None:
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
        {"id": 2, "name": "dog", "supercategory": "animals"},
    ]
    coco(root, "train", stems()[:4], (1, 2), categories)
    coco(root, "valid", stems()[4:], (1, 2), categories)


def coco_ids(root: Path) -> None:
    categories = [
        {"id": 18, "name": "dog", "supercategory": "animal"},
        {"id": 17, "name": "cat", "supercategory": "animal"},
    ]
    coco(root, "train", stems()[:4], (17, 18), categories)
    coco(root, "valid", stems()[4:], (17, 18), categories)


def coco_boxes(root: Path) -> None:
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    coco(root, "train", stems(), (1, 2), categories)
    file = root / "train" / "_annotations.coco.json"
    write(file, file.read_text().replace(json.dumps([flat(CAT)]), "[]").replace(json.dumps([flat(DOG)]), "[]"))


# --- YOLO -------------------------------------------------------------------------------------------------------------


def yolo(root: Path, *more: str) -> None:
    for number, stem in enumerate(stems()):
        split = "train" if number < 4 else "valid"
        save(root / split / "images" / f"{stem}.jpg", colours(number))
        rows = [f"{label} " + " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in corners(box))
                for label, (_, box) in enumerate(BOXES)]  # fmt: skip
        write(root / split / "labels" / f"{stem}.txt", "\n".join((*rows, *more)) + "\n")
    write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['cat', 'dog']\n")


def yolo_with_boxes(root: Path) -> None:
    yolo(root, "0 0.5 0.5 0.25 0.25")


# --- CVAT -------------------------------------------------------------------------------------------------------------


def cvat(root: Path, shapes: str, name: str = "{}.png") -> None:
    photos(root, [f"images/{stem}.png" for stem in stems()])
    labels = "".join(f"<label><name>{one}</name><color>#ff0000</color></label>" for one in ("cat", "dog"))
    drawn = "".join(
        f'<image id="{number}" name="{name.format(stem)}" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'
        for number, stem in enumerate(stems())
    )
    meta = f"<version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
    write(root / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}{drawn}</annotations>')


def polygon(label: str, box: Box, order: int) -> str:
    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(box))
    return f'<polygon label="{label}" source="manual" occluded="0" points="{points}" z_order="{order}"></polygon>'


def cvat_order(root: Path) -> None:
    cvat(root, polygon("dog", DOG, 5) + polygon("cat", CAT, 1))


def cvat_runs(root: Path) -> None:
    left, top, right, bottom = DOG
    runs = f'rle="0, {(right - left) * (bottom - top)}" left="{left}" top="{top}"'
    size = f'width="{right - left}" height="{bottom - top}"'
    cvat(
        root, polygon("cat", CAT, 0) + f'<mask label="dog" source="semi-auto" occluded="0" {runs} {size} z_order="0"/>'
    )


def cvat_other_suffix(root: Path) -> None:
    cvat(root, polygon("cat", CAT, 0) + polygon("dog", DOG, 0), name="{}.jpg")


# --- Label Studio and Supervisely -------------------------------------------------------------------------------------


def label_studio(root: Path) -> None:
    photos(root, [f"image/{number}.JPG" for number in range(10, 16)])
    scale = np.array([100 / WIDTH, 100 / HEIGHT])
    results = [{"id": name, "type": "polygonlabels", "original_width": WIDTH, "original_height": HEIGHT,
                "image_rotation": 0,
                "value": {"points": (np.array(corners(box)) * scale).tolist(), "polygonlabels": [name]}}
               for name, box in BOXES]  # fmt: skip
    tasks = [{"id": number, "data": {"image": f"/data/local-files/?d=dataset/image/{number}.JPG"},
              "annotations": [{"id": number, "was_cancelled": False, "result": results}]}
             for number in range(10, 16)]  # fmt: skip
    write_json(root / "project-3-at-2024-10-24.json", tasks)


def supervisely(root: Path) -> None:
    photos(root, [f"ds0/img/{stem}.png" for stem in stems()])
    left, top, right, bottom = DOG
    file = io.BytesIO()
    Image.fromarray(np.ones((bottom - top, right - left), dtype=bool)).save(file, format="PNG")
    data = base64.b64encode(zlib.compress(file.getvalue())).decode()
    objects = [
        {"classTitle": "cat", "geometryType": "polygon", "points": {"exterior": corners(CAT), "interior": []}},
        {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [left, top]}},
    ]
    for stem in stems():
        content = {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
        write_json(root / "ds0" / "ann" / f"{stem}.png.json", content)
    classes = [{"title": "cat", "shape": "polygon", "color": "#ff0000"}, {"title": "dog", "shape": "bitmap"}]
    write_json(root / "meta.json", {"classes": classes, "tags": []})


CASES = (
    Case(
        "labelme files from Windows",
        "https://github.com/wkentaro/labelme/issues/1725",
        labelme_windows,
        Meant(CLASSES, scenes(stems())),
    ),
    Case(
        "labelme's __ignore__ and _background_",
        "https://github.com/wkentaro/labelme/issues/852",
        labelme_ignored,
        Meant(CLASSES, scenes(stems(), scene((1, CAT), (2, DOG), (-1, SHADE)))),
    ),
    Case(
        "labelme, a large shape drawn last",
        "https://github.com/wkentaro/labelme/issues/347",
        labelme_order,
        Meant(CLASSES, scenes(stems(), scene((2, DOG), (1, CAT)))),
    ),
    Case(
        "labelme files beside masks",
        "https://github.com/wkentaro/labelme/pull/88",
        labelme_beside_masks,
        Meant(3, meant_masks((0, 1, 2)), says=("labelme",)),
    ),
    Case(
        "COCO with a category that groups the others",
        "https://github.com/roboflow/rf-detr/pull/1303",
        coco_parent,
        Meant(CLASSES, scenes(stems()), says=("animals",), val=("a4", "a5")),
    ),
    Case(
        "COCO with ids that leave gaps",
        "https://github.com/pytorch/vision/issues/1141",
        coco_ids,
        Meant(CLASSES, scenes(stems()), val=("a4", "a5")),
    ),
    Case(
        "COCO of boxes alone",
        "https://github.com/facebookresearch/Detectron/issues/463",
        coco_boxes,
        "boxes-not-regions",
    ),
    Case(
        "YOLO with paths of Roboflow",
        "https://github.com/roboflow/roboflow-100-benchmark/issues/45",
        yolo,
        Meant(CLASSES, scenes(stems()), val=("a4", "a5")),
    ),
    Case(
        "YOLO, boxes among polygons",
        "https://github.com/ultralytics/ultralytics/pull/25657",
        yolo_with_boxes,
        "boxes-not-regions",
    ),
    Case(
        "CVAT's z_order",
        "https://github.com/cvat-ai/cvat/issues/3665",
        cvat_order,
        Meant(CLASSES, scenes(stems())),
    ),
    Case(
        "CVAT's run lengths",
        "https://github.com/cvat-ai/cvat/issues/8124",
        cvat_runs,
        Meant(CLASSES, scenes(stems())),
    ),
    Case(
        "CVAT names .jpg, and the images are .png",
        "https://github.com/cvat-ai/cvat/issues/54",
        cvat_other_suffix,
        Meant(CLASSES, scenes(stems()), or_stops="listed-file-missing"),
    ),
    Case(
        "Label Studio's addresses of local files",
        "https://github.com/HumanSignal/label-studio/issues/6553",
        label_studio,
        Meant(CLASSES, scenes([f"{number}" for number in range(10, 16)])),
    ),
    Case(
        "Supervisely's bitmaps with their origin",
        "https://github.com/ViacheslavDanilov/oct_segmentation/pull/6",
        supervisely,
        Meant(CLASSES, scenes(stems())),
    ),
)
