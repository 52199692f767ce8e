"""`autoseg evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options


def evaluate(
    run: Annotated[Path, typer.Argument(help="The directory of a retraining.")],
    data: options.Data = None,
    split: Annotated[str, typer.Option(help="train, val, test, or a split that the data YAML names.")] = "val",
    multi_scale: options.MultiScale = False,
    scales: options.Scales = None,
    flip: options.Flip = False,
    fuse: options.Fuse = "mean",
    window: options.Window = None,
    overlap: options.Overlap = None,
    crf: options.Crf = False,
    output_stride: options.OutputStride = None,
    checkpoint: options.Checkpoint = "best",
    set_: options.Set = None,
    device: options.Device = None,
    precision: options.Precision = "float32",
    out: Annotated[Path | None, typer.Option(help="The JSON to write; else RUN/evaluation_SPLIT.json.")] = None,
    debug: options.Debug = False,
) -> None:
    """Measure a retrained network over a whole split, by default val of its own data.

    Example: autoseg evaluate runs/b --split val
    """
    from autoseg.api.use import evaluate as evaluate_api

    settings = options.overrides(set_)
    inference = options.inference(settings, multi_scale, scales, flip, fuse, crf, window, overlap)
    result = evaluate_api(
        run, data, split=split, inference=inference, checkpoint=checkpoint, device=device or "auto",
        precision=precision, output_stride=output_stride, overrides=settings, out=out,
    )  # fmt: skip
    width = max(len(name) for name in result["iou"])
    for name, iou in result["iou"].items():
        typer.echo(f"{name:<{width}}  {'    -' if iou is None else f'{iou:.3f}'}")
    typer.echo(
        f"mIoU {result['miou'] or 0:.4f}   pixel accuracy {result['pixel_accuracy'] or 0:.4f}"
        f"   mean accuracy {result['mean_accuracy'] or 0:.4f}   ({result['images']} images of {split})"
    )
    typer.echo(f"wrote {out or run / f'evaluation_{split}.json'}")
