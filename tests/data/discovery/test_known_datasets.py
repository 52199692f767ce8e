"""The layouts of known data sets, found by looking, and what their labels are made of; each is a small folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.errors import raises_code
from PIL import Image

from autoseg.config.base import parse
from autoseg.config.data import DataConfig, data_settings
from autoseg.data.dataset import describe_dataset, open_dataset, resolve
from autoseg.data.discovery.known_datasets import known_datasets
from autoseg.data.loading.cache import keep_samples
from autoseg.data.loading.loader import evaluation_batches
from autoseg.errors import DataError
from autoseg.files import read_yaml, to_yaml

FORMS = {name: list(forms) for name, forms in groupby(known_datasets(), key=lambda known: known.name)}
ADE20K, CAMVID, CITYSCAPES, VOC = (FORMS[name][0].classes for name in ("ade20k", "camvid", "cityscapes", "voc"))
COCO_STUFF, COCO_PIXELMAPS = (FORMS["coco_stuff"][form].classes for form in (1, 2))
SIZE = (40, 48)
GREY = np.full((*SIZE, 3), 90, dtype=np.uint8)


def columns(*values: Any) -> np.ndarray:
    """A mask (40, 48) whose columns take the values in turn; values may be colours."""
    row = np.array([values[column % len(values)] for column in range(SIZE[1])])
    return np.broadcast_to(row, (*SIZE, *row.shape[1:])).astype(np.uint16 if row.max() > 255 else np.uint8)


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(path)


def config(root: Path, **settings: Any) -> DataConfig:
    return parse(DataConfig, {"root": str(root), **settings})


def labels(root: Path, split: str = "train", **settings: Any) -> list[int]:
    """The first row of the first mask, up to where its columns begin anew."""
    row: list[int] = open_dataset(resolve(config(root, **settings)), split).load(0).mask[0].tolist()
    return row


def cityscapes(root: Path, kind: str, values: tuple[int, ...]) -> None:
    for split, city, count in (("train", "aachen", 3), ("val", "ulm", 2)):
        for number in range(count):
            stem = f"{city}_{number:06d}_000019"
            save(GREY, root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
            save(columns(*values), root / f"gtFine/{split}/{city}/{stem}_gtFine_{kind}.png")
            save(GREY, root / f"gtFine/{split}/{city}/{stem}_gtFine_color.png")


def test_cityscapes_label_ids_become_train_ids(tmp_path: Path) -> None:
    cityscapes(tmp_path, "labelIds", (7, 0, 33, 11, 29, 26))
    assert labels(tmp_path)[:6] == [0, 255, 18, 2, 255, 13]
    assert resolve(config(tmp_path)).classes == CITYSCAPES
    assert describe_dataset(resolve(config(tmp_path))) == "Cityscapes: 3 train, 2 val, 19 classes"


def test_cityscapes_train_ids_stay(tmp_path: Path) -> None:
    cityscapes(tmp_path, "labelIds", (7, 0))
    cityscapes(tmp_path, "labelTrainIds", (0, 255, 18))
    assert labels(tmp_path)[:3] == [0, 255, 18]
    assert resolve(config(tmp_path)).label_map is None


def test_a_label_map_of_cityscapes_is_not_taken_to_a_folder_of_train_ids(tmp_path: Path) -> None:
    cityscapes(tmp_path / "a", "labelIds", (7, 0, 33))
    cityscapes(tmp_path / "b", "labelTrainIds", (0, 255, 18))
    own = resolve(config(tmp_path / "a"))
    other = parse(DataConfig, {**own.to_dict(), "root": str(tmp_path / "b"), "splits": None, "layout": "auto"})
    assert resolve(other).label_map is None
    assert resolve(other).classes == CITYSCAPES


def test_what_the_user_says_of_a_known_layout_counts(tmp_path: Path) -> None:
    cityscapes(tmp_path, "labelIds", (7, 0, 33))
    assert labels(tmp_path, num_classes=34)[:3] == [7, 0, 33]
    assert labels(tmp_path, label_map={7: 0, 33: 1}, num_classes=2, ignore_label=0)[:3] == [0, 0, 1]
    assert labels(tmp_path, ignore_label=254)[:3] == [0, 254, 18]


def test_ade20k(tmp_path: Path) -> None:
    for split, name in (("training", "train"), ("validation", "val")):
        save(GREY, tmp_path / f"ADEChallengeData2016/images/{split}/ADE_{name}_00000001.jpg")
        mask = tmp_path / f"ADEChallengeData2016/annotations/{split}/ADE_{name}_00000001.png"
        save(columns(0, 1, 150), mask)
    resolved = resolve(config(tmp_path))  # the folder that an archive makes is entered
    assert resolved.root == str(tmp_path / "ADEChallengeData2016")
    assert resolved.classes == ADE20K
    assert labels(tmp_path)[:3] == [255, 0, 149]
    assert describe_dataset(resolve(config(tmp_path))) == "ADE20K: 1 train, 1 val, 150 classes"


def test_ade20k_takes_its_names_from_its_table(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        save(GREY, tmp_path / f"images/{split}/a.jpg")
        save(columns(0, 1, 150), tmp_path / f"annotations/{split}/a.png")
    rows = [f"{number}\t0.1\t10\t10\t1\tthing {number}, other" for number in range(1, 151)]
    (tmp_path / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "\n".join(rows))
    assert (resolve(config(tmp_path)).classes or ())[:2] == ("thing 1", "thing 2")


@pytest.mark.parametrize(
    ("masks", "values", "expected", "classes"),
    [
        ("stuffthingmaps/{}", (0, 181, 11, 255, 12), [0, 170, 255, 255, 11], COCO_STUFF),
        ("stuff_{}_pixelmaps", (0, 92, 182, 183), [255, 0, 90, 91], COCO_PIXELMAPS),
    ],
)
def test_coco_stuff(
    masks: str, values: tuple[int, ...], expected: list[int], classes: tuple[str, ...], tmp_path: Path
) -> None:
    for split in ("train2017", "val2017"):
        save(GREY, tmp_path / f"{split}/000000000009.jpg")
        save(columns(*values), tmp_path / f"{masks.format(split)}/000000000009.png")
    assert labels(tmp_path)[: len(expected)] == expected
    assert resolve(config(tmp_path)).classes == classes
    assert describe_dataset(resolve(config(tmp_path))) == f"COCO-Stuff: 1 train, 1 val, {len(classes)} classes"


def voc(root: Path, folder: str) -> None:
    for stem in ("2007_000032", "2007_000039", "2008_000001"):
        save(GREY, root / f"JPEGImages/{stem}.jpg")
        mask = Image.fromarray(columns(0, 20, 255))
        mask.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
        (root / folder).mkdir(exist_ok=True)
        mask.save(root / folder / f"{stem}.png")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "train.txt").write_text("2007_000032\n")
    (lists / "val.txt").write_text("2008_000001\n")


def test_voc_and_the_augmented_list(tmp_path: Path) -> None:
    voc(tmp_path, "SegmentationClass")
    aug = "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png\n"
    listing = "".join(aug.format(stem) for stem in ("2007_000039", "2007_000032"))
    (tmp_path / "ImageSets/Segmentation/train_aug.txt").write_text(listing)
    assert describe_dataset(resolve(config(tmp_path))) == "PASCAL VOC: 1 train, 1 val, 21 classes"
    assert resolve(config(tmp_path)).classes == VOC
    assert labels(tmp_path)[:3] == [0, 20, 255]
    voc(tmp_path, "SegmentationClassAug")
    assert describe_dataset(resolve(config(tmp_path))) == "PASCAL VOC: 2 train, 1 val, 21 classes"
    assert labels(tmp_path)[:3] == [0, 20, 255]


def camvid_frames(root: Path, image: str, mask: str, values: tuple[Any, ...]) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            stem = f"0001TP_00{number}{len(split)}60"
            save(GREY, root / image.format(split=split, stem=stem))
            save(columns(*values), root / mask.format(split=split, stem=stem))


def test_camvid_as_segnet_has_it(tmp_path: Path) -> None:
    camvid_frames(tmp_path, "{split}/{stem}.png", "{split}annot/{stem}.png", (0, 10, 11))
    resolved = resolve(config(tmp_path))
    assert (resolved.classes, resolved.ignore_label) == (CAMVID, 11)
    assert labels(tmp_path)[:3] == [0, 10, 11]
    assert describe_dataset(resolve(config(tmp_path))) == "CamVid: 3 train, 2 val, 11 classes"


ROAD_MARKING, TRUCK, VOID = (128, 0, 192), (192, 128, 192), (0, 0, 0)


@pytest.mark.parametrize(
    ("image", "mask", "splits"),
    [
        ("701_StillsRaw_full/{stem}.png", "LabeledApproved_full/{stem}_L.png", "4 train, 1 val"),
        ("{split}/{stem}.png", "{split}_labels/{stem}_L.png", "3 train, 2 val"),
    ],
)
def test_camvid_in_its_own_colours(image: str, mask: str, splits: str, tmp_path: Path) -> None:
    camvid_frames(tmp_path, image, mask, (ROAD_MARKING, TRUCK, VOID))
    assert labels(tmp_path)[:3] == [3, 8, 11]
    assert describe_dataset(resolve(config(tmp_path))).startswith(f"CamVid (colour-coded): {splits}, 11 classes")


def test_the_colours_of_camvid_differ() -> None:
    groups = FORMS["camvid_colour"][0].colours or {}
    colours = [colour for group in groups.values() for colour in group]
    assert (len(colours), len(set(colours)), len(groups)) == (32, 32, 12)


@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("version", ["", "v2.0"])
def test_mapillary(version: str, coloured: bool, tmp_path: Path) -> None:
    colours = [(165, 42, 42), (0, 192, 0), (0, 0, 0), (0, 0, 0)]
    rows = [
        {"name": f"a--{number}", "readable": f"Thing {number}", "color": list(rgb), "evaluate": number != 1}
        for number, rgb in enumerate(colours)
    ]
    (tmp_path / (f"config_{version}.json" if version else "config.json")).write_text(json.dumps({"labels": rows}))
    for split in ("training", "validation"):
        save(GREY, tmp_path / f"{split}/images/a.jpg")
        save(columns(*(colours[:3] if coloured else (0, 1, 2))), tmp_path / f"{split}/{version}/labels/a.png")
    assert labels(tmp_path)[:3] == [0, 255, 1]
    assert resolve(config(tmp_path)).classes == ("Thing 0", "Thing 2", "Thing 3")
    assert "Mapillary Vistas: 1 train, 1 val, 3 classes" in describe_dataset(resolve(config(tmp_path)))


def test_pet(tmp_path: Path) -> None:
    for number in range(10):
        save(GREY, tmp_path / f"images/Abyssinian_{number}.jpg")
        save(columns(1, 2, 3), tmp_path / f"annotations/trimaps/Abyssinian_{number}.png")
    (tmp_path / "annotations/trainval.txt").write_text("".join(f"Abyssinian_{number} 1 1 1\n" for number in range(5)))
    (tmp_path / "annotations/test.txt").write_text("".join(f"Abyssinian_{number} 1 1 1\n" for number in range(5, 10)))
    assert labels(tmp_path)[:3] == [1, 0, 255]
    assert resolve(config(tmp_path)).classes == ("background", "pet")
    assert describe_dataset(resolve(config(tmp_path))) == (
        "Oxford-IIIT Pet: 4 train, 1 val, 5 test, 2 classes, split by seed 0 (data.val_share 0.2)"
    )


# --- any folder -------------------------------------------------------------------------------------------------------


def unsplit(root: Path, count: int = 10, values: tuple[Any, ...] = (0, 1, 2), image: np.ndarray = GREY) -> None:
    for number in range(count):
        save(image, root / f"images/sub/{number}.png")
        save(columns(*values), root / f"masks/sub/{number}.png")


def test_a_folder_without_splits_is_split_by_seed(tmp_path: Path) -> None:
    unsplit(tmp_path, 20)
    train, val = (open_dataset(resolve(config(tmp_path)), split).names for split in ("train", "val"))
    assert (len(train), len(val)) == (16, 4)
    assert sorted(train + val) == sorted(f"sub/{number}" for number in range(20))
    assert open_dataset(resolve(config(tmp_path)), "val").names == val
    assert open_dataset(resolve(config(tmp_path, split_seed=1)), "val").names != val
    assert len(open_dataset(resolve(config(tmp_path, val_share=0.5)), "val")) == 10
    assert describe_dataset(resolve(config(tmp_path))) == (
        f"{tmp_path.name} (a folder of images and masks): 16 train, 4 val, 3 classes, split by seed 0"
        " (data.val_share 0.2)"
    )


@pytest.mark.slow
def test_new_images_move_few_of_the_others(tmp_path: Path) -> None:
    unsplit(tmp_path, 100)
    before = set(open_dataset(resolve(config(tmp_path)), "val").names)
    unsplit(tmp_path, 105)
    after = set(open_dataset(resolve(config(tmp_path)), "val").names)
    assert len(before & after) >= 18


def test_image_and_mask_in_one_folder(tmp_path: Path) -> None:
    for number in range(10):
        save(GREY, tmp_path / f"deep/er/x {number}.png")
        save(columns(0, 1, 2), tmp_path / f"deep/er/x {number}_mask.png")
    (tmp_path / "notes.txt").write_text("")
    dataset = open_dataset(resolve(config(tmp_path)), "train")
    assert len(dataset) == 8
    assert dataset.load(0).mask[0, :3].tolist() == [0, 1, 2]
    assert dataset.image_path(0) != Path(dataset.where(0))


def test_image_and_mask_in_one_folder_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(GREY, tmp_path / split / "a.jpg")
        save(columns(0, 1, 2), tmp_path / split / "a_mask.png")
    assert [open_dataset(resolve(config(tmp_path)), split).names for split in ("train", "val")] == [["a"], ["a"]]


def test_own_endings(tmp_path: Path) -> None:
    save(GREY, tmp_path / "all/a_RAW.png")
    save(columns(0, 1, 2), tmp_path / "all/a_TRUTH.png")
    save(GREY, tmp_path / "all/a_DEPTH.png")
    splits = {"train": {"images": "all", "masks": "all", "image_suffix": "_RAW", "mask_suffix": "_TRUTH"}}
    dataset = open_dataset(resolve(config(tmp_path, splits=splits)), "train")
    assert (dataset.names, dataset.load(0).mask[0, :3].tolist()) == (["a"], [0, 1, 2])


@pytest.mark.parametrize(
    "text",
    [
        "image,mask\nphotos/a 1.png,truth/b.png\nphotos/c.png,truth/d.png\n",
        "photos/a 1.png,truth/b.png\nphotos/c.png,truth/d.png\n",
        'photos/a 1.png;"truth/b.png"\nphotos/c.png;truth/d.png\n',
    ],
)
def test_csv_of_pairs(text: str, tmp_path: Path) -> None:
    for name in ("a 1", "c"):
        save(GREY, tmp_path / f"photos/{name}.png")
    for name in ("b", "d"):
        save(columns(0, 1, 2), tmp_path / f"truth/{name}.png")
    (tmp_path / "train.csv").write_text(text, encoding="utf-8-sig")
    (tmp_path / "val.csv").write_text("photos/c.png,truth/d.png\n")
    dataset = open_dataset(resolve(config(tmp_path)), "train")
    assert dataset.names == ["photos/a 1", "photos/c"]
    assert dataset.where(0) == "truth/b.png"
    (tmp_path / "train.csv").rename(tmp_path / "pairs.csv")
    (tmp_path / "val.csv").unlink()
    assert describe_dataset(resolve(config(tmp_path))).startswith(
        f"{tmp_path.name} (lists of images and masks): 1 train, 1 val, 3 classes, split by seed 0"
    )


def test_list_of_pairs_with_spaces_in_their_names(tmp_path: Path) -> None:
    save(GREY, tmp_path / "my photos/a b.png")
    save(columns(0, 1, 2), tmp_path / "my masks/a b.png")
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("my photos/a b.png my masks/a b.png\n")
    assert open_dataset(resolve(config(tmp_path)), "train").names == ["my photos/a b"]


def test_a_layout_that_is_named(tmp_path: Path) -> None:
    unsplit(tmp_path)
    assert resolve(config(tmp_path, layout="folder")).layout == "folder"
    for name in ("list", *FORMS):
        with raises_code(DataError, "layout-differs", tmp_path, "data.root", "data.layout"):
            resolve(config(tmp_path, layout=name))


# --- what masks say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected", "classes"),
    [
        ((0, 255), [0, 1], ("background", "foreground")),
        ((0, 1), [0, 1], ("background", "foreground")),
        ((0, 1, 255), [0, 1, 255], ("class_0", "class_1")),
        ((0, 1, 2), [0, 1, 2], ("class_0", "class_1", "class_2")),
    ],
)
def test_binary_masks(values: tuple[int, ...], expected: list[int], classes: tuple[str, ...], tmp_path: Path) -> None:
    unsplit(tmp_path, values=values)
    assert labels(tmp_path)[: len(expected)] == expected
    assert resolve(config(tmp_path)).classes == classes
    assert ("255 is class 1" in describe_dataset(resolve(config(tmp_path)))) == (values == (0, 255))


ROAD, CAR, NOTHING = [128, 64, 128], [0, 0, 142], [0, 0, 0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("label_colors.txt", "128 64 128\troad\n0 0 142\tcar\n0 0 0\tVoid\n"),
        ("class_dict.csv", "name,r,g,b\nroad,128,64,128\ncar,0,0,142\nvoid,0,0,0\n"),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142::\nignore:0,0,0::\n"),
        (None, ""),
    ],
)
def test_masks_in_colour(file: str | None, text: str, tmp_path: Path) -> None:
    unsplit(tmp_path, values=(CAR, NOTHING, ROAD))
    settings: dict[str, Any] = {"colours": {"road": ROAD, "car": CAR, "ignore": NOTHING}}
    if file:
        (tmp_path / file).write_text(text)
        settings = {}
    assert labels(tmp_path, **settings)[:3] == [1, 255, 0]
    resolved = resolve(config(tmp_path, **settings))
    assert (resolved.classes, resolved.num_classes) == (("road", "car"), 2)
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(resolved.to_dict()))
    assert resolve(parse(DataConfig, read_yaml(path, DataError))) == resolved
    assert "masks in colour" in describe_dataset(resolve(config(tmp_path, **settings)))


def test_colours_may_have_labels_for_names(tmp_path: Path) -> None:
    unsplit(tmp_path, values=(CAR, NOTHING, ROAD))
    path = tmp_path / "data.yaml"
    path.write_text("root: .\ncolours: {0: [0, 0, 0], 1: [128, 64, 128], 2: [0, 0, 142]}\nlabel_map: {2: 1}\n")
    dataset = open_dataset(resolve(parse(DataConfig, data_settings(path))), "train")
    assert dataset.load(0).mask[0, :3].tolist() == [1, 0, 1]


def test_a_colour_that_the_table_does_not_have(tmp_path: Path) -> None:
    unsplit(tmp_path, values=(CAR, NOTHING, ROAD))
    with raises_code(DataError, "unknown-colour", "[0, 0, 0]", "row 0, column 1", "data.colours"):
        labels(tmp_path, colours={"road": ROAD, "car": CAR})


# --- images of any kind -----------------------------------------------------------------------------------------------

RAMP = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE)


def arrays(write: Callable[[Path], None], root: Path) -> None:
    for number in range(4):
        (root / "images").mkdir(parents=True, exist_ok=True)
        write(root / f"images/{number}")
        save(columns(0, 1, 2), root / f"masks/{number}.png")


FORMATS: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "8-bit grey": (lambda stem: save((RAMP % 256).astype(np.uint8), stem.with_suffix(".png")), 1, "uint8"),
    "16-bit grey": (lambda stem: save((RAMP * 30).astype(np.uint16), stem.with_suffix(".png")), 1, "uint16"),
    "float TIFF": (lambda stem: save((RAMP / 1000).astype(np.float32), stem.with_suffix(".tif")), 1, "float32"),
    "rows": (lambda stem: np.save(stem.with_suffix(".npy"), RAMP.astype(np.uint16)), 1, "uint16"),
    "channels last": (lambda stem: np.save(stem, np.stack([RAMP % 200] * 6, 2).astype(np.uint8)), 6, "uint8"),
    "channels first": (lambda stem: np.save(stem, np.stack([RAMP / 9] * 5).astype(np.float64)), 5, "float32"),
    "RGB": (lambda stem: save(GREY, stem.with_suffix(".png")), 3, "uint8"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_channels_and_types_are_found(kind: str, tmp_path: Path) -> None:
    write, channels, pixel_type = FORMATS[kind]
    arrays(write, tmp_path)
    resolved = resolve(config(tmp_path))
    assert (resolved.channels, resolved.pixel_type) == (channels, pixel_type)
    assert len(resolved.mean) == len(resolved.std) == channels
    assert resolve(resolved) == resolved
    image = open_dataset(resolved, "train").load(0).image
    assert (image.shape, image.dtype.name) == ((*SIZE, channels), pixel_type)
    assert image[0, 1, 0] == open_dataset(resolve(config(tmp_path, resize=SIZE)), "train").load(0).image[0, 1, 0]
    assert (resolved.mean == (0.485, 0.456, 0.406)) == (kind == "RGB")


def test_normalisation_from_the_data(tmp_path: Path) -> None:
    arrays(lambda stem: save((RAMP * 30).astype(np.uint16), stem.with_suffix(".png")), tmp_path)
    resolved = resolve(config(tmp_path))
    assert resolved.mean == pytest.approx([(RAMP * 30 / 65535).mean()], rel=1e-5)
    assert resolved.std == pytest.approx([(RAMP * 30 / 65535).std()], rel=1e-5)
    assert "1 channel of uint16" in describe_dataset(resolved)
    with raises_code(DataError, "mean-count-differs", "1 channel,", "3 means", "data.mean", "data.normalise: data"):
        resolve(config(tmp_path, normalise="imagenet"))
    given = resolve(config(tmp_path, channels=3, pixel_type="uint8", normalise="data"))
    assert len(set(given.mean)) == 1
    assert open_dataset(resolve(given), "train").load(0).image.dtype == np.uint8


def test_a_fourth_channel_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    rgba = np.dstack([GREY, RAMP % 256]).astype(np.uint8)
    arrays(lambda stem: save(rgba, stem.with_suffix(".png")), tmp_path)
    assert resolve(config(tmp_path)).channels == 3
    dataset = open_dataset(resolve(config(tmp_path, channels=4)), "train")
    assert np.array_equal(dataset.load(0).image, rgba)


@pytest.mark.parametrize("shape", ["planes", "interleaved"])
def test_tiff_of_many_bands(shape: str, tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile, which reads TIFFs of many bands, is not installed")
    bands = np.random.default_rng(0).integers(0, 4000, (*SIZE, 7), dtype=np.uint16)
    stored = bands.transpose(2, 0, 1) if shape == "planes" else bands
    planar = "separate" if shape == "planes" else "contig"
    arrays(lambda s: tifffile.imwrite(s.with_suffix(".tif"), stored, planarconfig=planar), tmp_path)
    assert np.array_equal(open_dataset(resolve(config(tmp_path)), "train").load(0).image, bands)


def test_tiff_of_many_bands_without_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    arrays(lambda stem: stem.with_suffix(".tif").write_bytes(b"II*\0\x08\0\0\0\0\0\0\0\0\0"), tmp_path)
    with raises_code(DataError, "package-missing", ".tif ", "pip install tifffile"):
        open_dataset(resolve(config(tmp_path)), "train").load(0)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("kind", ["16-bit grey", "channels last", "channels first"])
def test_images_of_any_kind_are_kept_as_they_are(kind: str, place: Any, tmp_path: Path) -> None:
    arrays(FORMATS[kind][0], tmp_path / "set")
    plain, kept = (open_dataset(resolve(config(tmp_path / "set")), "train") for _ in range(2))
    assert keep_samples(kept, place, None, tmp_path / "cache") == place
    for index in range(len(plain)):
        image, mask = kept.load(index)
        assert image.dtype == plain.load(index).image.dtype
        assert np.array_equal(image, plain.load(index).image)
        assert np.array_equal(mask, plain.load(index).mask)
    batches = [
        next(evaluation_batches(some, [0], (0.1,) * kept.channels, (2.0,) * kept.channels)) for some in (plain, kept)
    ]
    assert batches[0][1].shape == (1, kept.channels, *SIZE)
    assert torch.equal(batches[0][1], batches[1][1])
    scale = {"uint8": 255, "uint16": 65535, "float32": 1}[kept.image_dtype.name]
    expected = (plain.load(0).image.astype(np.float64) / scale - 0.1) / 2
    assert np.allclose(batches[0][1][0].permute(1, 2, 0).numpy(), expected, atol=1e-6, rtol=1e-5)
