"""Pixel values of images: 16 bits, floats, bands, alpha, pages, files under another format's suffix."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.meant.build import HEIGHT, WIDTH, blocks, colours, meant_masks, png_bytes, save, save_tiff, stems, write
from data.meant.case import Case, Meant

LABELS = (0, 1, 2)
Images = dict[str, NDArray[Any]]


def masks(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / "masks" / f"{stem}.png", blocks(LABELS, number).astype(np.uint8))


def values(number: int, channels: int, kind: str) -> NDArray[Any]:
    """An image (H, W, channels) of a type."""
    random = np.random.default_rng(number)
    if kind == "float32":
        return random.normal(0.3, 0.2, (HEIGHT, WIDTH, channels)).astype(np.float32)
    most = 65536 if kind == "uint16" else 256
    return random.integers(0, most, (HEIGHT, WIDTH, channels)).astype(kind)


def images(channels: int, kind: str) -> Images:
    return {stem: values(number, channels, kind) for number, stem in enumerate(stems())}


def high_bytes() -> Images:
    return {stem: (image >> 8).astype(np.uint8) for stem, image in images(3, "uint16").items()}


def meant(found: Images) -> Meant:
    return Meant(3, meant_masks(LABELS), found)


def deep_png(root: Path) -> None:
    masks(root)
    for stem, image in images(3, "uint16").items():
        write(root / "images" / f"{stem}.png", png_bytes(image))


def deep_tiff(root: Path) -> None:
    masks(root)
    for stem, image in images(3, "uint16").items():
        save_tiff(root / "images" / f"{stem}.tif", image, photometric="rgb")


def float_tiff(root: Path) -> None:
    masks(root)
    for stem, image in images(3, "float32").items():
        save_tiff(root / "images" / f"{stem}.tif", image, photometric="rgb")


def five_bands(root: Path) -> None:
    masks(root)
    for stem, image in images(5, "float32").items():
        bands = np.ascontiguousarray(np.moveaxis(image, 2, 0))
        save_tiff(root / "images" / f"{stem}.tif", bands, photometric="minisblack", planarconfig="separate")


def filtered_as_fourth(root: Path) -> None:
    masks(root)
    for stem, image in images(4, "float32").items():
        save_tiff(root / "images" / f"{stem}.tif", image)


def near_infrared(root: Path) -> None:
    masks(root)
    for stem, image in images(4, "uint8").items():
        save_tiff(root / "images" / f"{stem}.tif", image, photometric="rgb", extrasamples=["unspecified"])


def infrared_as_alpha(root: Path) -> None:
    masks(root)
    for stem, image in images(4, "uint8").items():
        save_tiff(root / "images" / f"{stem}.tif", image, photometric="rgb", extrasamples=["unassalpha"])


def hidden_alpha(root: Path) -> None:
    masks(root)
    for number, (stem, image) in enumerate(images(3, "uint8").items()):
        if number % 2:
            save_tiff(root / "images" / f"{stem}.tif", image, photometric="rgb")
        else:
            opaque = np.dstack([image, np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)])
            save_tiff(root / "images" / f"{stem}.tif", opaque, photometric="rgb", extrasamples=["unassalpha"])


def not_a_number(root: Path) -> None:
    masks(root)
    for number, stem in enumerate(stems()):
        image = values(number, 1, "float32")[:, :, 0]
        image[:2] = np.nan
        save_tiff(root / "images" / f"{stem}.tif", image)


def stacks(root: Path) -> None:
    for number, stem in enumerate(stems()):
        pages = np.stack([blocks(LABELS, number + page) for page in range(5)]).astype(np.uint8)
        image = np.ascontiguousarray(np.moveaxis(values(number, 5, "uint8"), 2, 0))
        save_tiff(root / "images" / f"{stem}.tif", image, photometric="minisblack")
        save_tiff(root / "masks" / f"{stem}.tif", pages, photometric="minisblack")


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(colours(number)).save(file, format="JPEG")
    return file.getvalue()


def jpeg_named_png(root: Path) -> None:
    masks(root)
    for number, stem in enumerate(stems()):
        write(root / "images" / f"{stem}.png", jpeg(number))


def decoded() -> Images:
    return {stem: np.asarray(Image.open(io.BytesIO(jpeg(number)))) for number, stem in enumerate(stems())}


def four_inks(number: int) -> Image.Image:
    return Image.fromarray(colours(number)).convert("CMYK")


def some_cmyk(root: Path) -> None:
    masks(root)
    for number, stem in enumerate(stems()):
        image = four_inks(number) if number % 2 == 0 else Image.fromarray(colours(number))
        (root / "images").mkdir(exist_ok=True)
        image.save(root / "images" / f"{stem}.tif")


def without_inks() -> Images:
    inks = {f"a{number}": np.asarray(four_inks(number).convert("RGB")) for number in range(0, 6, 2)}
    return {f"a{number}": colours(number) for number in range(6)} | inks


CASES = (
    Case(
        "PNG images in colours of 16 bits",
        "https://github.com/python-pillow/Pillow/issues/880",
        deep_png,  # Pillow reads the higher byte of each, which is said
        Meant(3, meant_masks(LABELS), high_bytes(), says=("16 bits a colour, of which 8 are read",)),
    ),
    Case(
        "TIFF images in colours of 16 bits",
        "https://github.com/mseitzer/pytorch-fid/issues/62",
        deep_tiff,
        meant(images(3, "uint16")),
    ),
    Case(
        "TIFF images of three float bands",
        "https://github.com/airctic/icevision/issues/1135",
        float_tiff,
        meant(images(3, "float32")),
    ),
    Case(
        "TIFF images of five float bands",
        "https://github.com/wkentaro/labelme/pull/1812",
        five_bands,
        meant(images(5, "float32")),
    ),
    Case(
        "four float channels, as tifffile writes (H, W, 4)",
        "https://github.com/MIC-DKFZ/nnUNet/issues/1367",
        filtered_as_fourth,
        meant(images(4, "float32")),
    ),
    Case(
        "near infrared as the fourth band",
        "https://github.com/SCoulY/Sentinel-2-Water-Segmentation/issues/2",
        near_infrared,
        meant(images(4, "uint8")),
    ),
    Case(
        "near infrared that the file calls alpha",
        "https://github.com/microsoft/PlanetaryComputer/issues/82",
        infrared_as_alpha,
        "channels-unclear",
    ),
    Case(
        "some images with a hidden alpha channel",
        "https://github.com/weecology/DeepForest-pytorch/issues/59",
        hidden_alpha,
        meant(images(3, "uint8")),
    ),
    Case(
        "images with NaN",
        "https://github.com/opengeos/segment-geospatial/issues/202",
        not_a_number,
        "values-not-finite",
    ),
    Case(
        "stacks of slices, and stacks of their masks",
        "https://github.com/axondeepseg/axondeepseg/issues/982",
        stacks,
        "mask-shape-invalid",
    ),
    Case(
        "JPEG images named .png",
        "https://github.com/kitsunebishi/Wallpapers/issues/8",
        jpeg_named_png,
        meant(decoded()),
    ),
    Case(
        "some images in CMYK",
        "https://github.com/python-pillow/Pillow/issues/2564",
        some_cmyk,
        meant(without_inks()),
    ),
)
