"""Data sets that are broken, each in one way: one line says which file and what to do, or it is left out and counted.

Every case begins with a set that is whole: six images of 48x40 (width x height) for training, two for validation.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.errors import raises_code
from PIL import Image

from autoseg.config.base import parse
from autoseg.config.data import DataConfig
from autoseg.data.base import SegmentationDataset
from autoseg.data.dataset import open_dataset, resolve
from autoseg.data.loading.cache import keep_samples
from autoseg.errors import DataError

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8)
LABELS = np.tile(np.arange(48, dtype=np.uint8) % 3, (40, 1))
BAD = "2"
"""The stem of the pair that is broken."""


def save(array: np.ndarray, path: Path, **settings: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **settings)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 6), ("val", 2)):
        for stem in range(count):
            save(PHOTO, tmp_path / f"set/images/{split}/{stem}.png")
            save(LABELS, tmp_path / f"set/masks/{split}/{stem}.png")
    return tmp_path / "set"


def opened(root: Path, **settings: Any) -> SegmentationDataset:
    """As a run does it: resolved, opened, and every sample read."""
    dataset = open_dataset(resolve(parse(DataConfig, {"root": str(root), **settings}), training=True), "train")
    keep_samples(dataset, "memory")
    return dataset


@contextmanager
def one_line(code: str, *named: object) -> Iterator[None]:
    """A DataError with this code, which names all that and is not too long to be read."""
    with raises_code(DataError, code, *named) as reason:
        yield
    assert len(str(reason.value)) < 700


def image(root: Path) -> Path:
    return root / f"images/train/{BAD}.png"


def mask(root: Path) -> Path:
    return root / f"masks/train/{BAD}.png"


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def png_header(path: Path, width: int, height: int) -> None:
    """A PNG of that size, of which nothing but the header is there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))


def animated(path: Path) -> None:
    frames = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def as_npy(path: Path, array: np.ndarray) -> None:
    path.unlink()
    np.save(path.with_suffix(".npy"), array, allow_pickle=True)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def second_of_the_stem(path: Path) -> None:
    save(PHOTO, path.with_suffix(".jpg"))


class Case(NamedTuple):
    break_it: Callable[[Path], object]
    code: str
    named: tuple[str, ...]
    """In the line, `{image}` and `{mask}` standing for the files."""
    settings: Mapping[str, Any] = MappingProxyType({})


