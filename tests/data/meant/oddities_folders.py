"""Which folders and lists tell the images, the masks and the splits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data.meant.build import blocks, colours, grey, meant_masks, painted, pairs, photos, save, save_tiff, stems, write
from data.meant.case import Case, Meant

LABELS = (0, 1, 2)
TABLE = {0: (0, 0, 0), 1: (200, 0, 0), 2: (0, 200, 0)}


def masks_of(root: Path, names: Sequence[str], values: Sequence[int] = LABELS, shift: int = 0) -> None:
    """Write the n-th mask of `values` under the n-th name; `shift` makes it another one."""
    for number, name in enumerate(names):
        save(root / name, blocks(values, number + shift).astype(np.uint8))


# --- folders ----------------------------------------------------------------------------------------------------------


def vessels(root: Path) -> None:
    numbers = range(21, 27)
    for number, one in enumerate(numbers):
        save_tiff(root / "training" / "images" / f"{one}_training.tif", colours(number))
        save(root / "training" / "1st_manual" / f"{one}_manual1.gif", blocks((0, 255), number).astype(np.uint8))
        view = np.full((32, 40), 255, dtype=np.uint8)
        view[:2], view[-2:] = 0, 0
        save(root / "training" / "mask" / f"{one}_training_mask.gif", view)
    for one in ("01", "02"):
        save_tiff(root / "test" / "images" / f"{one}_test.tif", colours(50))
        save(root / "test" / "mask" / f"{one}_test_mask.gif", np.full((32, 40), 255, dtype=np.uint8))


def two_annotators(root: Path) -> None:
    for number in range(6):
        one = f"{number + 1:02d}"
        save_tiff(root / "images" / f"{one}_test.tif", colours(number))
        save(root / "1st_manual" / f"{one}_manual1.gif", blocks((0, 255), number).astype(np.uint8))
        save(root / "2nd_manual" / f"{one}_manual2.gif", blocks((0, 255), number + 20).astype(np.uint8))


def town_and_country(root: Path) -> None:
    for number, stem in enumerate(stems()):
        split = "Train" if number < 4 else "Val"
        place = root / split / ("Urban" if number % 2 else "Rural")
        mask = blocks(LABELS, number)
        save(place / "images_png" / f"{stem}.png", colours(number))
        save(place / "masks_png" / f"{stem}.png", mask.astype(np.uint8))
        save(place / "masks_png_convert_rgb" / f"{stem}.png", painted(mask, TABLE))


def town_and_country_masks() -> dict[str, np.ndarray]:
    places = [f"{'Urban' if number % 2 else 'Rural'}/{stem}" for number, stem in enumerate(stems())]
    return meant_masks(LABELS, names=places)


def with_visualisations(root: Path) -> None:
    photos(root, [f"JPEGImages/{stem}.jpg" for stem in stems()])
    for number, stem in enumerate(stems()):
        mask = blocks(LABELS, number).astype(np.uint8)
        image = Image.fromarray(mask, mode="P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        (root / "SegmentationClass").mkdir(exist_ok=True)
        image.save(root / "SegmentationClass" / f"{stem}.png")
        save(root / "SegmentationClassVisualization" / f"{stem}.jpg", colours(number))
        save(root / "SegmentationClassNpy" / f"{stem}.npy", mask.astype(np.int32))
    write(root / "class_names.txt", "_background_\ncat\ndog\n")


def class_and_object(root: Path) -> None:
    photos(root, [f"JPEGImages/{stem}.jpg" for stem in stems()])
    for number, stem in enumerate(stems()):
        mask = blocks(LABELS, number)
        save(root / "SegmentationClass" / f"{stem}.png", painted(mask, TABLE))
        save(root / "SegmentationObject" / f"{stem}.png", painted(blocks(range(6), number), {5: (9, 9, 9), **TABLE}))
    write(root / "ImageSets" / "Segmentation" / "default.txt", "".join(f"{stem}\n" for stem in stems()))
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:200,0,0::\ndog:0,200,0::\n")


def collage(root: Path) -> None:
    pairs(root / "train", LABELS)
    photos(root / "train" / "collage", [f"{stem}.png" for stem in stems()])
    rows = [f"{number},{stem}.png,{stem}.png" for number, stem in enumerate(stems())]
    write(root / "train.csv", "\n".join(["id,image_filename,mask_filename", *rows]) + "\n")
    photos(root / "test" / "images", ["b0.png", "b1.png"])


def yolo_with_masks(root: Path) -> None:
    for number, stem in enumerate(stems()):
        split = "train" if number < 4 else "val"
        save(root / "images" / split / f"{stem}.jpg", colours(number))
        save(root / "masks" / split / f"{stem}.png", blocks(LABELS, number).astype(np.uint8))
    write(
        root / "data.yaml",
        "train: /root/meter_seg/images/train\nval: /root/meter_seg/images/val\n"
        "names:\n  0: background\n  1: pointer\n  2: scale\n",
    )


def natural_images(root: Path) -> None:
    names = [f"URDE_{number:03d}" for number in range(6)]
    photos(root / "Dataset1234_URDE", [f"imagesTr/{name}_0000.png" for name in names])
    masks_of(root / "Dataset1234_URDE", [f"labelsTr/{name}.png" for name in names], (0, 1))
    photos(root / "Dataset1234_URDE", ["imagesTs/URDE_100_0000.png"])
    content = {"labels": {"background": 0, "Dust": 1}, "channel_names": {"R": 0, "G": 1, "B": 2}, "file_ending": ".png"}
    write(root / "Dataset1234_URDE" / "dataset.json", json.dumps(content))


def suffixes_by_folder(root: Path) -> None:
    for number, stem in enumerate(stems()):
        place, suffix = (root / "dji", ".jpg") if number % 2 else (root / "gopro", ".png")
        save(place / "images" / f"{stem}{suffix}", colours(number))
        save(place / "masks" / f"{stem}.png", blocks(LABELS, number).astype(np.uint8))


def older_version(root: Path) -> None:
    pairs(root, LABELS)
    photos(root, [f"1 old/images/{stem}.png" for stem in stems()])
    masks_of(root, [f"1 old/masks/{stem}.png" for stem in stems()], shift=40)


def two_folders_of_masks(root: Path) -> None:
    photos(root, [f"img/{stem}.png" for stem in stems()])
    masks_of(root, [f"mask/{stem}.png" for stem in stems()])
    masks_of(root, [f"mask_org/{stem}.png" for stem in stems()], shift=40)


def two_folders_of_images(root: Path) -> None:
    photos(root, [f"image_rgb/{stem}.png" for stem in stems()])
    for number, stem in enumerate(stems()):
        save(root / "image_nir" / f"{stem}.png", grey(number))
    masks_of(root, [f"masks/{stem}.png" for stem in stems()])


def csv_with_ids(root: Path) -> None:
    pairs(root, LABELS)
    for name, numbers in (("train", (0, 3, 4, 5)), ("val", (1, 2))):
        rows = [f"{number},a{number}.png,a{number}.png" for number in numbers]
        write(root / f"{name}.csv", "\n".join(["id,image_filename,mask_filename", *rows]) + "\n")


def uncommon_words(root: Path) -> None:
    photos(root, [f"fgr/{stem}.png" for stem in stems()])
    masks_of(root, [f"pha/{stem}.png" for stem in stems()], (0, 255))


# --- the layout of a known data set, with labels of its own ----------------------------------------------------------


def own_classes_as_cityscapes(root: Path) -> None:
    for number, stem in enumerate(stems()):
        split = "train" if number < 4 else "val"
        mask = blocks(LABELS, number)
        save(root / "leftImg8bit" / split / "cam" / f"{stem}_leftImg8bit.png", colours(number))
        save(root / "gtFine" / split / "cam" / f"{stem}_gtFine_labelIds.png", mask.astype(np.uint8))
        save(root / "gtFine" / split / "cam" / f"{stem}_gtFine_color.png", painted(mask, TABLE))
        save(root / "gtFine" / split / "cam" / f"{stem}_gtFine_instanceIds.png", (mask * 1000).astype(np.uint16))
    write(root / "label_colors.txt", "0 0 0 background\n200 0 0 cat\n0 200 0 dog\n")


def pets_from_0(root: Path) -> None:
    pairs(root, LABELS, masks="annotations/trimaps")


# --- lists ------------------------------------------------------------------------------------------------------------


def splits_folder(root: Path) -> None:
    pairs(root, LABELS, images="img_dir", masks="ann_dir")
    write(root / "splits" / "train.txt", "a0\na3\na4\na5\n")
    write(root / "splits" / "val.txt", "a1\na2\n")


def valid_and_codes(root: Path) -> None:
    photos(root, [f"images/{stem}.png" for stem in stems()])
    masks_of(root, [f"labels/{stem}_P.png" for stem in stems()])
    write(root / "codes.txt", "Animal\nSky\nVoid\n")
    write(root / "valid.txt", "a1.png\na2.png\n")


def split_list_with_suffixes(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save_tiff(root / "images" / f"{stem}.tif", grey(number))
        save_tiff(root / "labels" / f"{stem}.tif", blocks(LABELS, number).astype(np.uint8))
    write(root / "split_list" / "train.txt", "a0.tif\na3.tif\na4.tif\na5.tif\n")
    write(root / "split_list" / "validation.txt", "a1.tif\na2.tif\n")


def windows_lines(root: Path) -> None:
    pairs(root, LABELS)
    write(root / "train.txt", "a0 \r\na3\r\na4\t\r\na5\r\n\r\n")
    write(root / "val.txt", "\r\na1\r\na2  \r\n\r\n")


def windows_paths(root: Path) -> None:
    pairs(root, LABELS, images="JPEGImages", masks="labels")
    write(root / "train.txt", "".join(f"JPEGImages\\{stem}.png labels\\{stem}.png\r\n" for stem in ("a0", "a3", "a4")))
    write(root / "val.txt", "".join(f"JPEGImages\\{stem}.png labels\\{stem}.png\r\n" for stem in ("a1", "a2", "a5")))


def in_utf_16(root: Path) -> None:
    pairs(root, LABELS)
    write(root / "train.txt", "a0\r\na3\r\na4\r\na5\r\n".encode("utf-16"))
    write(root / "val.txt", "a1\r\na2\r\n".encode("utf-16"))


def spaces_in_list(root: Path) -> None:
    names = [f"street {number} north" for number in range(6)]
    photos(root, [f"images/{name}.jpg" for name in names])
    masks_of(root, [f"masks/{name}.png" for name in names])
    lines = [f"images/{name}.jpg masks/{name}.png\n" for name in names]
    write(root / "train.txt", "".join(lines[:4]))
    write(root / "val.txt", "".join(lines[4:]))


def zeros_in_list(root: Path) -> None:
    names = [f"{number:04d}" for number in range(1, 7)]
    photos(root, [f"images/{name}.png" for name in names])
    masks_of(root, [f"masks/{name}.png" for name in names])
    write(root / "train.txt", "".join(f"0{name}\n" for name in names[:4]))
    write(root / "val.txt", "".join(f"0{name}\n" for name in names[4:]))


def stems_with_spaces(root: Path) -> None:
    names = [f"benign ({number})" for number in range(1, 7)]
    photos(root, [f"images/{name}.png" for name in names])
    masks_of(root, [f"masks/{name}.png" for name in names])
    write(root / "train.txt", "".join(f"{name}\n" for name in names[:4]))
    write(root / "val.txt", "".join(f"{name}\n" for name in names[4:]))


def in_both_lists(root: Path) -> None:
    pairs(root, LABELS)
    write(root / "train.txt", "a0\na3\na4\na5\n")
    write(root / "val.txt", "a1\na2\na3\n")


def run_lengths(root: Path) -> None:
    photos(root, [f"train_images/{stem}.jpg" for stem in stems()])
    rows = [f"{stem}.jpg,{number % 4 + 1},29 12 93 24 157 24" for number, stem in enumerate(stems())]
    write(root / "train.csv", "\n".join(["ImageId,ClassId,EncodedPixels", *rows]) + "\n")


def run_lengths_beside_masks(root: Path) -> None:
    run_lengths(root)
    masks_of(root, [f"train_masks/{stem}.png" for stem in stems()])


CASES = (
    Case(
        "manual labels beside masks of the field of view",
        "https://github.com/rezazad68/BCDU-Net/issues/7",
        vessels,
        Meant(("background", "foreground"), meant_masks((0, 255), names=[f"{n}_training" for n in range(21, 27)])),
    ),
    Case(
        "masks of two annotators",
        "https://github.com/syshin1014/VGN/issues/13",
        two_annotators,
        Meant(
            ("background", "foreground"),
            meant_masks((0, 255), names=[f"{number:02d}_test" for number in range(1, 7)]),
            says=("1st_manual",),
            or_stops="folders-tie",
        ),
    ),
    Case(
        "mask/ and mask_org/ for the same images",
        "https://github.com/cvlab-stonybrook/SAMPath/issues/25",
        two_folders_of_masks,
        Meant(3, meant_masks(LABELS), says=("mask_org",), or_stops="folders-tie"),
    ),
    Case(
        "image_rgb/ and image_nir/ for the same masks",
        "https://github.com/Weed-AI/Weed-AI/issues/77",
        two_folders_of_images,
        Meant(
            3,
            meant_masks(LABELS),
            {stem: colours(number) for number, stem in enumerate(stems())},
            says=("image_nir",),
            or_stops="folders-tie",
        ),
    ),
    Case(
        "an older version of the whole set in a folder of its own",
        "https://github.com/beric7/corrosion_cs_classification/issues/4",
        older_version,
        Meant(3, meant_masks(LABELS), says=("1 old",), or_stops="folders-tie", only=True),
    ),
    Case(
        "masks beside their pictures in colour",
        "https://github.com/XiaoBuL/CM-UNet/issues/10",
        town_and_country,
        Meant(3, town_and_country_masks(), val=("Rural/a4", "Urban/a5")),
    ),
    Case(
        "SegmentationClass beside visualisations and arrays",
        "https://github.com/wkentaro/labelme/pull/88",
        with_visualisations,
        Meant(("background", "cat", "dog"), meant_masks(LABELS)),
    ),
    Case(
        "SegmentationClass beside SegmentationObject, one list for all",
        "https://github.com/cvat-ai/cvat/issues/1736",
        class_and_object,
        Meant(("background", "cat", "dog"), meant_masks(LABELS)),
    ),
    Case(
        "a folder of collages, and a CSV of file names with ids",
        "https://openreview.net/attachment?id=mXQslpfSU5&name=supplementary_material",
        collage,
        Meant(3, meant_masks(LABELS), only=True),
    ),
    Case(
        "CSV files of ids, images and masks, without folders",
        "https://openreview.net/attachment?id=mXQslpfSU5&name=supplementary_material",
        csv_with_ids,
        Meant(3, meant_masks(LABELS), val=("a1", "a2")),
    ),
    Case(
        "one folder of JPEG images, one of PNG",
        "https://github.com/colmap/colmap/pull/3611",
        suffixes_by_folder,
        Meant(3, meant_masks(LABELS, names=[f"{'dji' if n % 2 else 'gopro'}/a{n}" for n in range(6)]), only=True),
    ),
    Case(
        "images/train, masks/train and a data.yaml with names",
        "https://github.com/ultralytics/ultralytics/issues/10218",
        yolo_with_masks,
        Meant(("background", "pointer", "scale"), meant_masks(LABELS), val=("a4", "a5")),
    ),
    Case(
        "nnU-Net of RGB images",
        "https://github.com/MIC-DKFZ/nnUNet/issues/2443",
        natural_images,
        Meant(("background", "Dust"), meant_masks((0, 1), names=[f"URDE_{number:03d}_0000" for number in range(6)])),
    ),
    Case(
        "folders without a word that is known",
        "https://github.com/PeterL1n/BackgroundMattingV2/issues/114",
        uncommon_words,
        "unknown-layout",
    ),
    Case(
        "classes of one's own in the layout of Cityscapes",
        "https://github.com/cvat-ai/cvat/issues/6446",
        own_classes_as_cityscapes,
        Meant(
            3,  # the table names colours, and nothing but its order would tell the grey labels
            meant_masks(LABELS, names=[f"cam/{stem}_leftImg8bit" for stem in stems()]),
            val=("cam/a4_leftImg8bit", "cam/a5_leftImg8bit"),
        ),
    ),
    Case(
        "labels from 0 in the layout of Oxford-IIIT Pet",
        "https://github.com/tensorflow/docs/pull/2159",
        pets_from_0,
        Meant(3, meant_masks(LABELS)),
    ),
    Case(
        "lists in splits/",
        "https://github.com/open-mmlab/mmsegmentation/issues/372",
        splits_folder,
        Meant(3, meant_masks(LABELS), val=("a1", "a2")),
    ),
    Case(
        "valid.txt alone, and codes.txt with Void",
        "https://github.com/fastai/course-v3/blob/master/nbs/dl1/lesson3-camvid.ipynb",
        valid_and_codes,
        Meant(("Animal", "Sky"), meant_masks(LABELS, {0: 0, 1: 1, 2: -1}), val=("a1", "a2")),
    ),
    Case(
        "lists in split_list/, with suffixes",
        "https://github.com/funalab/QCANet/issues/10",
        split_list_with_suffixes,
        Meant(3, meant_masks(LABELS), val=("a1", "a2")),
    ),
    Case(
        "lists with Windows line ends, spaces and empty lines",
        "https://github.com/pjreddie/darknet/issues/2391",
        windows_lines,
        Meant(3, meant_masks(LABELS), val=("a1", "a2")),
    ),
    Case(
        "lists with Windows paths",
        "https://github.com/pjreddie/darknet/issues/2391",
        windows_paths,  # names of pairs in lists are their paths
        Meant(
            3,
            meant_masks(LABELS, names=[f"JPEGImages/{stem}" for stem in stems()]),
            val=tuple(f"JPEGImages/{stem}" for stem in ("a1", "a2", "a5")),
        ),
    ),
    Case(
        "lists in UTF-16",
        "https://github.com/eriklindernoren/PyTorch-YOLOv3/issues/374",
        in_utf_16,
        Meant(3, meant_masks(LABELS), val=("a1", "a2")),
    ),
    Case(
        "lists of names with spaces",
        "https://github.com/PaddlePaddle/PaddleClas/pull/111",
        spaces_in_list,
        Meant(
            3,
            meant_masks(LABELS, names=[f"images/street {number} north" for number in range(6)]),
            val=("images/street 4 north", "images/street 5 north"),
        ),
    ),
    Case(
        "lists of stems with spaces and brackets",
        "https://github.com/FengheTan9/CMU-Net/issues/7",
        stems_with_spaces,
        Meant(
            3,
            meant_masks(LABELS, names=[f"benign ({number})" for number in range(1, 7)]),
            val=("benign (5)", "benign (6)"),
        ),
    ),
    Case(
        "an image in both lists",
        "https://github.com/abdoelsayed2016/TNCR_Dataset/issues/3",
        in_both_lists,
        Meant(3, meant_masks(LABELS), says=("also in train",)),
    ),
    Case(
        "lists with a zero more than the files' names",
        "https://github.com/matsuren/omnimvs_pytorch/issues/4",
        zeros_in_list,
        "listed-file-missing",
    ),
    Case(
        "run lengths in train.csv",
        "https://medium.com/analytics-vidhya/generating-masks-from-encoded-pixels-semantic-segmentation-18635e834ad0",
        run_lengths,
        "list-line-invalid",
    ),
    Case(
        "run lengths in train.csv beside masks of them",
        "https://medium.com/analytics-vidhya/generating-masks-from-encoded-pixels-semantic-segmentation-18635e834ad0",
        run_lengths_beside_masks,
        Meant(3, meant_masks(LABELS)),
    ),
)
