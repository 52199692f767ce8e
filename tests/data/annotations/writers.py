"""Small annotations of each format, written as its program writes them. The scene is the same for all:

an image of 12x10 (width x height); `cat` fills x 1..6, y 2..8; `dog` fills x 4..9, y 5..9, and is drawn later and
smaller, so it covers the cat in every format's order.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 12, 10
CAT, DOG = (1, 2, 6, 8), (4, 5, 9, 9)
"""left, top, right, bottom."""


def scene() -> np.ndarray:
    """The mask: 0 where nothing is drawn, 1 cat, 2 dog."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=int)
    for label, (left, top, right, bottom) in enumerate((CAT, DOG), start=1):
        mask[top:bottom, left:right] = label
    return mask


def corners(box: tuple[int, int, int, int]) -> list[list[float]]:
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def labelme(root: Path, **changes: Any) -> Path:
    image(root / "a.png")
    shapes = [{"label": name, "points": corners(box), "shape_type": "polygon", "group_id": None, "flags": {}}
              for name, box in (("cat", CAT), ("dog", DOG))]  # fmt: skip
    content = {"version": "5.2.1", "flags": {}, "shapes": shapes, "imagePath": "a.png", "imageData": None,
               "imageHeight": HEIGHT, "imageWidth": WIDTH}  # fmt: skip
    return write_json(root / "a.json", content | changes)


def flat(box: tuple[int, int, int, int]) -> list[float]:
    return [value for corner in corners(box) for value in corner]


def coco_content() -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 18,
                "segmentation": [flat(DOG)],
                "iscrowd": 0,
                "bbox": [4, 5, 5, 4],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 17,
                "segmentation": [flat(CAT)],
                "iscrowd": 0,
                "bbox": [1, 2, 5, 6],
            },
        ],
        "categories": [{"id": 17, "name": "cat", "supercategory": "animal"}, {"id": 18, "name": "dog"}],
    }


def coco(root: Path, content: dict[str, Any] | None = None) -> Path:
    image(root / "images" / "a.png")
    return write_json(root / "annotations" / "instances.json", content or coco_content())


def yolo(root: Path, *lines: str, names: Any = ("cat", "dog")) -> Path:
    image(root / "train" / "images" / "a.png")
    rows = [f"{number} " + " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in corners(box))
            for number, box in enumerate((CAT, DOG))]  # fmt: skip
    labels = root / "train" / "labels" / "a.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("\n".join(lines or rows) + "\n")
    listed = names if isinstance(names, str) else json.dumps(list(names))
    (root / "data.yaml").write_text(f"train: ../train/images\nval: ../train/images\nnc: 2\nnames: {listed}\n")
    return labels


def cvat(root: Path, *shapes: str, name: str = "a.png") -> Path:
    image(root / "images" / "a.png")

    def polygon(label: str, box: tuple[int, int, int, int], order: int) -> str:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(box))
        return f'<polygon label="{label}" source="manual" occluded="0" points="{points}" z_order="{order}"></polygon>'

    drawn = shapes or (polygon("dog", DOG, 1), polygon("cat", CAT, 0))
    labels = "".join(f"<label><name>{one}</name><color>#ff0000</color></label>" for one in ("cat", "dog"))
    path = root / "annotations.xml"
    content = f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}">{"".join(drawn)}</image>'
    meta = f"<version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}{content}</annotations>')
    return path


def label_studio_results() -> list[dict[str, Any]]:
    scale = np.array([100 / WIDTH, 100 / HEIGHT])
    return [
        {"id": name, "type": "polygonlabels", "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
         "value": {"points": (np.array(corners(box)) * scale).tolist(), "closed": True, "polygonlabels": [name]}}
        for name, box in (("cat", CAT), ("dog", DOG))
    ]  # fmt: skip


def label_studio(
    root: Path, results: list[dict[str, Any]] | None = None, url: str = "/data/upload/3/0a1b2c3d-a.png"
) -> Path:
    image(root / "a.png")
    annotation = {"id": 1, "was_cancelled": False, "result": label_studio_results() if results is None else results}
    return write_json(root / "export.json", [{"id": 5, "data": {"image": url}, "annotations": [annotation]}])


def supervisely_objects() -> list[dict[str, Any]]:
    return [{"classTitle": name, "geometryType": "polygon", "points": {"exterior": corners(box), "interior": []}}
            for name, box in (("cat", CAT), ("dog", DOG))]  # fmt: skip


def supervisely(root: Path, objects: list[dict[str, Any]] | None = None) -> Path:
    image(root / "ds" / "img" / "a.png")
    write_json(root / "meta.json", {"classes": [{"title": name, "shape": "polygon"} for name in ("cat", "dog")]})
    content = {"size": {"height": HEIGHT, "width": WIDTH}, "tags": [], "objects": objects or supervisely_objects()}
    return write_json(root / "ds" / "ann" / "a.png.json", content)


WRITERS: dict[str, Callable[..., Path]] = {
    "labelme": labelme, "coco": coco, "yolo": yolo, "cvat": cvat, "label_studio": label_studio,
    "supervisely": supervisely,
}  # fmt: skip


def png_text(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def base64_mask(pixels: np.ndarray) -> str:
    return base64.b64encode(png_text(pixels)).decode()


def base64_zlib_mask(pixels: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(png_text(pixels))).decode()


def coco_runs(mask: np.ndarray) -> list[int]:
    """Run lengths by columns, counted one pixel at a time."""
    lengths, value, length = [], False, 0
    for pixel in mask.T.ravel().tolist():
        if bool(pixel) != value:
            lengths.append(length)
            value, length = not value, 0
        length += 1
    return [*lengths, length]


def coco_text(lengths: list[int]) -> str:
    """COCO's compressed text, as `rleToString` of its C code writes it."""
    text = []
    for place, length in enumerate(lengths):
        value = length - (lengths[place - 2] if place > 2 else 0)
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(text)


def brush(mask: np.ndarray, repeats: bool = True) -> list[int]:
    """Bytes of Label Studio's packed runs of RGBA, with 8 bits for each value and up to 16 for a count."""
    values = np.repeat(np.where(mask.ravel(), 255, 0), 4).astype(int).tolist()
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{length - 1:04b}" for length in (2, 4, 8, 16))
    place = 0
    while place < len(values):
        end = place
        while end < len(values) and values[end] == values[place] and end - place < 2**16:
            end += 1
        if not repeats:
            end = min(place + 3, len(values))
        count = end - place - 1
        which = next(number for number, length in enumerate((2, 4, 8, 16)) if count < 2**length)
        bits += ("1" if repeats else "0") + f"{which:02b}" + format(count, f"0{(2, 4, 8, 16)[which]}b")
        bits += f"{values[place]:08b}" if repeats else "".join(f"{value:08b}" for value in values[place:end])
        place = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]
