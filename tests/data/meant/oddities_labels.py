"""Which classes the stored labels are: gaps, label 1 as the first, ignored labels, instances, names that disagree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from data.meant.build import (
    HEIGHT,
    WIDTH,
    blocks,
    colours,
    meant_masks,
    numbered,
    painted,
    pairs,
    save,
    save_tiff,
    stems,
    write,
)
from data.meant.case import Case, Meant

# --- gaps, and the first label ----------------------------------------------------------------------------------------

GAPS = (0, 1, 2, 3, 4, 5, 100, 200, 201)
TUMOUR = (0, 1, 2, 4)
FROM_1 = tuple(range(1, 18))
LUMINANCE = (0, 22, 34, 38, 45, 57, 60, 90, 97, 113, 116, 121, 128, 132, 185)
LAND = ("background", "building", "road", "water", "barren", "forest", "agriculture")


def gaps(root: Path) -> None:
    pairs(root, GAPS)


def tumour(root: Path) -> None:
    pairs(root, TUMOUR)


def from_1(root: Path) -> None:
    pairs(root, FROM_1)


def luminance(root: Path) -> None:
    pairs(root, LUMINANCE)


def three_hundred(number: int) -> tuple[int, ...]:
    return tuple((50 * number + one) % 300 for one in range(150))


def many(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "images" / f"{stem}.png", colours(number))
        save(root / "masks" / f"{stem}.png", blocks(three_hundred(number), number, side=2).astype(np.uint16))


def many_masks() -> dict[str, np.ndarray]:
    return {stem: blocks(three_hundred(number), number, side=2) for number, stem in enumerate(stems())}


def hand(root: Path) -> None:
    pairs(root, (0, 200))


def only_1(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "images" / f"{stem}.png", colours(number))
        save(root / "masks" / f"{stem}.png", np.ones((HEIGHT, WIDTH), dtype=np.uint8))


def only_0(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "images" / f"{stem}.png", colours(number))
        save(root / "masks" / f"{stem}.png", np.zeros((HEIGHT, WIDTH), dtype=np.uint8))


# --- ignored labels ---------------------------------------------------------------------------------------------------


def no_data(root: Path) -> dict[str, object]:
    pairs(root, range(8))
    return {"classes": LAND, "ignore_label": 0}


def ignored_0(root: Path) -> dict[str, object]:
    pairs(root, (0, 1, 2, 3))
    return {"ignore_label": 0}


def ignored_last(root: Path) -> dict[str, object]:
    pairs(root, (0, 1, 2))
    return {"ignore_label": 2}


def uncertain(root: Path) -> None:
    pairs(root, (*range(7), 255))


def from_1_and_255(root: Path) -> None:
    pairs(root, (*range(1, 8), 255))


def one_all_ignored(root: Path) -> None:
    pairs(root, (0, 1, 255))
    save(root / "masks" / "a2.png", np.full((HEIGHT, WIDTH), 255, dtype=np.uint8))


def one_all_ignored_masks() -> dict[str, np.ndarray]:
    return meant_masks((0, 1, 255), {0: 0, 1: 1, 255: -1}) | {"a2": np.full((HEIGHT, WIDTH), -1)}


def some_empty(root: Path) -> None:
    pairs(root, (0, 1))
    for stem in ("a1", "a3"):
        save(root / "masks" / f"{stem}.png", np.zeros((HEIGHT, WIDTH), dtype=np.uint8))


def some_empty_masks() -> dict[str, np.ndarray]:
    return meant_masks((0, 1)) | {stem: np.zeros((HEIGHT, WIDTH), dtype=int) for stem in ("a1", "a3")}


def labelme_npy(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "JPEGImages" / f"{stem}.jpg", colours(number))
        save(root / "SegmentationClass" / f"{stem}.npy", blocks((-1, 0, 1, 2), number).astype(np.int32))
    write(root / "class_names.txt", "_background_\ncat\ndog\n")


def gdal_nodata(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "images" / f"{stem}.png", colours(number))
        mask = blocks((-9999, 0, 1), number).astype(np.int16)
        save_tiff(root / "labels" / f"{stem}.tif", mask, extratags=[(42113, "s", 0, "-9999", True)])


def ct_values(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "images" / f"{stem}.png", colours(number))
        values = np.random.default_rng(number).integers(-1024, 900, (HEIGHT, WIDTH))
        save_tiff(root / "labels" / f"{stem}.tif", values.astype(np.int16))


# --- 0 and 255 --------------------------------------------------------------------------------------------------------


def lesions(root: Path) -> None:
    pairs(root, (0, 255))
    write(root / "id2label.json", json.dumps({"0": "skin", "1": "lesion"}))


def nodules(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "imagesTr" / f"thyroid_{stem}_0000.png", colours(number))
        save(root / "labelsTr" / f"thyroid_{stem}.png", blocks((0, 255), number).astype(np.uint8))
    content = {"channel_names": {"0": "US"}, "labels": {"background": 0, "nodule": 1}, "file_ending": ".png"}
    write(root / "dataset.json", json.dumps(content))


def ones_and_255(root: Path) -> None:
    pairs(root, (0, 1))
    for number in (1, 3, 4):
        save(root / "masks" / f"a{number}.png", blocks((0, 255), number).astype(np.uint8))


def ones_to_train_255_to_validate(root: Path) -> None:
    for number, stem in enumerate(stems()):
        split, values = ("train", (0, 1)) if number < 4 else ("val", (0, 255))
        save(root / split / "images" / f"{stem}.png", colours(number))
        save(root / split / "masks" / f"{stem}.png", blocks(values, number).astype(np.uint8))


def ignored_person(root: Path) -> dict[str, object]:
    pairs(root, (0, 255))
    return {"classes": ("background", "person"), "ignore_label": 255}


def soft_greys(root: Path, first: int = 0) -> None:
    rows, columns = np.mgrid[:64, :64]
    for number in range(14):
        distance = np.hypot(rows - 25 - number, columns - 28) - 15
        mask = np.clip(128 - 32 * distance, 0, 255).astype(np.uint8)
        if number >= first:
            mask[:, 50:] = 127
        save(root / "images" / f"{number:02d}.png", colours(number, (64, 64)))
        save(root / "masks" / f"{number:02d}.png", mask)


def grey_after_ten(root: Path) -> None:
    soft_greys(root, first=13)


# --- names and splits that disagree -----------------------------------------------------------------------------------


def beyond_the_names(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "imagesTr" / f"{stem}_0000.png", colours(number))
        save(root / "labelsTr" / f"{stem}.png", blocks((0, 2, 3, 4, 5), number).astype(np.uint8))
    names = {"background": 0, **{f"Segment_{number + 1}": number for number in range(1, 5)}}
    write(root / "dataset.json", json.dumps({"labels": names, "file_ending": ".png"}))


def nnunet(root: Path, values: tuple[int, ...], labels: str) -> None:
    for number, stem in enumerate(stems()):
        save(root / "imagesTr" / f"{stem}_0000.png", colours(number))
        save(root / "labelsTr" / f"{stem}.png", blocks(values, number).astype(np.uint8))
    write(root / "dataset.json", f'{{"labels": {labels}, "file_ending": ".png"}}')


def ignore_in_json(root: Path) -> None:
    nnunet(root, (0, 1, 2, 3), '{"background": 0, "tumor": 1, "stroma": 2, "ignore": 3}')


def ignore_twice_in_json(root: Path) -> None:
    nnunet(root, (0, 1, 2, 3, 4), '{"background": 0, "steel": 1, "titanium": 2, "ignore": 3, "ignore": 4}')


def regions_in_json(root: Path) -> None:
    labels = '{"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}'
    nnunet(root, (0, 1, 2, 3), labels)


def rare_in_validation(root: Path) -> None:
    for number, stem in enumerate(stems()):
        split, values = ("train", (0, 1, 2)) if number < 4 else ("valid", (0, 1, 2, 3))
        save(root / split / "images" / f"{stem}.png", colours(number))
        save(root / split / "masks" / f"{stem}.png", blocks(values, number).astype(np.uint8))


def rare_in_validation_masks() -> dict[str, np.ndarray]:
    return {stem: blocks((0, 1, 2) if number < 4 else (0, 1, 2, 3), number) for number, stem in enumerate(stems())}


# --- instances and blur -----------------------------------------------------------------------------------------------


def instance_ids(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "images" / f"{stem}.png", colours(number))
        mask = blocks((7, 8, 11, 24000, *(26000 + one for one in range(number + 2))), number)
        save(root / "masks" / f"{stem}.png", mask.astype(np.uint16))


def nuclei(root: Path) -> None:
    for number, stem in enumerate(stems()):
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
        for one in range(number + 3):
            mask[2 + 10 * (one // 4) :, 1 + 10 * (one % 4) :][:6, :6] = one + 1
        save(root / "images" / f"{stem}.png", colours(number))
        save_tiff(root / "labels" / f"{stem}.tif", mask)


def panoptic(root: Path) -> None:
    for number, stem in enumerate(stems()):
        mask = blocks(range(5), number)
        ids = np.random.default_rng(number).integers(1, 256, (5, 3))
        save(root / "train2017" / f"{stem}.jpg", colours(number))
        painting = painted(mask, {one: tuple(rgb.tolist()) for one, rgb in enumerate(ids)})
        save(root / "annotations" / "panoptic_train2017" / f"{stem}.png", painting)


def shifted_ids(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "images" / f"{stem}.png", colours(number))
        save_tiff(root / "labels" / f"{stem}.tif", blocks((0, 65537, 131073, 917505), number).astype(np.uint32))


def resized_labels(root: Path) -> None:
    for number, stem in enumerate(stems()):
        small = Image.fromarray(blocks((0, 10, 20), number, side=8).astype(np.uint8)[::2, ::2])
        save(root / "images" / f"{stem}.png", colours(number))
        save(root / "masks" / f"{stem}.png", np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)))


CASES = (
    Case(
        "labels with gaps",
        "https://github.com/MIC-DKFZ/nnUNet/issues/1757",
        gaps,
        Meant(9, meant_masks(GAPS)),
    ),
    Case(
        "label 3 left out, as in BraTS",
        "https://github.com/MIC-DKFZ/nnUNet/issues/1183",
        tumour,
        Meant(4, meant_masks(TUMOUR)),
    ),
    Case(
        "labels from 1, without a background",
        "https://github.com/bubbliiiing/segformer-pytorch/issues/13",
        from_1,
        Meant(17, meant_masks(FROM_1)),
    ),
    Case(
        "grey values of a colour mask as labels",
        "https://forums.fast.ai/t/how-does-pilmask-create-work/86272",
        luminance,
        Meant(len(LUMINANCE), meant_masks(LUMINANCE)),
    ),
    Case(
        "300 labels, and 255 is one of them",
        "https://github.com/meetps/pytorch-semseg/issues/27",
        many,
        Meant(300, many_masks(), or_stops="too-many-labels"),  # classes or objects: data.num_classes tells
    ),
    Case("masks of 0 and 200", "https://www.codetd.com/article/11252359", hand, Meant(2, meant_masks((0, 200)))),
    Case(
        "one label alone, and it is 1",
        "https://github.com/open-mmlab/mmsegmentation/issues/304",
        only_1,
        "too-few-classes",
    ),
    Case(
        "all masks empty",
        "https://github.com/carla-simulator/carla/issues/151",
        only_0,
        "too-few-classes",
    ),
    Case(
        "label 0 without data, seven names, ignore_label 0",
        "https://github.com/Junjue-Wang/LoveDA/issues/25",
        no_data,
        Meant(LAND, meant_masks(range(8), numbered(range(8), ignored=[0]))),
    ),
    Case(
        "ignore_label 0 without names",
        "https://github.com/hellochick/PSPNet-tensorflow/issues/50",
        ignored_0,
        Meant(3, meant_masks((0, 1, 2, 3), numbered((0, 1, 2, 3), ignored=[0]))),
    ),
    Case(
        "ignore_label 2 of 0, 1, 2",
        "https://github.com/ElliotVincent/SitsSCD/issues/3",
        ignored_last,
        Meant(2, meant_masks((0, 1, 2), {0: 0, 1: 1, 2: -1})),
    ),
    Case(
        "255 beside 0 to 6",
        "https://github.com/CAMMA-public/Endoscapes/issues/5",
        uncertain,
        Meant(7, meant_masks((*range(7), 255), numbered((*range(7), 255), ignored=[255]))),
    ),
    Case(
        "255 beside 1 to 7",
        "https://github.com/LauraChow/HunanMultimodalDataset/issues/1",
        from_1_and_255,
        Meant(7, meant_masks((*range(1, 8), 255), numbered((*range(1, 8), 255), ignored=[255]))),
    ),
    Case(
        "one mask holds 255 alone",
        "https://github.com/open-mmlab/mmsegmentation/issues/2598",
        one_all_ignored,
        Meant(2, one_all_ignored_masks()),
    ),
    Case(
        "some masks empty",
        "https://github.com/MouseLand/cellpose/issues/1495",
        some_empty,
        Meant(2, some_empty_masks()),
    ),
    Case(
        "labelme's arrays with -1 for what is ignored",
        "https://github.com/wkentaro/labelme/issues/178",
        labelme_npy,
        Meant(("background", "cat", "dog"), meant_masks((-1, 0, 1, 2), {-1: -1, 0: 0, 1: 1, 2: 2})),
    ),
    Case(
        "GeoTIFF with the nodata value -9999",
        "https://github.com/GispoCoding/eis_toolkit/issues/496",
        gdal_nodata,
        Meant(2, meant_masks((-9999, 0, 1), {-9999: -1, 0: 0, 1: 1})),
    ),
    Case(
        "masks that are scans, -1024 and more",
        "https://github.com/MIC-DKFZ/nnUNet/issues/1007",
        ct_values,
        "label-out-of-range",
    ),
    Case(
        "0 and 255, and id2label.json names 0 and 1",
        "https://github.com/huggingface/transformers/issues/27224",
        lesions,
        Meant(("skin", "lesion"), meant_masks((0, 255))),
    ),
    Case(
        "nnU-Net of PNGs with 0 and 255",
        "https://github.com/MIC-DKFZ/nnUNet/issues/1777",
        nodules,
        Meant(("background", "nodule"), meant_masks((0, 255), names=[f"thyroid_{stem}_0000" for stem in stems()])),
    ),
    Case(
        "some masks of 0 and 1, others of 0 and 255",
        "https://github.com/askerlee/segtran/issues/44",
        ones_and_255,
        "labels-unclear",
    ),
    Case(
        "masks of 0 and 1 to train, of 0 and 255 to validate",
        "https://github.com/datvuthanh/HybridNets/issues/60",
        ones_to_train_255_to_validate,
        "labels-unclear",
    ),
    Case(
        "two classes set, ignore_label 255, labels 0 and 255",
        "https://github.com/clovaai/ext_portrait_segmentation/issues/30",
        ignored_person,
        "too-few-classes",  # what is set counts: 255 is ignored, so that 0 alone remains to train on
    ),
    Case(
        "masks of three greys with soft edges",
        "https://github.com/open-mmlab/mmsegmentation/issues/1335",
        soft_greys,
        "labels-unclear",
    ),
    Case(
        "soft binary masks, and a third grey after the first ten",
        "https://github.com/open-mmlab/mmsegmentation/issues/1335",
        grey_after_ten,
        "labels-unclear",
    ),
    Case(
        "a label beyond those that dataset.json names",
        "https://github.com/MIC-DKFZ/nnUNet/issues/2500",
        beyond_the_names,
        "names-differ",
    ),
    Case(
        "dataset.json with the label ignore",
        "https://github.com/MIC-DKFZ/nnUNet/issues/2567",
        ignore_in_json,
        Meant(
            ("background", "tumor", "stroma"),
            meant_masks((0, 1, 2, 3), {0: 0, 1: 1, 2: 2, 3: -1}, [f"{stem}_0000" for stem in stems()]),
        ),
    ),
    Case(
        "dataset.json with the label ignore twice",
        "https://github.com/MIC-DKFZ/nnUNet/issues/2884",
        ignore_twice_in_json,
        Meant(
            ("background", "steel", "titanium"),
            meant_masks(range(5), {0: 0, 1: 1, 2: 2, 3: -1, 4: -1}, [f"{stem}_0000" for stem in stems()]),
            or_stops="class-name-twice",
        ),
    ),
    Case(
        "dataset.json with regions of several labels",
        "https://github.com/MIC-DKFZ/nnUNet/issues/2316",
        regions_in_json,
        "labels-overlap",
    ),
    Case(
        "a label that validation alone shows",
        "https://github.com/roboflow/roboflow-100-benchmark/issues/45",
        rare_in_validation,
        Meant(4, rare_in_validation_masks()),
    ),
    Case(
        "16 bit instance ids, 26001 and so on",
        "https://github.com/mcordts/cityscapesScripts/issues/32",
        instance_ids,
        "labels-like-instances",
    ),
    Case(
        "nuclei numbered from 1 in each image",
        "https://github.com/selimsef/dsb2018_topcoders/issues/4",
        nuclei,
        "labels-like-instances",
    ),
    Case(
        "panoptic ids as colours",
        "https://github.com/cocodataset/panopticapi/issues/3",
        panoptic,
        "mask-colours-unset",
    ),
    Case(
        "32 bit labels with an instance in the upper half",
        "https://github.com/edwardzhou130/Panoptic-PolarNet/issues/14",
        shifted_ids,
        "label-out-of-range",
    ),
    Case(
        "labels resized with interpolation",
        "https://github.com/divamgupta/image-segmentation-keras/issues/11",
        resized_labels,
        "labels-unclear",
    ),
)
