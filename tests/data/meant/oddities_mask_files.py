"""How masks are stored: bits, channels, palettes, colours, pages, floats, compression."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from data.meant.build import (
    HEIGHT,
    WIDTH,
    blocks,
    colours,
    meant_masks,
    painted,
    pairs,
    photos,
    save,
    save_tiff,
    stems,
    write,
)
from data.meant.case import Case, Meant

BLACK, RED, GREEN = (0, 0, 0), (176, 112, 32), (48, 112, 32)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * (3 * 252) + [224, 224, 192]
"""The palette of PASCAL VOC for the labels 0, 1, 2 and 255."""


def images_of(root: Path) -> None:
    photos(root, [f"images/{stem}.png" for stem in stems()])


# --- one channel ------------------------------------------------------------------------------------------------------


def palette(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        mask = Image.fromarray(blocks((0, 1, 2, 255), number).astype(np.uint8), mode="P")
        mask.putpalette(VOC)
        (root / "masks").mkdir(exist_ok=True)
        mask.save(root / "masks" / f"{stem}.png")


def one_bit(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        save(root / "masks" / f"{stem}.png", blocks((0, 1), number).astype(bool))


def white_is_zero(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        mask = blocks((0, 255), number).astype(np.uint8)
        save_tiff(root / "masks" / f"{stem}.tif", mask, photometric="miniswhite")


def white_is_zero_labels(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        mask = blocks((0, 1, 2), number).astype(np.uint8)
        save_tiff(root / "masks" / f"{stem}.tif", mask, photometric="miniswhite")


def whole_floats(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        save_tiff(root / "labels" / f"{stem}.tif", blocks((0, 1, 2), number).astype(np.float32))


def whole_doubles(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        save(root / "labels" / f"{stem}.npy", blocks((0, 1, 2), number).astype(np.float64))


def fractions(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        save(root / "masks" / f"{stem}.npy", (blocks((0, 3, 8), number) / 4).astype(np.float32))


def deep_labels(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        save_tiff(root / "masks" / f"{stem}.tif", blocks((0, 1, 2), number).astype(np.uint32))


def discs() -> dict[str, np.ndarray]:
    rows, columns = np.mgrid[:64, :64]
    far = {stem: np.hypot(rows - 30 - number, columns - 28) - 18 for number, stem in enumerate(stems())}
    return {stem: np.clip(128 - 32 * distance, 0, 255).astype(np.uint8) for stem, distance in far.items()}


def image_j(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        save_tiff(root / "masks" / f"{stem}.tif", blocks((0, 255), number).astype(np.uint16), imagej=True)


def soft_edges(root: Path) -> None:
    for number, (stem, mask) in enumerate(discs().items()):
        save(root / "images" / f"{stem}.png", colours(number, (64, 64)))
        save(root / "masks" / f"{stem}.png", mask)


def jpeg_binary(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        save(root / "masks" / f"{stem}.jpg", blocks((0, 255), number, side=8).astype(np.uint8), quality=90)


def jpeg_labels(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        save(root / "masks" / f"{stem}.jpg", blocks((0, 1, 2, 3), number).astype(np.uint8))


def jpeg_named_png(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        file = io.BytesIO()
        Image.fromarray(blocks((0, 1, 2, 3), number).astype(np.uint8)).save(file, format="JPEG")
        write(root / "masks" / f"{stem}.png", file.getvalue())


# --- several channels -------------------------------------------------------------------------------------------------


def equal_channels(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        mask = blocks((0, 1, 2), number).astype(np.uint8)
        save(root / "masks" / f"{stem}.png", mask[:, :, None].repeat(3, 2))


def some_rgba(root: Path) -> None:
    pairs(root, (0, 255))
    for number in (0, 2, 5):
        mask = blocks((0, 255), number).astype(np.uint8)[:, :, None].repeat(4, 2)
        mask[:, :, 3] = 255
        save(root / "masks" / f"a{number}.png", mask)


def red_channel(root: Path) -> dict[str, object]:
    for number, stem in enumerate(stems()):
        mask = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        mask[:, :, 0] = blocks((0, 4, 7, 10), number)
        save(root / "CameraRGB" / f"{stem}.png", colours(number))
        save(root / "CameraSeg" / f"{stem}.png", mask)
    return {"splits": {"train": {"images": "CameraRGB", "masks": "CameraSeg"}}}


def black_with_alpha(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        mask = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
        mask[:, :, 3] = blocks((0, 255), number)
        save(root / "masks" / f"{stem}.png", mask)


def a_channel_a_class(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        mask = blocks(range(7), number)
        save(root / "masks" / f"{stem}.npy", (mask[:, :, None] == np.arange(7)).astype(np.uint8))


def a_page_a_class(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        mask = blocks(range(3), number)
        pages = (mask == np.arange(3)[:, None, None]).astype(np.uint8) * 255
        save_tiff(root / "masks" / f"{stem}.tif", pages, photometric="minisblack")


def mask_in_alpha(root: Path) -> None:
    for number, stem in enumerate(stems()):
        alpha = blocks((0, 255), number).astype(np.uint8)
        save(root / "matting" / f"{stem}.png", np.dstack([colours(number), alpha]))
        save(root / "clip_img" / f"{stem}.jpg", colours(number))


# --- colours ----------------------------------------------------------------------------------------------------------


def in_colour(root: Path, table: dict[int, tuple[int, int, int]], values: range = range(3)) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        save(root / "masks" / f"{stem}.png", painted(blocks(values, number), table))


def labelmap_unsorted(root: Path) -> None:
    in_colour(root, {0: BLACK, 1: GREEN, 2: RED})
    write(
        root / "labelmap.txt",
        "# label:color_rgb:parts:actions\nCat:48,112,32::\nbackground:0,0,0::\nDog:176,112,32::\n",
    )


def labelmap_of_palette(root: Path) -> None:
    images_of(root)
    for number, stem in enumerate(stems()):
        mask = Image.fromarray(blocks((0, 1, 2), number).astype(np.uint8), mode="P")
        mask.putpalette([*BLACK, *GREEN, *RED])
        (root / "masks").mkdir(exist_ok=True)
        mask.save(root / "masks" / f"{stem}.png")
    write(
        root / "labelmap.txt",
        "# label:color_rgb:parts:actions\nCat:48,112,32::\nbackground:0,0,0::\nDog:176,112,32::\n",
    )


def two_backgrounds(root: Path) -> None:
    in_colour(root, {0: (0, 215, 255), 1: (255, 0, 204), 2: (0, 255, 133)})
    write(
        root / "labelmap.txt",
        "# label:color_rgb:parts:actions\nBackground:0,215,255::\nBone:255,0,204::\nCartilage:0,255,133::\n"
        "background:0,0,0::\n",
    )


def void_in_table(root: Path) -> None:
    in_colour(root, {0: (255, 0, 0), 1: (0, 0, 255), 2: (0, 0, 0)})
    write(root / "class_dict.csv", "name,r,g,b\nLips,255,0,0\nNose,0,0,255\nVoid,0,0,0\n")


def table_without_names(root: Path) -> None:
    in_colour(root, {0: (0, 0, 0), 1: (128, 128, 128), 2: (128, 0, 0)})
    write(root / "color_map.txt", "0   0   0\n128 128 128\n128 0   0\n")


def one_colour_twice(root: Path) -> None:
    in_colour(root, {0: (128, 64, 128), 1: (153, 153, 153), 2: (153, 153, 153)})
    write(root / "class_dict.csv", "name,r,g,b\nRoads,128,64,128\nRoadLines,153,153,153\nPoles,153,153,153\n")


def black_first(root: Path) -> None:
    in_colour(root, {0: BLACK, 1: GREEN, 2: RED})
    save(root / "masks" / "a0.png", np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    write(root / "class_dict.csv", "name,r,g,b\nbackground,0,0,0\nCat,48,112,32\nDog,176,112,32\n")


def black_first_masks() -> dict[str, np.ndarray]:
    return meant_masks((0, 1, 2)) | {"a0": np.zeros((HEIGHT, WIDTH), dtype=int)}


def overlay_among_masks(root: Path) -> None:
    in_colour(root, {0: (255, 255, 255), 1: (0, 0, 255), 2: (0, 255, 255)})
    write(root / "class_dict.csv", "name,r,g,b\nsurface,255,255,255\nbuilding,0,0,255\nplants,0,255,255\n")
    save(root / "masks" / "a3.png", colours(9))


CASES = (
    Case(
        "palette indices with 255",
        "https://programmerteach.com/p/voc-segment-the-dataset-pil-palette",
        palette,
        Meant(3, meant_masks((0, 1, 2, 255), {0: 0, 1: 1, 2: 2, 255: -1})),
    ),
    Case(
        "masks of one bit",
        "https://blog.nowcoder.net/n/54f640b88a8041f7acaabebc8e37ca64",
        one_bit,
        Meant(("background", "foreground"), meant_masks((0, 1))),
    ),
    Case(
        "binary TIFF whose white is 0",
        "https://github.com/MouseLand/cellpose/issues/9",
        white_is_zero,
        Meant(("background", "foreground"), meant_masks((0, 255))),
    ),
    Case(
        "labels in a TIFF whose white is 0",
        "https://github.com/MouseLand/cellpose/issues/9",
        white_is_zero_labels,
        Meant(3, meant_masks((0, 1, 2))),
    ),
    Case(
        "whole numbers as 32 bit floats",
        "https://github.com/qgis/QGIS/issues/46846",
        whole_floats,
        Meant(3, meant_masks((0, 1, 2))),
    ),
    Case(
        "whole numbers as 64 bit floats in arrays",
        "https://github.com/mobie/mobie-viewer-fiji/issues/1273",
        whole_doubles,
        Meant(3, meant_masks((0, 1, 2))),
    ),
    Case(
        "fractions between labels",
        "https://github.com/tensorflow/docs/pull/2159",
        fractions,
        "mask-not-whole-numbers",
    ),
    Case(
        "32 bit TIFF of small labels",
        "https://github.com/angelolab/Nimbus-Inference/issues/18",
        deep_labels,
        Meant(3, meant_masks((0, 1, 2))),
    ),
    Case(
        "16 bit binary masks of ImageJ, the higher byte first",
        "https://github.com/GuillaumeMougeot/biom3d/issues/3",
        image_j,
        Meant(("background", "foreground"), meant_masks((0, 255))),
    ),
    Case(
        "binary masks with soft edges",
        "https://github.com/JCruan519/EGE-UNet/issues/13",
        soft_edges,
        Meant(("background", "foreground"), {stem: (mask >= 128).astype(int) for stem, mask in discs().items()}),
    ),
    Case(
        "binary masks as JPEG",
        "https://github.com/mantasu/glasses-detector/issues/23",
        jpeg_binary,
        Meant(
            ("background", "foreground"),
            {stem: blocks((0, 1), number, side=8) for number, stem in enumerate(stems())},
        ),
    ),
    Case(
        "labels as JPEG",
        "https://github.com/mdbloice/Augmentor/issues/104",
        jpeg_labels,
        "mask-compression-lossy",
    ),
    Case(
        "JPEG masks named .png",
        "https://github.com/Scondo/purepng/issues/23",
        jpeg_named_png,
        "mask-compression-lossy",
    ),
    Case(
        "three equal channels",
        "https://github.com/Junjue-Wang/EarthVQA/issues/4",
        equal_channels,
        Meant(3, meant_masks((0, 1, 2))),
    ),
    Case(
        "some binary masks with four channels",
        "https://github.com/FengheTan9/CMUNeXt/issues/11",
        some_rgba,
        Meant(("background", "foreground"), meant_masks((0, 255))),
    ),
    Case(
        "labels in the red channel",
        "https://github.com/carla-simulator/carla/issues/214",
        red_channel,
        "mask-colours-unset",
    ),
    Case(
        "black masks that only alpha tells apart",
        "https://github.com/PeterL1n/BackgroundMattingV2/issues/114",
        black_with_alpha,
        "too-few-classes",
    ),
    Case(
        "a channel for each class",
        "https://github.com/Project-MONAI/MONAI/issues/471",
        a_channel_a_class,
        "mask-shape-invalid",
    ),
    Case(
        "a TIFF page for each class",
        "https://github.com/talmolab/sleap-io/pull/421",
        a_page_a_class,
        "mask-shape-invalid",
    ),
    Case(
        "masks in the images' alpha channel alone",
        "https://github.com/aisegmentcn/matting_human_datasets/issues/1",
        mask_in_alpha,
        "unknown-layout",
    ),
    Case(
        "labelmap.txt with the background in the middle",
        "https://github.com/cvat-ai/cvat/issues/2032",
        labelmap_unsorted,
        Meant(("Cat", "background", "Dog"), meant_masks((0, 1, 2), {0: 1, 1: 0, 2: 2})),
    ),
    Case(
        "labelmap.txt beside masks with a palette",
        "https://github.com/NVIDIA/DIGITS/issues/1476",
        labelmap_of_palette,
        Meant(("Cat", "background", "Dog"), meant_masks((0, 1, 2), {0: 1, 1: 0, 2: 2})),
    ),
    Case(
        "labelmap.txt with Background and background",
        "https://github.com/cvat-ai/cvat/issues/6274",
        two_backgrounds,
        Meant(("Background", "Bone", "Cartilage", "background"), meant_masks((0, 1, 2))),
    ),
    Case(
        "class_dict.csv with Void",
        "https://github.com/GeorgeSeif/Semantic-Segmentation-Suite/issues/187",
        void_in_table,
        Meant(("Lips", "Nose"), meant_masks((0, 1, 2), {0: 0, 1: 1, 2: -1})),
    ),
    Case(
        "a table of colours without names",
        "https://github.com/NVIDIA/DIGITS/pull/993",
        table_without_names,
        Meant(3, meant_masks((0, 1, 2))),
    ),
    Case(
        "masks in colour, the first one black",
        "https://github.com/GeorgeSeif/Semantic-Segmentation-Suite/issues/128",
        black_first,
        Meant(("background", "Cat", "Dog"), black_first_masks()),
    ),
    Case(
        "two classes of one colour",
        "https://github.com/carla-simulator/carla/issues/969",
        one_colour_twice,
        "colour-twice",
    ),
    Case(
        "a photo among masks in colour",
        "https://github.com/torchgeo/torchgeo/issues/1727",
        overlay_among_masks,
        "unknown-colour",
    ),
)
