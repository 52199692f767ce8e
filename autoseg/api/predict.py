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
    from autoseg.engine.log import Progress
    from autoseg.engine.predict import find_images, predict_files
    from autoseg.planning.device import memory_errors

    asked = inference_settings(inference)
    network, config, _, target = load_for_inference(run, checkpoint, device, precision, output_stride, asked)
    files = []
    found = find_images(images)
    with memory_errors(target, IN_WINDOWS), Progress("predict", len(found), enabled=show_progress) as progress:
        for pair in predict_files(network, found, Path(out), config.data, target, asked):
            files.append(pair)
            progress.update(len(files))
    return files
