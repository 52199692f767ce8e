"""The kinds of misreading that were found first: one file that decides for all, turned photos, grey levels, others."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.meant.build import HEIGHT, PAIRS, WIDTH, blocks, colours, grey, mapped, pairs, save, save_tiff, stems
from data.meant.case import IGNORED, Case, Meant

HERE = ""
"""Found by trying, without a thread."""
TWO = ("class_0", "class_1")


def images_by(form: Callable[[int], NDArray[Any]], values: Sequence[int] = (0, 1, 2)) -> Callable[[Path], None]:
    """Writes a set whose images are `form(number)`."""

    def build(root: Path) -> None:
        pairs(root, values)
        for number, stem in enumerate(stems()):
            save(root / "images" / f"{stem}.png", form(number))

    return build


def masks_by(form: Callable[[NDArray[np.int64]], NDArray[Any]], values: Sequence[int]) -> Callable[[Path], None]:
    """Writes a set whose masks are `form(labels)`, from blocks of `values`."""

    def build(root: Path) -> None:
        for stem, labels in pairs(root, values).items():
            save(root / "masks" / f"{stem}.png", form(labels))

    return build


def labels(values: Sequence[int], meant: Sequence[int] | None = None) -> dict[str, NDArray[np.int64]]:
    """The masks of `pairs` with the k-th of `values` meant as the k-th of `meant`."""
    found = {}
    for number, stem in enumerate(stems()):
        stored = blocks(values, number)
        out = np.full_like(stored, IGNORED)
        for value, label in zip(values, meant or range(len(values)), strict=True):
            out[stored == value] = label
        found[stem] = out
    return found


# --- one file decides for all -----------------------------------------------------------------------------------------


def first_grey(number: int) -> NDArray[Any]:
    return grey(0) if number == 0 else colours(number)


def last_grey(number: int) -> NDArray[Any]:
    return grey(5) if number == PAIRS - 1 else colours(number)


def first_8_bit(number: int) -> NDArray[Any]:
    return grey(0) if number == 0 else grey(number).astype(np.uint16) * 200


def first_16_bit(number: int) -> NDArray[Any]:
    return grey(0).astype(np.uint16) * 200 if number == 0 else grey(number)


def first_with_alpha(number: int) -> NDArray[Any]:
    image = colours(number)
    return np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]) if number == 0 else image


def as_colour(image: NDArray[Any]) -> NDArray[Any]:
    return image[:, :, None].repeat(3, 2)


def with_16_bit(build: Callable[[Path], None]) -> Callable[[Path], dict[str, Any]]:
    def write(root: Path) -> dict[str, Any]:
        build(root)
        return {"pixel_type": "uint16"}

    return write


THREE = tuple(f"class_{number}" for number in range(3))
FORMS = (
    Case("first-image-grey", HERE, images_by(first_grey),
         Meant(3, labels((0, 1, 2)), {"a0": as_colour(grey(0)), "a1": colours(1)})),
    Case("last-image-grey", HERE, images_by(last_grey),
         Meant(3, labels((0, 1, 2)), {"a5": as_colour(grey(5)), "a0": colours(0)})),
    Case("first-image-8-bit", HERE, images_by(first_8_bit), "pixel-types-differ"),
    Case("first-image-16-bit", HERE, images_by(first_16_bit), "pixel-types-differ"),
    Case("depth-is-set", HERE, with_16_bit(images_by(first_8_bit)),
         Meant(3, {}, {"a0": grey(0)[:, :, None].astype(np.uint16) * 257,
                       "a1": grey(1)[:, :, None].astype(np.uint16) * 200})),
    Case("first-image-with-alpha", HERE, images_by(first_with_alpha),
         Meant(3, {}, {"a0": colours(0), "a1": colours(1)})),
    Case("all-images-grey", HERE, images_by(grey), Meant(3, {}, {"a0": grey(0)[:, :, None]})),
)  # fmt: skip


# --- orientation ------------------------------------------------------------------------------------------------------


def photo(path: Path, pixels: NDArray[Any], orientation: int | None) -> None:
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    save(path, pixels, exif=exif)


def turned(pixels: NDArray[Any], orientation: int | None) -> NDArray[Any]:
    """The pixels as a viewer shows them: EXIF 2.32, table of the tag Orientation."""
    ways: dict[int | None, Callable[[NDArray[Any]], NDArray[Any]]] = {
        2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1], 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }  # fmt: skip
    return ways[orientation](pixels) if orientation in ways else pixels


def oriented(
    orientations: Sequence[int | None], upright: bool, square: Sequence[int] = (), own: bool = False
) -> tuple[Callable[[Path], None], dict[str, NDArray[Any]]]:
    """A set of photos with these orientations; masks drawn on the upright or on the stored pixels; images as meant."""
    images = {}
    for number, (stem, orientation) in enumerate(zip(stems(), orientations, strict=True)):
        stored = colours(number, (WIDTH, WIDTH) if number in square else (HEIGHT, WIDTH))
        images[stem] = turned(stored, orientation) if upright else stored

    def build(root: Path) -> None:
        for number, (stem, orientation) in enumerate(zip(stems(), orientations, strict=True)):
            stored = colours(number, (WIDTH, WIDTH) if number in square else (HEIGHT, WIDTH))
            photo(root / "images" / f"{stem}.png", stored, orientation)
            size = images[stem].shape[:2]
            mask = blocks((0, 1, 2), number, size).astype(np.uint8)
            if own:  # the mask is stored like its image, and has the same note
                back = {6: 8, 8: 6}.get(orientation or 1, orientation)
                photo(root / "masks" / f"{stem}.png", np.ascontiguousarray(turned(mask, back)), orientation)
            else:
                save(root / "masks" / f"{stem}.png", mask)

    return build, images


def orientation_case(
    name: str, *orientations: int | None, upright: bool, square: Sequence[int] = (), own: bool = False
) -> Case:
    build, images = oriented(orientations, upright, square, own)
    masks = {stem: blocks((0, 1, 2), number, image.shape[:2]) for number, (stem, image) in enumerate(images.items())}
    return Case(name, HERE, build, Meant(3, masks, images))


def both_ways(root: Path) -> None:
    oriented((6, 6, 6, 6, 6, 6), upright=True)[0](root)
    stored, _ = oriented((6, 6, 6, 6, 6, 6), upright=False)
    other = root / "other"
    stored(other)
    for folder in ("images", "masks"):
        (other / folder / "a0.png").replace(root / folder / "a0.png")
        for stem in stems()[1:]:
            (other / folder / f"{stem}.png").unlink()
        (other / folder).rmdir()
    other.rmdir()


TURNED = (
    orientation_case("masks-on-stored-pixels", 6, 3, 8, 2, None, 1, upright=False),
    orientation_case("masks-on-upright-pixels", 6, 3, 8, 2, None, 1, upright=True),
    orientation_case("square-photos-follow-the-others-stored", 6, 6, 3, 8, 5, 7, upright=False, square=(1, 2, 4)),
    orientation_case("square-photos-follow-the-others-upright", 6, 6, 3, 8, 5, 7, upright=True, square=(1, 2, 4)),
    orientation_case("masks-with-notes-of-their-own", 6, 3, 8, 2, 5, 7, upright=True, own=True),
    orientation_case("nothing-tells-so-upright", 3, 3, 2, 4, 3, None, upright=True),
    Case("some-stored-some-upright", HERE, both_ways, "orientations-differ"),
)


# --- grey levels as classes -------------------------------------------------------------------------------------------


def byte(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    return labels.astype(np.uint8)


def levels(name: str, stored: Sequence[int], meant: Sequence[int] | str, classes: int = 0) -> Case:
    if isinstance(meant, str):
        return Case(name, HERE, masks_by(byte, stored), meant)
    return Case(name, HERE, masks_by(byte, stored), Meant(classes, labels(stored, meant)))


LEVELS = (
    levels("0-127-255", (0, 127, 255), (0, 1, 2), 3),
    levels("0-128-255", (0, 128, 255), (0, 1, 2), 3),
    levels("0-85-170-255", (0, 85, 170, 255), (0, 1, 2, 3), 4),
    levels("0-10-20", (0, 10, 20), (0, 1, 2), 3),
    levels("0-10-255", (0, 10, 255), "labels-unclear"),
    levels("1-255", (1, 255), "labels-unclear"),
    levels("1-2-3", (1, 2, 3), (0, 1, 2), 3),
    levels("1-2-3-255", (1, 2, 3, 255), (0, 1, 2, IGNORED), 3),
    levels("0-1-2-255", (0, 1, 2, 255), (0, 1, 2, IGNORED), 3),
    levels("0-255", (0, 255), (0, 1), 2),
    levels("0-1", (0, 1), (0, 1), 2),
    levels("0-1-255", (0, 1, 255), (0, 1, IGNORED), 2),
    levels("0-50-100-150-200-250", (0, 50, 100, 150, 200, 250), (0, 1, 2, 3, 4, 5), 6),
    levels("0-2-5", (0, 2, 5), (0, 1, 2), 3),
)


# --- stored values ----------------------------------------------------------------------------------------------------


def png(path: Path, values: NDArray[Any], bits: int) -> None:
    """A grey PNG of `bits` bits a pixel, written byte by byte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    height, width = values.shape
    rows = b""
    for row in values.tolist():
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + bytes(int(text[start : start + 8], 2) for start in range(0, len(text), 8))
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, 0, 0, 0, 0])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def few_bits(bits: int, values: Sequence[int]) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for stem, mask in pairs(root, values).items():
            png(root / "masks" / f"{stem}.png", mask, bits)

    return build


