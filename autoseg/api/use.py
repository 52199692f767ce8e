"""Measuring, using and exporting what was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.config.base import parse
from autoseg.config.data import DataConfig
from autoseg.config.inference import InferenceConfig
from autoseg.config.training import RetrainConfig
from autoseg.errors import ConfigError, ExportError, RunError
from autoseg.files import write_text
from autoseg.genotype.schema import Genotype

if TYPE_CHECKING:
    import torch

    from autoseg.data.base import SegmentationDataset
    from autoseg.metrics.confusion import Scores
    from autoseg.network.base import SegmentationNetwork

Inference = InferenceConfig | Mapping[str, Any]

IN_WINDOWS = "see large images in pieces: --window 512 512"
"""What to do where the memory does not suffice."""


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

    asked = _asked(inference)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}, but at least 1 image must come at once", code="batch-too-small")
    file, picture = _targets(Path(run), split, None if out is None else Path(out), plot)
    network, config, saved, target = _network_of(run, checkpoint, device, precision, output_stride, asked)
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
    settings: DataConfig,
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

    asked = _asked(inference)
    network, config, _, target = _network_of(run, checkpoint, device, precision, output_stride, asked)
    files = []
    found = find_images(images)
    with memory_errors(target, IN_WINDOWS), Progress("predict", len(found), enabled=show_progress) as progress:
        for pair in predict_files(network, images, Path(out), config.data, target, asked):
            files.append(pair)
            progress.update(len(files))
    return files


def _asked(inference: Inference | None) -> InferenceConfig:
    """The settings, checked. Raises: ConfigError: one is wrong, or the CRF is not installed."""
    from autoseg.engine.crf import load_densecrf

    asked = inference if isinstance(inference, InferenceConfig) else parse(InferenceConfig, inference or {})
    if asked.crf is not None:
        load_densecrf()
    return asked


def _network_of(
    run: str | Path, checkpoint: str, device: str, precision: str, output_stride: int | None, asked: InferenceConfig
) -> tuple[SegmentationNetwork, RetrainConfig, dict[str, Any], torch.device]:
    """As `load_network`, with the network ready for use on the device, which comes last.

    Raises: ConfigError: a CRF is asked for, which knows colours, and the images have none.
    """
    from autoseg.engine.device_check import prepare
    from autoseg.engine.environment import pick_device
    from autoseg.engine.predict import load_network
    from autoseg.network import for_inference

    target = pick_device(device)
    prepare(target)
    network, config, saved = load_network(run, _which(checkpoint), output_stride)
    if asked.crf is not None and network.in_channels != 3:
        raise ConfigError(
            f"the CRF needs images of 3 channels, but the network's have {network.in_channels}", code="crf-needs-colour"
        )
    return for_inference(network, target, precision), config, saved, target


def export_model(
    source: str | Path, out: str | Path, format: str, *, checkpoint: str = "best", overwrite: bool = False
) -> str:
    """Export a retrained network (onnx, pt2, safetensors), or any genotype (json, graphml, dot).

    A network's file is checked against the network; returns one line that says how they compare.
    Raises: AutosegError: something that was given is wrong, or the file differs from the network.
    """
    from autoseg.export import GENOTYPE_FORMATS, NETWORK_FORMATS, export_genotype, export_network
    from autoseg.zoo.architecture import load_architecture

    if format not in (*NETWORK_FORMATS, *GENOTYPE_FORMATS):
        raise ExportError(
            f"unknown format '{format}' (known: {', '.join((*NETWORK_FORMATS, *GENOTYPE_FORMATS))})",
            code="unknown-format",
        )
    if format in GENOTYPE_FORMATS:
        genotype = load_architecture(source)
        if not isinstance(genotype, Genotype):
            raise ExportError(
                f"{format} is for genotypes, and {genotype.name} is a network of the literature; train it and take one"
                f" of {', '.join(NETWORK_FORMATS)}",
                code="format-needs-genotype",
            )
        path = export_genotype(genotype, out, format, overwrite=overwrite)  # type: ignore[arg-type]
        return f"wrote {path}"
    from autoseg.engine.predict import load_network

    network, config, _ = load_network(source, _which(checkpoint))
    metadata = {
        "num_classes": config.data.num_classes,
        "classes": list(config.data.classes or ()),
        "ignore_label": config.data.ignore_label,
        "mean": list(config.data.mean),
        "std": list(config.data.std),
        "resize": list(config.data.resize) if config.data.resize else None,
    }
    return str(export_network(network, out, format, metadata=metadata, overwrite=overwrite))  # type: ignore[arg-type]


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


def _which(checkpoint: str) -> Any:
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"checkpoint must be best or last, not {checkpoint}", code="unknown-checkpoint")
    return checkpoint
