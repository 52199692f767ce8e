"""`autoseg.predict`: label images with a retrained network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.setup.trained_network import IN_WINDOWS, Inference, inference_settings, load_for_inference


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
    """Label images, or folders of them: OUT/labels/NAME.png and OUT/overlays/NAME.png at each image's own size.

    `inference`, `precision` and `output_stride` as for `evaluate`.
    A label PNG holds the labels as pixel values and shows them in colour. Returns both paths of each image.
    Raises: AutosegError: something that was given is wrong; nothing is written over.
    """
    from autoseg.engine.log import Progress
    from autoseg.engine.predict import find_images, predict_files
    from autoseg.planning.device import memory_errors

    asked = inference_settings(inference)
    network, config, _, target = load_for_inference(run, checkpoint, device, precision, output_stride, asked)
    files = []
    found = find_images(images)
    with memory_errors(target, IN_WINDOWS), Progress("predict", len(found), enabled=show_progress) as progress:
        for pair in predict_files(network, images, Path(out), config.data, target, asked):
            files.append(pair)
            progress.update(len(files))
    return files