def inverted_tiff(root: Path) -> None:
    import tifffile

    for stem, mask in pairs(root, (0, 1, 2)).items():
        (root / "masks" / f"{stem}.png").unlink()
        tifffile.imwrite(root / "masks" / f"{stem}.tif", mask.astype(np.uint8), photometric="miniswhite")


STORED = (
    Case("png-of-1-bit", HERE, few_bits(1, (0, 1)), Meant(2, labels((0, 1)))),
    Case("png-of-2-bits", HERE, few_bits(2, (0, 1, 2, 3)), Meant(4, labels((0, 1, 2, 3)))),
    Case("png-of-4-bits", HERE, few_bits(4, (0, 1, 2, 9)), Meant(4, labels((0, 1, 2, 9)))),
    Case("png-of-4-bits-two-classes", HERE, few_bits(4, (0, 1)), Meant(2, labels((0, 1)))),
    Case("tiff-white-is-zero", HERE, inverted_tiff, Meant(3, labels((0, 1, 2)))),
    Case("png-of-16-bits", HERE, masks_by(lambda m: m.astype(np.uint16), (0, 1, 300)), Meant(3, labels((0, 1, 300)))),
    Case("booleans", HERE, masks_by(lambda m: m.astype(bool), (0, 1)), Meant(2, labels((0, 1)))),
)