BROKEN: dict[str, Case] = {
    "truncated image": Case(lambda root: halve(image(root)), "file-unreadable", ("{image}",)),
    "truncated mask": Case(lambda root: halve(mask(root)), "file-unreadable", ("{mask}",)),
    "image of zero bytes": Case(lambda root: image(root).write_bytes(b""), "file-unreadable", ("{image}",)),
    "mask of zero bytes": Case(lambda root: mask(root).write_bytes(b""), "file-unreadable", ("{mask}",)),
    "text for an image": Case(lambda root: image(root).write_text("not an image"), "file-unreadable", ("{image}",)),
    "noise for a mask": Case(lambda root: mask(root).write_bytes(RNG.bytes(999)), "file-unreadable", ("{mask}",)),
    "mask of another size": Case(
        lambda root: save(LABELS[:20], mask(root)), "mask-size-differs", ("{image} is 48x40", "{mask} is 48x20")
    ),
    "mask in colour without a table": Case(
        lambda root: save(PHOTO // 64 * 64, mask(root)),
        "mask-colours-unset",
        ("{mask}", "data.colours", "{{name_1: ["),
    ),
    "a photo for a mask": Case(lambda root: save(PHOTO, mask(root)), "mask-like-photo", ("{mask}",)),
    "a grey photo for a mask": Case(
        lambda root: save(PHOTO[:, :, 0], mask(root)),
        "mask-like-photo",
        ("{mask}", "different labels", "data.num_classes"),
    ),
    "mask of fractions": Case(
        lambda root: (save(LABELS + np.float32(0.5), mask(root).with_suffix(".tif")), mask(root).unlink()),
        "mask-not-whole-numbers",
        ("masks/train/2.tif", "float32", "uint8"),
    ),
    "JPEG mask": Case(
        lambda root: (save(LABELS, mask(root).with_suffix(".jpg")), mask(root).unlink()),
        "mask-compression-lossy",
        ("masks/train/2.jpg", "JPEG", "PNG"),
    ),
    "CMYK mask": Case(
        lambda root: (Image.new("CMYK", (48, 40)).save(mask(root).with_suffix(".tif")), mask(root).unlink()),
        "mask-mode-unsupported",
        ("masks/train/2.tif", "mode CMYK"),
    ),
    "100 classes too many": Case(
        lambda root: save(LABELS + 102, mask(root)),
        "label-out-of-range",
        ("label 102 in masks/train/2.png", "3 classes", "data.label_map"),
        {"num_classes": 3},
    ),
    "negative labels": Case(
        lambda root: as_npy(mask(root), LABELS.astype(np.int64) - 2),
        "label-out-of-range",
        ("label -2 in masks/train/2.npy", "0..65535"),
        {"num_classes": 3},
    ),
    "negative labels, classes to be found": Case(
        lambda root: as_npy(mask(root), LABELS.astype(np.int64) - 2),
        "label-out-of-range",
        ("masks/train/2.npy", "0..65535"),
    ),
    "labels in an array of fractions": Case(
        lambda root: as_npy(mask(root), LABELS + 0.5),
        "mask-not-whole-numbers",
        ("masks/train/2.npy", "float64", "uint8"),
    ),
    "mask array of three axes": Case(
        lambda root: as_npy(mask(root), np.stack([LABELS, LABELS])),
        "mask-shape-invalid",
        ("masks/train/2.npy", "(2, 40, 48)", "(H, W)"),
    ),
    "animated GIF": Case(
        lambda root: (animated(image(root).with_suffix(".gif")), image(root).unlink()),
        "several-frames",
        ("images/train/2.gif", "PNG"),
    ),
    "animated PNG": Case(lambda root: animated(image(root)), "several-frames", ("{image}",)),
    "image of a billion pixels": Case(
        lambda root: png_header(image(root), 40_000, 25_000),
        "image-too-large",
        ("{image}", "178,956,970 pixels"),
    ),
    "mask of a billion pixels": Case(
        lambda root: png_header(mask(root), 40_000, 25_000),
        "image-too-large",
        ("{mask}", "178,956,970 pixels"),
    ),
    "image one pixel wide": Case(
        lambda root: (save(PHOTO[:, :1], image(root)), save(LABELS[:, :1], mask(root))),
        "image-too-small",
        ("{image} is 1x40", "at least 8"),
    ),
    "missing mask": Case(
        lambda root: mask(root).unlink(),
        "mask-missing",
        ("images/train/2.png", "masks/train", "1 of 6 images"),
    ),
    "two images of one stem": Case(
        lambda root: second_of_the_stem(image(root)),
        "same-stem-twice",
        ("images/train/2.jpg", "images/train/2.png"),
    ),
    "two masks of one stem": Case(
        lambda root: save(LABELS, mask(root).with_suffix(".bmp")),
        "same-stem-twice",
        ("masks/train/2.bmp", "masks/train/2.png"),
    ),
    "folder named as a mask": Case(lambda root: as_folder(mask(root)), "mask-missing", ("images/train/2.png",)),
    "link to itself": Case(
        lambda root: as_link_to_itself(image(root)), "file-unreadable", ("{image}", "symbolic link")
    ),
    "link to nothing": Case(
        lambda root: (image(root).unlink(), image(root).symlink_to(root / "nothing")),
        "file-missing",
        ("{image}",),
    ),
    "other number of channels": Case(
        lambda root: as_npy(image(root), np.zeros((40, 48, 5), np.uint8)),
        "channels-differ",
        ("images/train/2.npy has 5 channels", "has 3", "data.channels"),
    ),
    "other type of pixels": Case(
        lambda root: as_npy(image(root), np.zeros((40, 48, 3), np.float64)),
        "pixel-types-differ",
        ("images/train/2.npy has float32 values", "uint8", "1 and 7 of 8 images", "data.pixel_type"),
    ),
    "fractions where integers are set": Case(
        lambda root: as_npy(image(root), np.zeros((40, 48, 3), np.float64)),
        "pixel-type-differs",
        ("images/train/2.npy", "float32", "uint8", "data.pixel_type"),
        {"pixel_type": "uint8"},
    ),
    "array of objects": Case(
        lambda root: as_npy(image(root), np.array([{"a": 1}, None])),
        "file-unreadable",
        ("images/train/2.npy", "numpy.save"),
    ),
    "array of wrong rank": Case(
        lambda root: as_npy(image(root), np.zeros((2, 40, 48, 3), np.uint8)),
        "image-shape-invalid",
        ("images/train/2.npy", "(2, 40, 48, 3)", "(H, W), (H, W, C) or (C, H, W)"),
    ),
    "array whose channels nothing tells": Case(
        lambda root: as_npy(image(root), np.zeros((40, 48, 48), np.uint8)),
        "channels-unclear",
        ("images/train/2.npy", "(40, 48, 48)", "data.channels"),
    ),
    "array of words": Case(
        lambda root: as_npy(image(root), np.full((40, 48, 3), "a")),
        "pixel-type-unsupported",
        ("images/train/2.npy", "<U1", "uint8, uint16 or float32"),
    ),
    "array that is not finite": Case(
        lambda root: as_npy(image(root), np.full((40, 48, 3), np.nan)),
        "values-not-finite",
        ("images/train/2.npy",),
        {"pixel_type": "uint8"},
    ),
    "array that is cut off": Case(
        lambda root: (as_npy(image(root), PHOTO), halve(image(root).with_suffix(".npy"))),
        "file-unreadable",
        ("images/train/2.npy",),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_pair_is_one_line(case: str, root: Path) -> None:
    BROKEN[case].break_it(root)
    named = (part.format(image=image(root), mask=mask(root)) for part in BROKEN[case].named)
    with one_line(BROKEN[case].code, *named):
        opened(root, **BROKEN[case].settings)


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_pair_is_left_out_and_counted(case: str, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    BROKEN[case].break_it(root)
    dataset = opened(root, on_bad_file="skip", **BROKEN[case].settings)
    assert dataset.names == [str(stem) for stem in range(6) if str(stem) != BAD]
    assert [name for name, _ in dataset.left_out] == [BAD]
    assert all(dataset.load(index).mask.shape == (40, 48) for index in range(5))
    assert dataset.num_classes == 3
    (said,) = {record.getMessage() for record in caplog.records}
    assert said.startswith("left out 1 of 6 images of split 'train' (on_bad_file: skip): 2; the first since ")
    assert "\n" not in said


# --- what no single pair is to blame for ------------------------------------------------------------------------------


def no_images(root: Path) -> None:
    for path in (root / "images/train").iterdir():
        path.unlink()


def swap_folders(root: Path) -> None:
    (root / "images").rename(root / "aside")
    (root / "masks").rename(root / "images")
    (root / "aside").rename(root / "masks")


def same_labels(label: int) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for path in (root / "masks/train").iterdir():
            save(np.full_like(LABELS, label), path)

    return write


def grey_steps(root: Path) -> None:
    for path in (root / "masks/train").iterdir():
        save(LABELS * 85, path)


def write_list(text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / "masks").rename(root / "other")
        (root / "train.csv").write_text(text)

    return write


SETS: dict[str, Case] = {
    "no images": Case(no_images, "no-images", ("images/train", ".jpg,")),
    "swapped folders": Case(swap_folders, "mask-like-photo", ("masks/train/",)),
    "one class alone": Case(same_labels(0), "too-few-classes", ("class 'class_0' alone", "(255)", "data.label_map")),
    "every mask ignored": Case(same_labels(255), "too-few-classes", ("ignored pixels alone", "(255)")),
    "labels as steps of grey in one split": Case(
        grey_steps, "labels-unclear", ("0..2, and others 0, 85, 170", "data.label_map")
    ),
    "list with a missing file": Case(
        write_list("images/train/0.png,other/train/0.png\nimages/train/77.png,other/train/0.png\n"),
        "listed-file-missing",
        ("train.csv", "images/train/77.png"),
    ),
    "CSV of three columns": Case(
        write_list("images/train/0.png,other/train/0.png,train\n"),
        "list-line-invalid",
        ("train.csv, line 1",),
    ),
    "list of nothing": Case(write_list("image,mask\n"), "list-empty", ("train.csv",)),
    "list of bytes": Case(
        lambda root: (root / "masks").rename(root / "m") and (root / "train.txt").write_bytes(b"\xff\xfe\0"),
        "file-unreadable",
        ("train.txt",),
    ),
    "table of colours that is none": Case(
        lambda root: (same_colours(root), (root / "class_dict.csv").write_text("name,r,g,b\nroad,1,2\n")),
        "colour-table-invalid",
        ("class_dict.csv, line 2",),
    ),
    "link to the folder that it is in": Case(
        lambda root: (root / "images/train/again").symlink_to(root / "images/train"),
        "folder-link-loop",
        ("images/train/again",),
    ),
}


def same_colours(root: Path) -> None:
    for path in (root / "masks/train").iterdir():
        save(np.stack([LABELS * 64, LABELS * 0, LABELS * 0], axis=2), path)


@pytest.mark.parametrize("case", SETS)
def test_a_bad_set_is_one_line(case: str, root: Path) -> None:
    SETS[case].break_it(root)
    with one_line(SETS[case].code, *SETS[case].named):
        opened(root)


def test_nothing_left_is_an_error(root: Path) -> None:
    for path in (root / "images/train").iterdir():
        path.write_bytes(b"")
    with one_line("no-usable-images", "'train'", f"{root} ", root / "images/train/0.png"):
        opened(root, on_bad_file="skip")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("images/train/2.png", "permission-denied"),
        ("masks/train/2.png", "permission-denied"),
        ("images/train", "folder-unreadable"),
    ],
)
def test_no_permission(place: str, code: str, root: Path) -> None:
    (root / place).chmod(0)
    try:
        with one_line(code, root / place, "permissions"):
            opened(root)
    finally:
        (root / place).chmod(0o700)


@pytest.mark.parametrize(
    ("place", "code"), [("PIL.Image.open", "permission-denied"), ("os.scandir", "folder-unreadable")]
)
def test_permission_that_is_denied(place: str, code: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, for those to whom everything is permitted."""

    def refuse(path: Any, *arguments: Any, **settings: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(place, refuse)
    with one_line(code, root, "permissions"):
        opened(root, num_classes=3)


def test_a_file_that_vanishes_during_the_run(root: Path) -> None:
    config = resolve(parse(DataConfig, {"root": str(root)}))
    dataset = open_dataset(config, "train")
    dataset.cache_bytes = 0
    dataset.load(2)
    image(root).unlink()
    with one_line("file-missing", image(root)):
        dataset.load(2)


def test_masks_of_the_ignore_label_alone_are_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(np.full_like(LABELS, 255), mask(root))
    assert len(opened(root)) == 6
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("1 of 6 masks hold the ignore label 255 alone (2): nothing is learned or measured there")


def test_masks_of_the_ignore_label_alone_are_left_out(root: Path) -> None:
    save(np.full_like(LABELS, 255), mask(root))
    assert opened(root, on_bad_file="skip").left_out == [(BAD, "masks/train/2.png holds the ignore label alone")]


# --- what looks odd and is well ---------------------------------------------------------------------------------------


def rename(root: Path, stem: str) -> None:
    image(root).rename(root / f"images/train/{stem}.png")
    mask(root).rename(root / f"masks/train/{stem}.png")


def turn(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(PHOTO, image(root).with_suffix(".jpg"), exif=exif)
    save(LABELS.T, mask(root))
    image(root).unlink()


def to_cmyk(root: Path) -> None:
    Image.fromarray(PHOTO).convert("CMYK").save(image(root).with_suffix(".jpg"))
    image(root).unlink()


def test_16_bits_among_8_stop_unless_the_type_is_set(root: Path) -> None:
    save(PHOTO[:, :, 0].astype(np.uint16) * 257, image(root))
    with one_line("pixel-types-differ", f"{image(root)} has uint16 values", "1 and 7 of 8 images", "data.pixel_type"):
        opened(root)
    for pixel_type, scale in (("uint8", 1), ("uint16", 257)):
        sample = opened(root, pixel_type=pixel_type).load(2).image
        assert (sample.shape, sample.dtype) == ((40, 48, 3), pixel_type)
        assert np.array_equal(sample[:, :, 1], PHOTO[:, :, 0].astype(pixel_type) * scale)


WELL: dict[str, tuple[Callable[[Path], object], tuple[int, int]]] = {
    "unicode": (lambda root: rename(root, "Straße 東京 ü"), (40, 48)),
    "spaces": (lambda root: rename(root, " a  b "), (40, 48)),
    "quotes and brackets": (lambda root: rename(root, "it's [1] {x} 100%"), (40, 48)),
    "turned by EXIF": (turn, (48, 40)),
    "CMYK": (to_cmyk, (40, 48)),
    "a grey image among colours": (lambda root: save(PHOTO[:, :, 0], image(root)), (40, 48)),
    "folder named as an image": (lambda root: (root / "images/train/z.png").mkdir(), (40, 48)),
    "mask without an image": (lambda root: save(LABELS, root / "masks/train/77.png"), (40, 48)),
    "link to a file": (
        lambda root: (image(root).rename(root / "a.png"), image(root).symlink_to(root / "a.png")),
        (40, 48),
    ),
    "hidden files": (lambda root: (root / "images/train/.DS_Store.png").write_bytes(b""), (40, 48)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WELL)
def test_what_is_odd_but_well(case: str, root: Path) -> None:
    change, size = WELL[case]
    change(root)
    dataset = opened(root)
    assert len(dataset) == 6
    sizes = {dataset.load(index).mask.shape for index in range(6)}
    assert size in sizes
    assert all(dataset.load(index).image.shape == (*dataset.load(index).mask.shape, 3) for index in range(6))
