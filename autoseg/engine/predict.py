"""Loading a trained network from its run, and predicting label maps of images of any size.

Letters: K classes, C channels, H height, W width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from autoseg.config.data import ResolvedDataConfig
from autoseg.config.inference import InferenceConfig
from autoseg.data.augment.sample import full_scale, to_tensor
from autoseg.data.base import Sample, resize_image
from autoseg.data.dataset import LEAST_SIDE
from autoseg.data.io.images import IMAGE_SUFFIXES, is_image, read_image
from autoseg.engine.checkpoint import fitting, load_checkpoint
from autoseg.engine.config import RetrainConfig
from autoseg.engine.crf import refined
from autoseg.engine.inference import PLAIN, resized_bands, score_bands
from autoseg.engine.run_directory import Run
from autoseg.errors import ConfigError, DataError, RunError
from autoseg.files import write_atomically
from autoseg.network.base import SegmentationNetwork
from autoseg.viz.palette import as_picture, overlay, palette
from autoseg.zoo.architecture import at_output_stride
from autoseg.zoo.build import build_architecture


def load_network(
    path: str | Path, checkpoint: str = "best", output_stride: int | None = None
) -> tuple[SegmentationNetwork, RetrainConfig, dict[str, Any]]:
    """Load the trained network of a retraining run.

    Args:
        path: The run directory.
        checkpoint: `best` (by mIoU on the validation split) or `last`.
        output_stride: Another output stride for the same weights, for networks of the literature only. Default: the
            run's own.

    Returns:
        The network on the CPU in evaluation mode, which maps images (N, C, H, W) to logits (N, K, H, W); the run's
        settings; and the checkpoint's `epoch`, `best_miou` and training time in `seconds`.

    Raises:
        RunError: `path` holds no retraining run.
        CheckpointError: the checkpoint cannot be read.
        ConfigError: an unknown checkpoint, or the network cannot have this output stride.
    """
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"checkpoint must be best or last, not {checkpoint}", code="unknown-checkpoint")
    run = Run.open(path)
    if run.kind != "retrain":
        raise RunError(
            f"{path} is a search, whose network is not trained; `autoseg decode` and `retrain` it first",
            code="run-kind-differs",
        )
    config = run.config(RetrainConfig)
    saved = load_checkpoint(run.checkpoints / f"{checkpoint}.pt", "retrain", config.architecture.to_dict())
    architecture, data = at_output_stride(config.architecture, output_stride), config.data
    single_output = config.retrain.single_output
    network = build_architecture(architecture, data.num_classes, in_channels=data.channels, single_output=single_output)
    with fitting(run.checkpoints / f"{checkpoint}.pt"):
        average, prefix = saved["state"]["average"], "" if saved["state"]["average"] is None else "module."
        weights = saved["state"]["network"] if average is None else average
        weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        network.load_state_dict({key: value for key, value in weights.items() if not key.startswith("auxiliary.")})
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval(), config, {key: saved[key] for key in ("epoch", "best_miou", "seconds")}


@torch.no_grad()
def label_map(
    network: SegmentationNetwork,
    image: np.ndarray,
    data: ResolvedDataConfig,
    device: torch.device,
    inference: InferenceConfig = PLAIN,
) -> np.ndarray:
    """Labels (H, W) of an image (H, W, C) as it was read: uint8, or uint16 above 256 classes.

    The image is resized to `data.resize` if that is set, and the logits are resized back. The CRF and the labels use
    the image's own size.
    """
    size = image.shape[:2]
    working = image if data.resize is None else resize_image(image, data.resize)
    tensor, _ = to_tensor(Sample(working, np.zeros(working.shape[:2], np.uint8)), data.mean, data.std)
    bands = score_bands(network, tensor[None].to(device), inference)
    bands = resized_bands(bands, working.shape[0], size, align_corners=False)
    if inference.crf is not None:
        colours = np.rint(image[None] * (255 / full_scale(image.dtype))).clip(0, 255).astype(np.uint8)
        bands = refined(bands, colours, inference.crf)
    labels, top = np.empty(size, np.uint8 if network.num_classes <= 256 else np.uint16), 0
    for band in bands:
        labels[top : top + band.shape[2]] = band.argmax(1)[0].cpu().numpy()
        top += band.shape[2]
    return labels


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """The image files in `sources`: files, and folders with their subfolders.

    Raises: DataError: a file is missing, a folder has no images, or two images have the same name.
    """
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


def predict_files(
    network: SegmentationNetwork,
    images: Sequence[Path],
    out: Path,
    data: ResolvedDataConfig,
    device: torch.device,
    inference: InferenceConfig = PLAIN,
) -> Iterator[tuple[Path, Path]]:
    """Write out/labels/NAME.png (palette PNG) and out/overlays/NAME.png of each image, and yield both paths.

    Raises: DataError: an image is unreadable or too small. RunError: a file exists already.
    """
    labels, overlays = out / "labels", out / "overlays"
    for path in images:
        for folder in (labels, overlays):
            if (folder / f"{path.stem}.png").exists():
                raise RunError(f"{folder / path.stem}.png is there already; give another --out", code="file-exists")
    for path in images:  # read all images before writing, so that a bad one leaves no partial result
        height, width = _read(path, data).shape[:2]
        if min(height, width) < LEAST_SIDE:
            raise DataError(
                f"{path} is {width}x{height} pixels, but images need at least {LEAST_SIDE} each way; remove it",
                code="image-too-small",
            )
    try:
        for folder in (labels, overlays):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise RunError(
            f"{out} cannot be made ({reason.strerror}); give another --out", code="folder-unwritable"
        ) from None
    colours = palette(network.num_classes)
    for path in images:
        image = _read(path, data)
        predicted = label_map(network, image, data, device, inference)
        files = labels / f"{path.stem}.png", overlays / f"{path.stem}.png"
        pictures = _paletted(predicted, colours), Image.fromarray(overlay(as_picture(image), predicted, colours))
        for file, picture in zip(files, pictures, strict=True):
            write_atomically(file, partial(picture.save, format="PNG"))
        yield files


def _read(path: Path, data: ResolvedDataConfig) -> NDArray[Any]:
    """Read an image (H, W, C). Raises: DataError: it has other channels or another pixel type than the network's."""
    return read_image(path, None, data.channels, data.pixel_type)


def _paletted(labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """Labels as an image whose palette colours them; above 256 classes as 16-bit grey."""
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(colours.astype(np.uint8).tobytes())
    return image
