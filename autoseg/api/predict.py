"""`autoseg.predict`: label images with a retrained network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from autoseg.config.data import ResolvedDataConfig
from autoseg.data.dataset import LEAST_SIDE
from autoseg.data.io.images import IMAGE_SUFFIXES, is_image, read_image
from autoseg.engine.log import Progress
from autoseg.engine.predict import IN_WINDOWS, Inference, inference_settings, label_map, load_for_inference
from autoseg.errors import DataError, RunError
from autoseg.files import write_atomically
from autoseg.planning.device import memory_errors
from autoseg.viz.palette import as_picture, overlay, palette


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
    show_progress: bool = True,
) -> list[tuple[Path, Path]]:
    """Predict the labels of images with a retrained network.

    Args:
        run: The run directory of a retraining.
        images: Image files, and folders of images.
        out: A folder. It gets labels/NAME.png, whose pixel values are the labels and whose palette colours them, and
            overlays/NAME.png, both at the image's own size.
        inference: Settings of `InferenceConfig`, as for `evaluate`. Default: one pass.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `float32` or `bf16`.
        output_stride: Another output stride for the same weights, for networks of the literature only.
        show_progress: Show a progress bar.

    Returns:
        The paths of labels and overlay of each image.

    Raises:
        AutosegError: an argument is wrong, an image is unusable, or a file exists already.
    """
    asked = inference_settings(inference)
    network, config, _, target = load_for_inference(run, checkpoint, device, precision, output_stride, asked)
    found, folders = find_images(images), (Path(out) / "labels", Path(out) / "overlays")
    files = [(folders[0] / f"{path.stem}.png", folders[1] / f"{path.stem}.png") for path in found]
    colours = palette(network.num_classes)
    with memory_errors(target, IN_WINDOWS), Progress("predict", len(found), enabled=show_progress) as progress:
        _check(found, files, config.data)
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as reason:
            raise RunError(
                f"{out} cannot be made ({reason.strerror}); give another --out", code="folder-unwritable"
            ) from None
        for done, (path, targets) in enumerate(zip(found, files, strict=True), start=1):
            image = read_image(path, None, config.data.channels, config.data.pixel_type)
            labels = label_map(network, image, config.data, target, asked)
            pictures = _paletted(labels, colours), Image.fromarray(overlay(as_picture(image), labels, colours))
            for file, picture in zip(targets, pictures, strict=True):
                write_atomically(file, partial(picture.save, format="PNG"))
            progress.update(done)
    return files


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """The images in `sources`: files, and folders with their subfolders. Raises: DataError: none, or a name twice."""
    found: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            inside = sorted(path for path in source.rglob("*") if is_image(path.name))
            if not inside:
                raise DataError(
                    f"{source} holds no images ({', '.join(IMAGE_SUFFIXES)}); give a folder that does", code="no-images"
                )
            found += inside
        elif source.is_file():
            found.append(source)
        else:
            raise DataError(f"{source} does not exist; give images or folders of images", code="file-missing")
    names: dict[str, Path] = {}
    for path in found:
        if path.stem in names:
            raise DataError(
                f"{path} and {names[path.stem]} would both become {path.stem}.png; predict them separately",
                code="image-names-clash",
            )
        names[path.stem] = path
    if not found:
        raise DataError("no images to predict; give images or folders of images", code="nothing-to-predict")
    return found


def _check(images: Sequence[Path], files: Sequence[tuple[Path, Path]], data: ResolvedDataConfig) -> None:
    """Read all images before any file is written, so that a bad one leaves no partial result."""
    for file in (file for pair in files for file in pair):
        if file.exists():
            raise RunError(f"{file} is there already; give another --out", code="file-exists")
    for path in images:
        height, width = read_image(path, None, data.channels, data.pixel_type).shape[:2]
        if min(height, width) < LEAST_SIDE:
            raise DataError(
                f"{path} is {width}x{height} pixels, but images need at least {LEAST_SIDE} each way; remove it",
                code="image-too-small",
            )


def _paletted(labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """Labels as an image whose palette colours them; above 256 classes as 16-bit grey."""
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(colours.astype(np.uint8).tobytes())
    return image
