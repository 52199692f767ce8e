"""`autoseg.evaluate`: the scores of a retrained network."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg import limits
from autoseg.data.dataset import open_dataset
from autoseg.data.flip_pairs import pairs_line
from autoseg.engine.evaluate import evaluate_network
from autoseg.engine.log import Progress
from autoseg.engine.predict import IN_WINDOWS, Inference, inference_settings, load_for_inference
from autoseg.errors import ConfigError, RunError, printable
from autoseg.files import check_room, user_path, write_text
from autoseg.metrics.details import Details
from autoseg.planning.device import memory_errors
from autoseg.setup.other_data import data_for_run


def evaluate(
    run: str | Path,
    data: str | Path | Mapping[str, Any] | None = None,
    *,
    split: str = "val",
    inference: Inference | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    precision: str = "float32",
    output_stride: int | None = None,
    batch_size: int = 1,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    plot: bool = False,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Evaluate a retrained network on a split of its own data, or of other data with the same classes.

    Args:
        run: The run directory of a retraining.
        data: Other data: a folder, a data YAML, "generated" or settings. Default: the run's own.
        split: `train`, `val`, `test`, or another split of the data.
        inference: Settings of `InferenceConfig`, such as `{"scales": [0.5, 1], "flip": True, "window": [512, 512]}`,
            with window sides (H, W) in pixels. Default: one pass.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `float32`, or `bf16`, which is faster on some devices and rounds logits by a few hundredths.
        output_stride: Another output stride for the same weights, by dilation, for networks of the literature only.
        batch_size: Images in one forward pass, if successive images have the same size. Scores do not depend on it.
        overrides: Nested settings of the data, such as `{"data": {"resize": [512, 512]}}`.
        out: A new JSON file for the result. Default: evaluation_SPLIT.json in the run, which is overwritten.
        plot: Draw the confusion matrix to figures/confusion_SPLIT in the run, or to new files beside `out`.
        show_progress: Show a progress bar.

    Returns:
        Scores as shares of 1: mIoU with its 95% interval over the images, frequency-weighted IoU, Dice, pixel and mean
        accuracy, boundary F-score, calibration error and Brier score; scores by class; the confusion matrix; and the
        conditions of the measurement.

    Raises:
        AutosegError: an argument is wrong, or the data cannot be used.
    """
    asked = inference_settings(inference)
    if not 1 <= batch_size <= limits.BATCH:
        message = f"batch_size is {batch_size}; it must be 1 to {limits.BATCH:,} images"
        raise ConfigError(message, code="batch-too-small" if batch_size < 1 else "batch-out-of-range")
    file, picture = _targets(user_path(run), split, None if out is None else user_path(out), plot)
    network, config, saved, target = load_for_inference(run, checkpoint, device, precision, output_stride, asked)
    said = list[str]()
    settings = data_for_run(config.data, data, overrides, said.append if show_progress else None)
    if asked.flip and show_progress:
        said += pairs_line(config.retrain.augment.flip_pairs, config.data)
    dataset = open_dataset(settings, split)
    details = Details(dataset.num_classes, dataset.ignore_label)
    with memory_errors(target, IN_WINDOWS), Progress("evaluate", len(dataset), enabled=show_progress) as progress:
        scores, loss = evaluate_network(
            network, dataset, settings, target, batch_size=batch_size, inference=asked, details=details,
            progress=progress.update,
        )  # fmt: skip
    for line in said:
        print(printable(line), file=sys.stderr)
    result = {
        "run": Path(run).as_posix(),
        "checkpoint": checkpoint,
        "epoch": saved["epoch"],
        "split": split,
        "images": len(dataset),
        "left_out": [name for name, _ in dataset.left_out],
        "size": list(dataset.resize) if dataset.resize else None,
        "multi_scale": len(asked.scales) > 1,
        **asked.to_dict(),
        "precision": precision,
        "output_stride": getattr(network.architecture, "output_stride", None),
        "loss": loss,
        **scores.to_dict(),
        **details.to_dict(dataset.classes),
    }
    text = json.dumps(result, indent=2) + "\n"
    try:
        write_text(file, text)
    except RunError:  # the disk has filled meanwhile, and measuring may have taken hours
        print(text, end="")
        raise
    if plot:
        from autoseg.viz.heat_maps import draw_confusion  # slow to import
        from autoseg.viz.style import save

        save(draw_confusion(scores.confusion, scores.classes), picture)
    return result


def _targets(run: Path, split: str, out: Path | None, plot: bool) -> tuple[Path, Path]:
    """The JSON file of an evaluation and the stem of its pictures. Raises: RunError: one cannot be written."""
    if out is None:
        if run.is_dir():
            check_room(run / f"evaluation_{split}.json", remedy="or give --out")
        return run / f"evaluation_{split}.json", run / "figures" / f"confusion_{split}"
    stem, targets = out.with_name(f"{out.stem}_confusion"), [out]
    if plot:
        from autoseg.viz.style import FORMATS  # slow to import

        targets += [stem.with_name(f"{stem.name}.{form}") for form in FORMATS]
    for path in targets:
        if path.exists():
            raise RunError(f"{path} is there already; give another --out", code="file-exists")
        if not path.parent.is_dir():
            raise RunError(
                f"{path.parent}, the folder of {path.name}, does not exist; create it, or give another --out",
                code="folder-missing",
            )
        check_room(path, remedy="or give another --out")
    return out, stem
