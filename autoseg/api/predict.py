"""`autoseg.predict`: label images with a retrained network."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoseg.config.data import DataConfig, ResolvedDataConfig
from autoseg.data.dataset import check_sizes
from autoseg.data.discovery.lists import find_listed, read_list
from autoseg.data.discovery.pairs import image_files, with_channels
from autoseg.data.flip_pairs import pairs_line
from autoseg.data.io.channel_files import files_of
from autoseg.data.io.images import read_image
from autoseg.data.io.opening import IMAGE_SUFFIXES, is_image
from autoseg.engine.log import Progress
from autoseg.engine.predict import IN_WINDOWS, Inference, inference_settings, label_map, load_for_inference
from autoseg.errors import ConfigError, DataError, RunError
from autoseg.files import check_room, make_folder, user_path, write_atomically
from autoseg.planning.device import memory_errors
from autoseg.viz.palette import as_picture, overlay, palette

_SUFFIXES = {"probabilities": "npy"}
"""Folder -> suffix of its files, if they are no PNGs."""


def predict(
    run: str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    inference: Inference | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "float32",
    output_stride: int | None = None,
    labels: Literal["auto", "classes", "stored"] = "auto",
    probabilities: bool = False,
    show_progress: bool = True,
) -> list[tuple[Path, Path]]:
    """Predict the labels of images with a retrained network.

    Args:
        run: The run directory of a retraining.
        images: Image files, folders of images, patterns such as `photos/*.jpg`, and text files that list images. A
            folder keeps its subfolders. If the training images had several files each, these have too.
        out: A folder. It gets labels/NAME.png, whose pixel values are the labels and whose palette colours them, and
            overlays/NAME.png, both at the image's own size.
        inference: Settings of `InferenceConfig`, as for `evaluate`. Default: one pass.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `float32` or `bf16`.
        output_stride: Another output stride for the same weights, for networks of the literature only.
        labels: `classes` writes the numbers of the classes, 0..K-1; `stored` the labels that the training masks have
            for them. `auto` writes `stored` if these masks have a palette or colours, which the result then has too.
        probabilities: Write probabilities/NAME.npy too: (K, H, W) of float16, the probability of each class.
        show_progress: Show a progress bar.

    Returns:
        The paths of labels and overlay of each image.

    Raises:
        AutosegError: an argument is wrong, an image is unusable, or a file exists already.
    """
    asked = inference_settings(inference)
    place = user_path(out, RunError)
    check_room(place)
    network, config, _, target = load_for_inference(run, checkpoint, device, precision, output_stride, asked)
    found = find_images(images, config.data)
    folders = [place / name for name in ("labels", "overlays", *(["probabilities"] if probabilities else []))]
    files = [tuple(folder / f"{name}.{_SUFFIXES.get(folder.name, 'png')}" for folder in folders) for name in found]
    numbers, colours = _numbers_and_colours(config.data, labels)
    for line in pairs_line(config.retrain.augment.flip_pairs, config.data) if asked.flip and show_progress else ():
        print(line, file=sys.stderr)
    with memory_errors(target, IN_WINDOWS), Progress("predict", len(found), enabled=show_progress) as progress:
        pixels = _check(list(found.values()), files, config.data)
        check_room(place, pixels * network.num_classes * 2 if probabilities else 0)  # float16
        for folder in {file.parent for some in files for file in some}:
            make_folder(folder)
        for done, (path, targets) in enumerate(zip(found.values(), files, strict=True), start=1):
            image = read_image(path, None, config.data.channels, config.data.pixel_type, config.data.orientation)
            shares = np.empty((network.num_classes, *image.shape[:2]), np.float16) if probabilities else None
            found_labels = label_map(network, image, config.data, target, asked, shares)
            picture = Image.fromarray(overlay(as_picture(image), found_labels, colours))
            write_atomically(targets[0], partial(_paletted(found_labels, numbers, colours).save, format="PNG"))
            write_atomically(targets[1], partial(picture.save, format="PNG"))
            if shares is not None:
                write_atomically(targets[2], partial(_save_array, shares))
            progress.update(done)
    return [(some[0], some[1]) for some in files]


def find_images(sources: Sequence[str | Path], data: DataConfig | None = None) -> dict[str, Path]:
    """Name -> image file of `sources`: files, folders with their subfolders, patterns, and text files of a list.

    An image of a folder is named by its path in the folder, without suffix, another by its stem. Hidden files do not
    count. Files that make up images by the `channel_files` of `data` become one image each.
    Raises: DataError: a file is missing, a folder has no images, or two images have the same name.
    """
    names: dict[str, Path] = {}
    for source in map(str, sources):
        for name, path in _images_of(source):
            if name in names:
                raise DataError(
                    f"{path} and {names[name]} would both become {name}.png; predict them separately",
                    code="image-names-clash",
                )
            names[name] = path
    if not names:
        raise DataError("no images to predict; give images or folders of images", code="nothing-to-predict")
    for patterns in dict.fromkeys(place.channel_files for place in ((data and data.splits) or {}).values()):
        images, faults = with_channels({name: [path] for name, path in names.items()}, patterns or ())
        if faults:
            raise next(iter(faults.values()))
        if images:
            used = {file for some in images.values() for file in files_of(some[0])}
            others = {name: path for name, path in names.items() if path not in used}
            return others | {name: some[0] for name, some in images.items()}
    return names


def _images_of(source: str) -> Iterator[tuple[str, Path]]:
    """The names and files of one source."""
    path = user_path(source, DataError)
    if path.is_dir():
        inside = sorted(image_files(path, "."))
        if not inside:
            raise DataError(
                f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}); give a folder that does", code="no-images"
            )
        yield from inside
    elif path.is_file() and path.suffix.lower() in (".txt", ".csv"):
        for entry in read_list(path):
            listed = find_listed(path.parent, entry[0])
            if not listed.is_file():
                raise DataError(
                    f"{path} lists {entry[0]}, which is not in {path.parent}; correct the list",
                    code="listed-file-missing",
                )
            yield listed.stem, listed
    elif path.is_file():
        yield path.stem, path
    elif matches := [match for match in sorted(glob(source, recursive=True)) if is_image(match)]:
        yield from ((Path(match).stem, Path(match)) for match in matches if Path(match).is_file())
    else:
        raise DataError(f"{source} does not exist; give images or folders of images", code="file-missing")


def _check(images: Sequence[Path], files: Sequence[tuple[Path, ...]], data: ResolvedDataConfig) -> int:
    """Read all images before any file is written, so that a bad one leaves no partial result; returns their pixels.

    Raises: DataError: an image is unreadable or too small. RunError: a file exists already.
    """
    for file in (file for pair in files for file in pair):
        if file.exists():
            raise RunError(f"{file} is there already; give another --out", code="file-exists")
    pixels = 0
    for path in images:
        height, width = read_image(path, None, data.channels, data.pixel_type).shape[:2]
        check_sizes(path, (height, width))
        pixels += height * width
    return pixels


def _numbers_and_colours(data: ResolvedDataConfig, labels: str) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The number that is written for each class, and its colour. Raises: ConfigError: `labels` has another value."""
    if labels not in ("auto", "classes", "stored"):
        raise ConfigError(f"labels is {labels!r}; give auto, classes or stored", code="choice-unknown")
    colours = np.array(data.palette, dtype=np.uint8) if data.palette else palette(data.num_classes)
    numbers = np.arange(data.num_classes)
    if labels == "stored" or (labels == "auto" and data.palette):
        stored = data.label_map or {}
        for number in range(data.num_classes):
            own = [label for label, used in stored.items() if used == number]
            numbers[number] = min(own, default=number)
    return numbers, colours


def _paletted(labels: NDArray[Any], numbers: NDArray[np.int64], colours: NDArray[np.uint8]) -> Image.Image:
    """Labels as an image of `numbers`, whose palette colours them; above 255 as 16-bit grey."""
    if numbers.max() > 255:
        return Image.fromarray(numbers[labels].astype(np.uint16))
    image = Image.fromarray(numbers[labels].astype(np.uint8))
    shown = np.zeros((int(numbers.max()) + 1, 3), dtype=np.uint8)
    shown[numbers] = colours
    image.putpalette(shown.tobytes())
    return image


def _save_array(array: NDArray[Any], path: Path) -> None:
    with path.open("wb") as file:  # numpy.save adds a suffix to a path
        np.save(file, array)