# --- palettes ---------------------------------------------------------------------------------------------------------

PALETTE = ((0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200))


def with_palette(path: Path, mask: NDArray[Any], palette: Sequence[tuple[int, int, int]]) -> None:
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([value for colour in palette for value in colour])
    image.save(path)


def palettes(change: Callable[[int], Sequence[int]]) -> Callable[[Path], None]:
    """A set in which file n stores class c, of colour PALETTE[c], under the index change(n)[c]."""

    def build(root: Path) -> None:
        for number, (stem, mask) in enumerate(pairs(root, (0, 1, 2)).items()):
            order = change(number)
            palette = [PALETTE[3]] * 4
            for label, index in enumerate(order):
                palette[index] = PALETTE[label]
            with_palette(root / "masks" / f"{stem}.png", np.array(order)[mask], palette)

    return build


def with_colours(build: Callable[[Path], None]) -> Callable[[Path], dict[str, Any]]:
    def write(root: Path) -> dict[str, Any]:
        build(root)
        return {"colours": {name: list(colour) for name, colour in zip(("a", "b", "c"), PALETTE, strict=False)}}

    return write


def longer(number: int) -> Sequence[int]:
    return (0, 1, 2)


def swapped(number: int) -> Sequence[int]:
    return (0, 1, 2) if number % 2 else (0, 2, 1)


PALETTES = (
    Case("palettes-agree", HERE, palettes(longer), Meant(3, labels((0, 1, 2)))),
    Case("palettes-differ", HERE, palettes(swapped), "palettes-differ"),
    Case("palettes-differ-and-colours-are-set", HERE, with_colours(palettes(swapped)),
         Meant(("a", "b", "c"), labels((0, 1, 2)))),
)  # fmt: skip


# --- names files ------------------------------------------------------------------------------------------------------


def named(file: str, text: str, values: Sequence[int]) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        pairs(root, values)
        (root / file).write_text(text)

    return build


