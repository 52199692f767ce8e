"""Reading files of every kind."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers.errors import raises_code
from PIL import Image

from autoseg.data.io.images import read_image
from autoseg.data.io.masks import read_mask
from autoseg.data.io.opening import read_header
from autoseg.errors import DataError

LABELS = np.random.default_rng(0).integers(0, 200, (12, 10), dtype=np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def palette() -> Image.Image:
    image = Image.frombytes("P", (10, 12), LABELS.tobytes())
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    return image


MASKS = {
    "palette.png": palette(),
    "grey.png": Image.fromarray(LABELS),
    "sixteen.png": Image.fromarray(LABELS.astype(np.uint16)),
    "thirtytwo.tif": Image.fromarray(LABELS.astype(np.int32)),
    "grey.tiff": Image.fromarray(LABELS),
    "equal_channels.png": Image.fromarray(np.repeat(LABELS[:, :, None], 3, axis=2)),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str, tmp_path: Path) -> None:
    MASKS[name].save(tmp_path / name)
    mask = read_mask(tmp_path / name)
    assert np.issubdtype(mask.dtype, np.integer)
    assert np.array_equal(mask, LABELS)


def test_sixteen_bit_labels_keep_their_value(tmp_path: Path) -> None:
    labels = LABELS.astype(np.uint16) * 300
    Image.fromarray(labels).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), labels)


def test_a_mask_of_one_bit_has_labels_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(LABELS > 100).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), LABELS > 100)
    assert read_mask(tmp_path / "a.png").dtype == np.uint8


def test_a_mask_in_colour_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    named = tmp_path / "a.png", "data.colours", "name_1: [", "`autoseg check-data`"
    with raises_code(DataError, "mask-colours-unset", *named):
        read_mask(tmp_path / "a.png")


def test_a_jpeg_mask_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(LABELS).save(tmp_path / "a.jpg")
    with raises_code(DataError, "mask-compression-lossy", tmp_path / "a.jpg", "JPEG", "PNG"):
        read_mask(tmp_path / "a.jpg")


def test_a_mask_of_fractions_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(LABELS.astype(np.float32)).save(tmp_path / "whole.tif")
    assert np.array_equal(read_mask(tmp_path / "whole.tif"), LABELS)
    Image.fromarray(LABELS + np.float32(0.5)).save(tmp_path / "a.tif")
    with raises_code(DataError, "mask-not-whole-numbers", tmp_path / "a.tif", "float32", "uint8"):
        read_mask(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1"])
def test_images_of_any_mode_become_rgb(mode: str, tmp_path: Path) -> None:
    name = "a.tif" if mode == "CMYK" else "a.png"
    image = Image.fromarray(COLOURS).convert(mode)
    image.save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert (read.shape, read.dtype) == ((12, 10, 3), np.uint8)
    assert np.array_equal(read, np.asarray(image.convert("RGB")))


def test_sixteen_bit_grey_is_scaled_to_eight(tmp_path: Path) -> None:
    Image.fromarray(LABELS.astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.repeat(LABELS[:, :, None], 3, axis=2))


def turned(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(COLOURS).save(path, exif=exif)
    return path


def test_a_turned_photo_is_set_upright_if_its_mask_is(tmp_path: Path) -> None:
    path = turned(tmp_path / "a.png")
    upright = np.rot90(COLOURS, k=-1)
    assert np.array_equal(read_image(path), upright)
    assert np.array_equal(read_image(path, mask_size=(10, 12)), upright)
    assert np.array_equal(read_image(path, mask_size=(12, 10)), COLOURS)


def test_a_missing_file(tmp_path: Path) -> None:
    with raises_code(DataError, "file-missing", tmp_path / "a.png"):
        read_image(tmp_path / "a.png")


def test_arrays_are_loaded_again_where_the_parser_fails_between_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", LABELS)
    real, calls = np.load, []

    def load(*arguments: object, **settings: object) -> object:
        calls.append(arguments)
        if len(calls) % 3:
            raise SystemError("AST constructor recursion depth mismatch (before=51, after=48)")
        return real(*arguments, **settings)

    monkeypatch.setattr(np, "load", load)
    assert np.array_equal(read_mask(tmp_path / "a.npy"), LABELS)


def test_pillow_does_not_warn_of_a_large_image(tmp_path: Path) -> None:
    """In a process of its own, since pytest sets the filters of warnings."""
    Image.new("L", (60, 50)).save(tmp_path / "large.png")
    code = f"""
from pathlib import Path
from PIL import Image
from autoseg.data.io.opening import read_header
Image.MAX_IMAGE_PIXELS = 2000
print(read_header(Path({str(tmp_path / "large.png")!r})).size)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(50, 60)"
    assert done.stderr == ""


def test_two_bands_of_a_tiff_are_both_read(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 2), dtype=np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"])
    assert read_header(path).channels == 2
    assert np.array_equal(read_image(path, channels=2), pixels)


@pytest.mark.skipif(find_spec("imagecodecs") is not None, reason="imagecodecs is there")
def test_a_compression_that_needs_another_package_names_it(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((32, 40, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["Compression"].overwrite(5)
    with pytest.raises(DataError, match=r"LZW.*pip install imagecodecs") as caught:
        read_image(path, channels=5)
    assert caught.value.code == "package-missing"
