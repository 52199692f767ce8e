"""`autoseg.evaluate`: measure a retrained network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.config.data import ResolvedDataConfig
from autoseg.config.inference import InferenceConfig
from autoseg.errors import ConfigError, RunError
from autoseg.files import write_text
from autoseg.setup.trained_network import IN_WINDOWS, Inference, inference_settings, load_for_inference

if TYPE_CHECKING:
    import torch

    from autoseg.data.base import SegmentationDataset
    from autoseg.metrics.confusion import Scores
    from autoseg.network.base import SegmentationNetwork


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
    """Measure a retrained network on a split of its own data, or of other data with the same classes.

    `inference`: the settings of `InferenceConfig`, such as {"scales": [0.5, 1], "flip": True, "window": [512, 512]};
    left out, one pass. `precision`: float32 or bf16, which is faster where the device has it and rounds logits by a few
    hundredths. `output_stride`: of a network of the literature, another one for the same weights, by dilation.
    `batch_size`: images at once, where those that follow each other have one size; the scores do not depend on it.
    Returns mIoU with its 95% interval over the images, frequency-weighted IoU, Dice, pixel and mean accuracy, boundary
    F-score, calibration error and Brier score, by class too where they have classes, the confusion matrix, and what was
    measured on; also written to `out`, a new file; left out, to RUN/evaluation_SPLIT.json, anew each time. `plot`: draw
    the confusion matrix too, to RUN/figures/confusion_SPLIT, or, as new files, beside `out`.
    Raises: AutosegError: something that was given is wrong.
    """
    from autoseg.data.dataset import open_dataset
    from autoseg.setup.settings import data_for_run

    asked = inference_settings(inference)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}, but at least 1 image must come at once", code="batch-too-small")
    file, picture = _targets(Path(run), split, None if out is None else Path(out), plot)
    network, config, saved, target = load_for_inference(run, checkpoint, device, precision, output_stride, asked)
    settings = data_for_run(config.data, data, overrides)
    dataset = open_dataset(settings, split)
    scores, measured = _measure(network, dataset, settings, target, asked, batch_size, show_progress)
    result = {"run": Path(run).as_posix(), "checkpoint": checkpoint, "epoch": saved["epoch"], "split": split}
    result |= _conditions(dataset, network, asked, precision) | measured
    write_text(file, json.dumps(result, indent=2) + "\n")
    if plot:
        _draw_confusion(scores, picture)
    return result


def _measure(
    network: SegmentationNetwork,
    dataset: SegmentationDataset,
    settings: ResolvedDataConfig,
    device: torch.device,
    asked: InferenceConfig,
    batch_size: int,
    show_progress: bool,
) -> tuple[Scores, dict[str, Any]]:
    """The scores, and all that was measured as plain data."""
    from autoseg.engine.evaluate import Details, evaluate_network
    from autoseg.engine.log import Progress
    from autoseg.planning.device import memory_errors

    details = Details(dataset.num_classes, dataset.ignore_label)
    with memory_errors(device, IN_WINDOWS), Progress("evaluate", len(dataset), enabled=show_progress) as progress:
        scores, loss = evaluate_network(
            network, dataset, settings, device, batch_size=batch_size, inference=asked, details=details,
            progress=lambda done, _: progress.update(done),
        )  # fmt: skip
    return scores, {"loss": loss, **scores.to_dict(), **details.to_dict(dataset.classes)}


def _conditions(
    dataset: SegmentationDataset, network: SegmentationNetwork, asked: InferenceConfig, precision: str
) -> dict[str, Any]:
    """What is measured, and how, as plain data."""
    return {
        "images": len(dataset),
        "left_out": [name for name, _ in dataset.left_out],
        "size": list(dataset.resize) if dataset.resize else None,
        "multi_scale": len(asked.scales) > 1,
        **asked.to_dict(),
        "precision": precision,
        "output_stride": getattr(network.architecture, "output_stride", None),
    }


def _targets(run: Path, split: str, out: Path | None, plot: bool) -> tuple[Path, Path]:
    """The JSON of an evaluation, and the stem of its pictures: in the run, or new files.

    Raises: RunError: one cannot be written without harm.
    """
    if out is None:
        return run / f"evaluation_{split}.json", run / "figures" / f"confusion_{split}"
    stem = out.with_name(f"{out.stem}_confusion")
    _refuse_target(out)
    if plot:
        from autoseg.viz.style import FORMATS  # slow to import

        for form in FORMATS:
            _refuse_target(stem.with_name(f"{stem.name}.{form}"))
    return out, stem


def _draw_confusion(scores: Scores, stem: Path) -> None:
    from autoseg.viz.draw import draw_confusion, save

    save(draw_confusion(scores.confusion, scores.classes), stem)


def _refuse_target(path: Path) -> None:
    """Raise RunError where a file cannot be written without harm."""
    if path.exists():
        raise RunError(f"{path} is there already; give another --out", code="file-exists")
    if not path.parent.is_dir():
        raise RunError(
            f"{path.parent}, the folder of {path.name}, does not exist; create it, or give another --out",
            code="folder-missing",
        )