CAT_DOG = ("background", "cat", "dog")
NAMES = (
    Case("dataset-json-ignore-3", "https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/ignore_label.md",
         named("dataset.json", '{"labels": {"background": 0, "cat": 1, "dog": 2, "ignore": 3}}', (0, 1, 2, 3)),
         Meant(CAT_DOG, labels((0, 1, 2, 3), (0, 1, 2, IGNORED)))),
    Case("dataset-json-ignore-first", HERE,
         named("dataset.json", json.dumps({"labels": {"void": 0, "background": 1, "cat": 2, "dog": 3}}), (0, 1, 2, 3)),
         Meant(CAT_DOG, labels((0, 1, 2, 3), (IGNORED, 0, 1, 2)))),
    Case("id2label-unlabeled-in-the-middle", HERE,
         named("id2label.json", '{"0": "background", "1": "cat", "2": "unlabeled", "3": "dog"}', (0, 1, 2, 3)),
         Meant(CAT_DOG, labels((0, 1, 2, 3), (0, 1, IGNORED, 2)))),
    Case("roboflow-csv-with-unlabeled", HERE,
         named("_classes.csv", "Pixel Value, Class\n0, unlabeled\n1, background\n2, cat\n3, dog\n", (0, 1, 2, 3)),
         Meant(CAT_DOG, labels((0, 1, 2, 3), (IGNORED, 0, 1, 2)))),
    Case("classes-txt-with-ignore", HERE, named("classes.txt", "ignore\nbackground\ncat\ndog\n", (0, 1, 2, 3)),
         Meant(CAT_DOG, labels((0, 1, 2, 3), (IGNORED, 0, 1, 2)))),
    Case("labelme-labels-txt", "https://github.com/wkentaro/labelme/blob/main/examples/semantic_segmentation/README.md",
         named("labels.txt", "__ignore__\n_background_\ncat\ndog\n", (0, 1, 2)),
         Meant(CAT_DOG, labels((0, 1, 2)))),
    Case("names-for-labels-that-do-not-occur", HERE,
         named("classes.txt", "background\ncat\ndog\ncow\n", (0, 1, 2)),
         Meant(("background", "cat", "dog", "cow"), labels((0, 1, 2)))),
    Case("names-fewer-than-labels", HERE, named("classes.txt", "background\ncat\n", (0, 1, 2)), "names-differ"),
    Case("names-twice", HERE, named("classes.txt", "background\ncat\ncat\n", (0, 1, 2)), "class-name-twice"),
    Case("classes-set-twice", HERE, lambda root: (pairs(root, (0, 1, 2)), {"classes": ["a", "b", "b"]})[1],
         "setting-invalid"),
)  # fmt: skip


# --- folders ----------------------------------------------------------------------------------------------------------


def class_folders(overlap: bool) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for stem, mask in pairs(root, (0, 1, 2)).items():
            (root / "masks" / f"{stem}.png").unlink()
            dog = (mask == 2) | ((mask == 1) & (np.arange(WIDTH) < 8)) if overlap else mask == 2
            save(root / "masks_cat" / f"{stem}.png", (mask == 1).astype(np.uint8) * 255)
            save(root / "masks_dog" / f"{stem}.png", dog.astype(np.uint8) * 255)
        (root / "masks").rmdir()

    return build


def instances(root: Path) -> None:
    for stem, mask in pairs(root, (0, 1, 2)).items():
        (root / "masks" / f"{stem}.png").unlink()
        for number in (1, 2):
            save(root / "masks" / f"{stem}_mask_{number}.png", (mask == number).astype(np.uint8) * 255)


def parts(root: Path) -> None:
    for stem, mask in pairs(root, (0, 1, 2)).items():
        (root / "masks" / f"{stem}.png").unlink()
        for number, name in ((1, "hair"), (2, "skin")):
            save(root / "masks" / f"{stem}_{name}.png", (mask == number).astype(np.uint8) * 255)


def two_annotators(root: Path) -> None:
    for stem, mask in pairs(root, (0, 1, 2)).items():
        (root / "masks" / f"{stem}.png").replace(root / "masks" / f"{stem}.png.old")
        (root / "masks" / f"{stem}.png.old").unlink()
        save(root / "labels_1" / f"{stem}.png", byte(mask))
        save(root / "labels_2" / f"{stem}.png", byte(mask[::-1]))
    (root / "masks").rmdir()


