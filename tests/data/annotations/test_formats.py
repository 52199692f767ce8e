"""Each format gives the same masks of the same scene; what makes no sense is one line that names the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autoseg.config.data import DataConfig
from autoseg.data.annotations.coco import uncompressed
from autoseg.data.annotations.folder import Folder
from autoseg.data.annotations.masks import IN_JSON, OTHERS, Painted, annotations_in
from autoseg.data.annotations.masks import find_annotations as find_in
from autoseg.data.annotations.regions import AnnotationSet
from autoseg.data.dataset import resolve
from autoseg.errors import DataError

from . import writers
from .writers import CAT, DOG, HEIGHT, WIDTH, WRITERS, scene

sys.path.append(str(Path(__file__).resolve().parents[3] / "scripts"))

from annotate_masks import outlines


def find_annotations(root: Path, layout: str = "auto") -> AnnotationSet | None:
    return find_in(Folder(root), layout)


def paint(root: Path) -> Painted:
    found = annotations_in(root, cache=root.parent / "cache")
    assert found is not None
    return found


def only_mask(root: Path) -> np.ndarray:
    """The mask of the one image, with labels by class name: 1 cat, 2 dog."""
    result = paint(root)
    assert not result.faults, result.faults
    _, image, mask = next(iter(result.images.values()))[0]
    assert image.name == "a.png"
    labels = np.array([0, *({"cat": 1, "dog": 2}[name] for name in result.names)])
    return labels[np.asarray(Image.open(mask))]


def test_the_writers_are_of_all_formats() -> None:
    assert set(WRITERS) == {*IN_JSON, *OTHERS}


@pytest.mark.parametrize("form", WRITERS)
def test_the_same_scene_in_every_format(form: str, tmp_path: Path) -> None:
    WRITERS[form](tmp_path / "data")
    found = find_annotations(tmp_path / "data")
    assert found is not None
    assert (found.layout, list(found.names)) == (form, ["cat", "dog"])
    assert np.array_equal(only_mask(tmp_path / "data"), scene())
    shown = 2 if form == "yolo" else 1  # its data.yaml names the same folder for both splits
    assert paint(tmp_path / "data").pixels == tuple((shown * np.bincount(scene().ravel())).tolist())


@pytest.mark.parametrize("form", WRITERS)
def test_it_is_painted_once_and_again_after_a_change(form: str, tmp_path: Path) -> None:
    file = WRITERS[form](tmp_path / "data")
    first = paint(tmp_path / "data")
    mask = next(iter(first.images.values()))[0][2]
    before = mask.stat().st_mtime_ns
    paint(tmp_path / "data")
    assert mask.stat().st_mtime_ns == before
    file.write_text(file.read_text() + " \n")
    paint(tmp_path / "data")
    assert mask.stat().st_mtime_ns != before


def test_a_folder_of_no_format(tmp_path: Path) -> None:
    writers.image(tmp_path / "a.png")
    writers.write_json(tmp_path / "a.json", {"some": "thing"})
    (tmp_path / "a.xml").write_text("<annotation><object/></annotation>")  # VOC's boxes
    (tmp_path / "c.yaml").write_text("a: 1\n")
    assert find_annotations(tmp_path) is None


@pytest.mark.parametrize("form", ["labelme", "supervisely"])
def test_json_that_is_cut_off(form: str, tmp_path: Path) -> None:
    WRITERS[form](tmp_path)
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(DataError, match=r"b\.json cannot be read as JSON") as error:
        find_annotations(tmp_path)
    assert error.value.code == "file-unreadable"


def test_two_formats_ask_which(tmp_path: Path) -> None:
    writers.labelme(tmp_path)
    writers.coco(tmp_path)
    with pytest.raises(DataError, match=r"labelme annotations \(a.json\) and COCO .* set data\.layout") as error:
        find_annotations(tmp_path)
    assert error.value.code == "layout-ambiguous"
    assert find_annotations(tmp_path, "coco").layout == "coco"


@pytest.mark.parametrize(
    ("path", "split"),
    [("train/a", "train"), ("valid/a", "val"), ("test/images/a", "test"), ("some/a", None), ("a", None)],
)
def test_folders_tell_the_split(path: str, split: str | None, tmp_path: Path) -> None:
    writers.labelme((tmp_path / path).parent)
    assert list(find_annotations(tmp_path).images) == [split]


# --- shapes of each format ------------------------------------------------------------------------------------------


def labelme_shape(kind: str, points: list[list[float]], **more: Any) -> dict[str, Any]:
    return {"label": "cat", "points": points, "shape_type": kind, **more}


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        (labelme_shape("rectangle", [[6, 8], [1, 2]]), 30),
        (labelme_shape("circle", [[5, 5], [5, 8]]), 32),
        (labelme_shape("mask", [[2, 3], [4, 4]], mask=writers.base64_mask(np.eye(3, dtype=bool))), 3),
        (labelme_shape("point", [[2, 3]]), 0),
        (labelme_shape("linestrip", [[2, 3], [4, 4], [5, 5]]), 0),
        ({"label": "cat", "points": writers.corners(CAT)}, 30),  # version 3 had no types
    ],
)
def test_shapes_of_labelme(shape: dict[str, Any], pixels: int, tmp_path: Path) -> None:
    writers.labelme(tmp_path / "data", shapes=[shape])
    assert paint(tmp_path / "data").pixels[1:] == ((pixels,) if pixels else ())


def test_labelme_names_come_in_the_order_of_labels_txt(tmp_path: Path) -> None:
    writers.labelme(tmp_path)
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\n")
    assert find_annotations(tmp_path).names == ["__ignore__", "_background_", "dog", "cat"]
    (tmp_path / "labels.txt").write_text("dog\n")  # of another set
    assert find_annotations(tmp_path).names == ["cat", "dog"]


@pytest.mark.parametrize("named", ["C:\\people\\me\\a.png", "../photos/a.png", "missing.jpg"])
def test_labelme_images_that_have_moved(named: str, tmp_path: Path) -> None:
    writers.labelme(tmp_path / "data", imagePath=named)
    assert np.array_equal(only_mask(tmp_path / "data"), scene())


def test_images_without_annotations_are_left_out_of_labelme_and_said(tmp_path: Path) -> None:
    writers.labelme(tmp_path)
    writers.image(tmp_path / "b.png")
    found = find_annotations(tmp_path)
    assert [one.image.name for one in found.images[None]] == ["a.png"]
    assert found.said == ["1 image without an annotation left out"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("compressed", [False, True])
def test_runs_of_coco(compressed: bool, seed: int, tmp_path: Path) -> None:
    mask = np.random.default_rng(seed).random((HEIGHT, WIDTH)) < (0.1, 0.3, 0.5, 0.9, 1.1)[seed]
    lengths = writers.coco_runs(mask)
    content = writers.coco_content()
    counts = writers.coco_text(lengths) if compressed else lengths
    segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
    content["annotations"] = [{"id": 1, "image_id": 7, "category_id": 17, "segmentation": segmentation, "iscrowd": 1}]
    writers.coco(tmp_path / "data", content)
    assert np.array_equal(only_mask(tmp_path / "data") == 1, mask)


def test_long_runs_of_coco_survive_the_text() -> None:
    lengths = [0, 70_000, 3, 1, 1_000_000, 15, 16, 31, 32, 5]
    assert uncompressed(writers.coco_text(lengths), "a.json") == lengths


def test_crowds_of_coco_lie_below(tmp_path: Path) -> None:
    content = writers.coco_content()
    content["annotations"][0]["iscrowd"] = 1  # the dog, the smaller one
    writers.coco(tmp_path / "data", content)
    assert only_mask(tmp_path / "data")[5, 4] == 1


def test_coco_images_without_regions_are_empty_and_boxes_are_said(tmp_path: Path) -> None:
    content = writers.coco_content()
    content["images"].append({"id": 8, "file_name": "b.png", "height": HEIGHT, "width": WIDTH})
    content["annotations"].append({"id": 3, "image_id": 8, "category_id": 17, "bbox": [1, 1, 2, 2], "segmentation": []})
    writers.coco(tmp_path, content)
    writers.image(tmp_path / "images" / "b.png")
    found = find_annotations(tmp_path)
    assert found.said == ["1 box of instances.json without a region left out"]
    result = paint(tmp_path)
    assert not np.asarray(Image.open(result.images["all"][1][2])).any()


def test_coco_files_of_two_splits(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        writers.image(tmp_path / split / "a.png")
        writers.write_json(tmp_path / "annotations" / f"instances_{split}.json", writers.coco_content())
    found = find_annotations(tmp_path)
    assert {split: [one.image.parent.name for one in some] for split, some in found.images.items()} == {
        "train": ["train2017"],
        "val": ["val2017"],
    }


def test_yolo_lists_and_numbered_names(tmp_path: Path) -> None:
    writers.yolo(tmp_path, names="{0: cat, 1: dog}")
    (tmp_path / "train.txt").write_text("./train/images/a.png\n")
    settings = (tmp_path / "data.yaml").read_text().replace("../train/images", "train.txt", 1)
    (tmp_path / "data.yaml").write_text(settings)
    assert [one.image.name for one in find_annotations(tmp_path).images["train"]] == ["a.png"]


def test_images_named_as_in_a_known_data_set_do_not_make_texts_masks(tmp_path: Path) -> None:
    """CamVid is found by the names of its images in any folders, and labels/ looks like a folder of masks."""
    for split in ("train", "val"):
        writers.image(tmp_path / split / "images" / "0001TP_006690.png")
        labels = tmp_path / split / "labels" / "0001TP_006690.txt"
        labels.parent.mkdir()
        labels.write_text("1 0 0 1 0 1 1 0 1\n")
    (tmp_path / "data.yaml").write_text("train: train/images\nval: val/images\nnames: [cat, dog]\n")
    found = resolve(DataConfig(root=str(tmp_path)))
    assert (found.layout, found.classes) == ("yolo", ("cat", "dog"))


def test_a_yolo_image_without_a_label_file_is_empty_and_said(tmp_path: Path) -> None:
    writers.yolo(tmp_path)
    writers.image(tmp_path / "train" / "images" / "b.png")
    found = find_annotations(tmp_path)
    assert found.said == ["2 images without a label file hold no object"]  # once in train, once in val
    assert not paint(tmp_path).faults


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ('<box label="cat" xtl="1" ytl="2" xbr="6" ybr="8" z_order="0"/>', 30),
        ('<box label="cat" xtl="2" ytl="2" xbr="8" ybr="4" rotation="90" z_order="0"/>', 12),
        ('<ellipse label="cat" cx="5" cy="5" rx="3" ry="3" z_order="0"/>', 32),
        ('<mask label="cat" rle="1, 2, 3" left="2" top="3" width="3" height="2" z_order="0"/>', 2),
        ('<polyline label="cat" points="1,1;2,2" z_order="0"/>', 0),
    ],
)
def test_shapes_of_cvat(shape: str, pixels: int, tmp_path: Path) -> None:
    writers.cvat(tmp_path / "data", shape)
    assert paint(tmp_path / "data").pixels[1:] == (pixels, 0)


@pytest.mark.parametrize("repeats", [True, False])
def test_brushes_of_label_studio(repeats: bool, tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4
    result = {
        "id": "b",
        "type": "brushlabels",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": {"format": "rle", "rle": writers.brush(mask, repeats), "brushlabels": ["cat"]},
    }
    writers.label_studio(tmp_path / "data", [result])
    assert np.array_equal(only_mask(tmp_path / "data") == 1, mask)


@pytest.mark.parametrize(
    ("kind", "value", "pixels"),
    [
        ("rectanglelabels", {"x": 25, "y": 20, "width": 50, "height": 30, "rotation": 0}, 18),
        ("ellipselabels", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 30, "rotation": 0}, 32),
    ],
)
def test_other_shapes_of_label_studio(kind: str, value: dict[str, Any], pixels: int, tmp_path: Path) -> None:
    result = {
        "id": "b",
        "type": kind,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": value | {kind: ["cat"]},
    }
    writers.label_studio(tmp_path / "data", [result])
    assert paint(tmp_path / "data").pixels[1:] == (pixels,)


@pytest.mark.parametrize("url", ["/data/local-files/?d=photos/a.png", "s3://bucket/set/a.png", "/data/upload/1/a.png"])
def test_places_of_label_studio(url: str, tmp_path: Path) -> None:
    writers.label_studio(tmp_path / "data", url=url)
    assert np.array_equal(only_mask(tmp_path / "data"), scene())


def test_bitmaps_and_holes_of_supervisely(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((4, 5)) < 0.5
    bitmap = {
        "classTitle": "dog",
        "geometryType": "bitmap",
        "bitmap": {"data": writers.base64_zlib_mask(pixels), "origin": [3, 2]},
    }
    frame = {
        "classTitle": "cat",
        "geometryType": "polygon",
        "points": {"exterior": writers.corners((0, 0, 12, 10)), "interior": [writers.corners((2, 2, 10, 9))]},
    }
    writers.supervisely(tmp_path / "data", [frame, bitmap])
    expected = np.ones((HEIGHT, WIDTH), dtype=int)
    expected[2:9, 2:10] = 0
    expected[2:6, 3:8][pixels] = 2
    assert np.array_equal(only_mask(tmp_path / "data"), expected)


# --- what makes no sense --------------------------------------------------------------------------------------------


def coco_change(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        content = writers.coco_content()
        change(content)
        return writers.coco(root, content)

    return write


def outside(content: dict[str, Any]) -> None:
    content["annotations"][0]["segmentation"] = [[50, 50, 60, 50, 60, 60]]


def too_short(content: dict[str, Any]) -> None:
    content["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]


def other_runs(content: dict[str, Any]) -> None:
    content["annotations"][0]["segmentation"] = {"size": [9, 9], "counts": [81]}


def cut_runs(content: dict[str, Any]) -> None:
    content["annotations"][0]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": "a"}


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "coco: a polygon outside": (coco_change(outside), "polygon-outside"),
    "coco: two points": (coco_change(too_short), "polygon-too-short"),
    "coco: runs of another size": (coco_change(other_runs), "runs-of-another-size"),
    "coco: runs cut off": (coco_change(cut_runs), "annotation-invalid"),
    "coco: no such image": (coco_change(lambda c: c["images"][0].update(file_name="b.png")), "listed-file-missing"),
    "coco: image twice": (coco_change(lambda c: c["images"].append({**c["images"][0], "height": 9})), "image-twice"),
    "coco: category without a name": (coco_change(lambda c: c["categories"][0].pop("name")), "class-without-name"),
    "coco: category unknown": (coco_change(lambda c: c["categories"].pop()), "unknown-class"),
    "coco: image unknown": (coco_change(lambda c: c["annotations"][0].update(image_id=3)), "listed-file-missing"),
    "coco: no size": (coco_change(lambda c: c["images"][0].pop("height")), "annotation-invalid"),
    "labelme: two points": (
        lambda root: writers.labelme(root, shapes=[labelme_shape("polygon", [[0, 0], [1, 1]])]),
        "polygon-too-short",
    ),
    "labelme: no name": (
        lambda root: writers.labelme(root, shapes=[{"points": writers.corners(CAT)}]),
        "class-without-name",
    ),
    "labelme: unknown type": (
        lambda root: writers.labelme(root, shapes=[labelme_shape("cube", [[0, 0], [1, 1]])]),
        "shape-unknown",
    ),
    "labelme: no circle": (
        lambda root: writers.labelme(root, shapes=[labelme_shape("circle", [[0, 0]])]),
        "annotation-invalid",
    ),
    "labelme: no mask": (
        lambda root: writers.labelme(root, shapes=[labelme_shape("mask", [[0, 0], [1, 1]], mask="x")]),
        "annotation-invalid",
    ),
    "yolo: boxes": (lambda root: writers.yolo(root, "0 0.5 0.5 0.2 0.2"), "boxes-not-regions"),
    "yolo: class unknown": (lambda root: writers.yolo(root, "2 0 0 1 0 1 1"), "unknown-class"),
    "yolo: an x without y": (lambda root: writers.yolo(root, "0 0 0 1 0 1 1 0.5"), "annotation-invalid"),
    "yolo: words": (lambda root: writers.yolo(root, "cat 0 0 1 0 1 1"), "annotation-invalid"),
    "yolo: pixels": (lambda root: writers.yolo(root, "0 1 2 6 2 6 8 1 8"), "polygon-outside"),
    "yolo: name twice": (lambda root: writers.yolo(root, names=("cat", "cat")), "class-name-twice"),
    "cvat: no such image": (lambda root: writers.cvat(root, name="b.png"), "listed-file-missing"),
    "cvat: two points": (
        lambda root: writers.cvat(root, '<polygon label="cat" points="1,1;2,2"/>'),
        "polygon-too-short",
    ),
    "cvat: runs": (
        lambda root: writers.cvat(root, '<mask label="cat" rle="1" left="0" top="0" width="2" height="2"/>'),
        "runs-of-another-size",
    ),
    "cvat: no number": (
        lambda root: writers.cvat(root, '<box label="cat" xtl="a" ytl="2" xbr="6" ybr="8"/>'),
        "annotation-invalid",
    ),
    "label studio: no such image": (lambda root: writers.label_studio(root, url="/data/b.png"), "listed-file-missing"),
    "label studio: sizes": (
        lambda root: writers.label_studio(
            root, [one | {"original_width": 12 + n} for n, one in enumerate(writers.label_studio_results())]
        ),
        "sizes-disagree",
    ),
    "label studio: brush": (
        lambda root: writers.label_studio(
            root,
            [
                {
                    "id": "b",
                    "type": "brushlabels",
                    "original_width": 12,
                    "original_height": 10,
                    "value": {"rle": writers.brush(np.ones((3, 3), bool)), "brushlabels": ["cat"]},
                }
            ],
        ),
        "runs-of-another-size",
    ),
    "supervisely: two points": (
        lambda root: writers.supervisely(
            root, [{"classTitle": "cat", "geometryType": "polygon", "points": {"exterior": [[0, 0], [1, 1]]}}]
        ),
        "polygon-too-short",
    ),
    "supervisely: bitmap": (
        lambda root: writers.supervisely(
            root, [{"classTitle": "cat", "geometryType": "bitmap", "bitmap": {"data": "x", "origin": [0, 0]}}]
        ),
        "annotation-invalid",
    ),
    "supervisely: class": (
        lambda root: writers.supervisely(
            root, [{"classTitle": "cow", "geometryType": "polygon", "points": {"exterior": writers.corners(CAT)}}]
        ),
        "unknown-class",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_one_line_that_names_the_file(case: str, tmp_path: Path) -> None:
    write, code = BAD[case]
    file = write(tmp_path / "data")
    named = (file.name, "data.yaml")
    try:
        faults = list(paint(tmp_path / "data").faults.values())
    except DataError as reason:
        faults = [reason]
    assert faults, "nothing was wrong"
    assert faults[0].code == code
    assert "\n" not in str(faults[0])
    assert any(name in str(faults[0]) for name in named)


# --- exact outlines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_outlines_of_a_mask_paint_the_same_mask(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    mask = random.integers(0, 3, (HEIGHT, WIDTH))
    names = ["void", "cat", "dog"]
    shapes = [{"label": names[label], "points": points, "shape_type": "polygon"} for label, points in outlines(mask)]
    writers.labelme(tmp_path / "data", shapes=shapes)
    result = paint(tmp_path / "data")
    labels = np.array([99, *(names.index(name) for name in result.names)])
    assert np.array_equal(labels[np.asarray(Image.open(result.images["all"][0][2]))], mask)


def test_the_dog_covers_the_cat() -> None:
    assert scene()[5, 4] == 2
    assert (scene() == 1).sum() == 30 - 6
    assert (scene() == 2).sum() == 20
    assert DOG[0] < CAT[2]
    assert json.loads(json.dumps(writers.coco_content()))["annotations"][0]["category_id"] == 18
