"""Using a trained network: loading it from its run, and label maps of images of any size.

Letters: K classes, C channels, H height, W width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

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
from autoseg.errors import DataError, RunError
from autoseg.files import write_atomically
from autoseg.network.base import SegmentationNetwork
from autoseg.viz.palette import as_picture, overlay, palette
from autoseg.zoo.architecture import at_output_stride
from autoseg.zoo.build import build_architecture

Which = Literal["best", "last"]


def load_network(
    path: str | Path, checkpoint: Which = "best", output_stride: int | None = None
) -> tuple[SegmentationNetwork, RetrainConfig, dict[str, Any]]:
    """The trained network of a retraining run in evaluation mode, the run's settings, and what was measured then.

    `output_stride`: another one for the same weights, of a network of the literature.
    Raises: RunError: no retraining run. CheckpointError: its checkpoint cannot be read. ConfigError: an output stride
    that the network cannot have.
    """
    run = Run.open(path)
    if run.kind != "retrain":
        raise RunError(
            f"{path} is a search, whose network is not trained; `autoseg decode` and `retrain` it first",
            code="run-kind-differs",
        )
    config = run.config(RetrainConfig)
    saved = load_checkpoint(run.checkpoints / f"{checkpoint}.pt", "retrain", config.architecture.to_dict())
    network = build_architecture(
        at_output_stride(config.architecture, output_stride),
        config.data.num_classes,
        in_channels=config.data.channels,
        single_output=config.retrain.single_output,
    )
    with fitting(run.checkpoints / f"{checkpoint}.pt"):
        average = saved["state"]["average"]
        weights = saved["state"]["network"] if average is None else without_prefix(average, "module.")
        network.load_state_dict({key: value for key, value in weights.items() if not key.startswith("auxiliary.")})
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval(), config, {key: saved[key] for key in ("epoch", "best_miou", "seconds")}


def without_prefix(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The entries whose key begins with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


@torch.no_grad()
def label_map(
    network: SegmentationNetwork,
    image: np.ndarray,
    data: ResolvedDataConfig,
    device: torch.device,
    inference: InferenceConfig = PLAIN,
) -> np.ndarray:
    """Labels (H, W) of an image (H, W, C) as it was read: uint8, or uint16 above 256 classes.

    The image is brought to `data.resize` where that is set; logits are resized back before a CRF refines them, which
    sees the image at its own size, and the labels are taken.
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
    """The image files among `sources`, and those in its folders, at any depth.

    Raises: DataError: one is missing, a folder has no images, or two images have one name.
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
    sources: Sequence[str | Path],
    out: Path,
    data: ResolvedDataConfig,
    device: torch.device,
    inference: InferenceConfig = PLAIN,
) -> Iterator[tuple[Path, Path]]:
    """Write out/labels/NAME.png (palette PNG) and out/overlays/NAME.png, yielding both for each image.

    Raises: DataError: an image that cannot be read or is too small. RunError: a file that would be written over.
    """
    images = find_images(sources)
    labels, overlays = out / "labels", out / "overlays"
    for path in images:
        for folder in (labels, overlays):
            if (folder / f"{path.stem}.png").exists():
                raise RunError(f"{folder / path.stem}.png is there already; give another --out", code="file-exists")
    for path in images:  # each is read once before anything is written, so that a bad one leaves nothing half done
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
        _save_png(files[0], _paletted(predicted, colours))
        _save_png(files[1], Image.fromarray(overlay(as_picture(image), predicted, colours)))
        yield files


def _read(path: Path, data: ResolvedDataConfig) -> NDArray[Any]:
    """An image (H, W, C) of the channels and type that the network knows. Raises: DataError: it is none."""
    return read_image(path, None, data.channels, data.pixel_type)


def _paletted(labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """Labels as a PNG whose pixels are the labels and whose palette colours them; above 256 classes 16-bit grey."""
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(colours.astype(np.uint8).tobytes())
    return image


def _save_png(path: Path, image: Image.Image) -> None:
    write_atomically(path, lambda temporary: image.save(temporary, format="PNG"))