FOLDERS = (
    Case("a-folder-a-class", HERE, class_folders(overlap=False), Meant(CAT_DOG, labels((0, 1, 2)))),
    Case("masks-of-instances", HERE, instances, Meant(2, labels((0, 1, 2), (0, 1, 1)))),
    Case("masks-of-parts", "https://github.com/switchablenorms/CelebAMask-HQ", parts,
         Meant(("background", "hair", "skin"), labels((0, 1, 2)))),
    Case("two-folders-of-labels", HERE, two_annotators, "folders-tie"),
)  # fmt: skip


# --- own data in the folders of a known set ---------------------------------------------------------------------------


def in_voc(root: Path) -> None:
    pairs(root, (0, 1, 2), images="JPEGImages", masks="SegmentationClass")
    folder = root / "JPEGImages"
    for number, stem in enumerate(stems()):
        for place in (folder, root / "SegmentationClass"):
            (place / f"{stem}.png").rename(place / f"2007_00000{number}.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = [f"2007_00000{number}" for number in range(PAIRS)]
    (lists / "train.txt").write_text("\n".join(names[:4]))
    (lists / "val.txt").write_text("\n".join(names[4:]))
    (root / "classes.txt").write_text("background\ncat\ndog\n")


def in_cityscapes(root: Path) -> None:
    for split, chosen in (("train", stems()[:4]), ("val", stems()[4:])):
        for stem in chosen:
            number = int(stem[1:])
            save(root / "leftImg8bit" / split / "x" / f"{stem}_leftImg8bit.png", colours(number))
            mask = blocks((0, 1, 2), number)
            save(root / "gtFine" / split / "x" / f"{stem}_gtFine_labelIds.png", byte(mask))


KNOWN = (
    Case("own-classes-in-voc", HERE, in_voc,
         Meant(CAT_DOG, {f"2007_00000{n}": blocks((0, 1, 2), n) for n in range(PAIRS)})),
    Case("own-labels-in-cityscapes", HERE, in_cityscapes,
         Meant(3, {f"x/a{n}_leftImg8bit": blocks((0, 1, 2), n) for n in range(PAIRS)})),
)  # fmt: skip


# --- nothing to learn -------------------------------------------------------------------------------------------------

NOTHING = (
    Case("all-ignored", HERE, masks_by(byte, (255,)), "too-few-classes"),
    Case("one-class-alone", HERE, masks_by(byte, (1,)), "too-few-classes"),
    Case("all-zero", HERE, masks_by(byte, (0,)), "too-few-classes"),
)


# --- files of other systems -------------------------------------------------------------------------------------------


def junk(root: Path) -> None:
    pairs(root, (0, 1, 2))
    for name in ("._a0.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (root / "images" / name).write_bytes(b"\0\5\x16\7")
    (root / "__MACOSX" / "images").mkdir(parents=True)
    (root / "__MACOSX" / "images" / "._a0.png").write_bytes(b"\0\5\x16\7")
    (root / "images" / "b0.png").mkdir()


def composed(root: Path) -> None:
    for number in range(PAIRS):
        save(root / "images" / f"caf\u00e9{number}.png", colours(number))
        save(root / "masks" / f"cafe\u0301{number}.png", byte(blocks((0, 1, 2), number)))


def listed(name: str, encoding: str, separator: str, index: bool = False, header: str = "") -> Callable[[Path], None]:
    def build(root: Path) -> None:
        pairs(root, (0, 1, 2), images="photo", masks="etiquette")
        lines = [f"{f'{number}{separator}' if index else ''}photo\\{stem}.png{separator}etiquette\\{stem}.png"
                 for number, stem in enumerate(stems())]  # fmt: skip
        (root / name).write_bytes(("\r\n".join([*([header] if header else []), *lines]) + "\r\n").encode(encoding))

    return build


FILES = (
    Case("junk-of-other-systems", HERE, junk, Meant(3, labels((0, 1, 2)))),
    Case("names-composed-and-decomposed", HERE, composed,
         Meant(3, {f"caf\u00e9{number}": blocks((0, 1, 2), number) for number in range(PAIRS)})),
    Case("list-with-backslashes", HERE, listed("train.txt", "utf-8", " "), Meant(3, {})),
    Case("list-in-utf-16", HERE, listed("train.txt", "utf-16", "\t"), Meant(3, {})),
    Case("csv-in-cp1252", HERE, listed("train.csv", "cp1252", ";", header="image;\u00e9tiquette"), Meant(3, {})),
    Case("csv-with-an-index", HERE, listed("train.csv", "utf-8", ",", index=True, header=",image,mask"), Meant(3, {})),
)  # fmt: skip


# --- lists under other names, names of one class, labels by other means -----------------------------------------------


def listed_as(**files: str) -> Callable[[Path], None]:
    """Writes labels 0..2 and text files; `train_list` stands for train_list.txt."""

    def build(root: Path) -> None:
        pairs(root, (0, 1, 2))
        for name, content in files.items():
            (root / f"{name}.txt").write_text("".join(f"{one}\n" for one in content.split()))

    return build


def palettes_with_a_border(root: Path) -> None:
    for stem, mask in pairs(root, (0, 1, 2, 255)).items():
        image = Image.fromarray(byte(mask), mode="P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[0] * 756, 224, 224, 192])
        image.save(root / "masks" / f"{stem}.png")
    (root / "labelmap.txt").write_text("background:0,0,0::\ncat:0,128,0::\ndog:128,0,0::\n")


def two_binary_annotators(root: Path) -> None:
    for stem, mask in pairs(root, (0, 255), masks="masks_1").items():
        save(root / "masks_2" / f"{stem}.png", byte(mask[::-1]))


def a_second_mask(root: Path) -> None:
    pairs(root, (0, 255))
    for stem in stems():
        (root / "masks" / f"{stem}.png").rename(root / "masks" / f"{stem}_mask.png")
    save(root / "masks" / "a3_mask_1.png", byte(blocks((0, 255), 9)))


def no_data_in_floats(root: Path) -> None:
    for stem, mask in pairs(root, (0, 1, 2)).items():
        (root / "masks" / f"{stem}.png").unlink()
        stored = np.where(mask == 2, np.nan, mask).astype(np.float32)
        save_tiff(root / "masks" / f"{stem}.tif", stored, extratags=[(42113, "s", 0, "nan", True)])


def ade_and_0_is_set(root: Path) -> dict[str, object]:
    for number in range(PAIRS):
        split = "training" if number < 4 else "validation"
        save(root / "images" / split / f"ADE_{split[:5]}_0000{number}.jpg", colours(number))
        save(root / "annotations" / split / f"ADE_{split[:5]}_0000{number}.png", byte(blocks((0, 1, 2, 150), number)))
    return {"ignore_label": 0}


def halves(root: Path) -> None:
    for number, stem in enumerate(stems()):
        save(root / f"images_{number % 2}" / f"{stem}.png", colours(number))
        save(root / f"masks_{number % 2}" / f"{stem}.png", byte(blocks((0, 1, 2), number)))


OTHERS = (
    Case("lists-with-more-words", HERE, listed_as(Train_list="a0 a2 a3", Val_list="a1 a4"),
         Meant(3, {}, val=("a1", "a4"))),
    Case("a-list-of-test-alone", HERE, listed_as(test="a0 a1 a2 a3"), Meant(3, {"a5": blocks((0, 1, 2), 5)})),
    Case("one-name-of-binary-masks", HERE, named("classes.txt", "crack\n", (0, 255)),
         Meant(("background", "crack"), labels((0, 255)))),
    Case("objects-of-a-detector-named-beside-masks", HERE, named("data.yaml", "names: [cat]\n", (0, 1, 2)),
         Meant(3, labels((0, 1, 2)))),
    Case("palettes-with-a-border-and-a-table", HERE, palettes_with_a_border,
         Meant(("background", "cat", "dog"), labels((0, 1, 2, 255), (0, 2, 1, IGNORED)))),
    Case("binary-masks-of-two-annotators", HERE, two_binary_annotators, "folders-tie"),
    Case("a-second-mask-of-one-image", HERE, a_second_mask, "mask-in-parts"),
    Case("nan-without-data", HERE, no_data_in_floats, Meant(2, labels((0, 1, 2), (0, 1, IGNORED)))),
    Case("known-set-whose-0-is-set-as-ignored", HERE, ade_and_0_is_set,
         Meant(150, {"ADE_valid_00004": mapped(blocks((0, 1, 2, 150), 4), {0: IGNORED, 1: 0, 2: 1, 150: 149})})),
    Case("images-in-two-folders-of-one-rank", HERE, halves, "folders-tie"),
)  # fmt: skip

CASES = (*FORMS, *TURNED, *LEVELS, *STORED, *PALETTES, *NAMES, *FOLDERS, *KNOWN, *NOTHING, *FILES, *OTHERS)
