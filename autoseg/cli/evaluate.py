"""`autoseg evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from autoseg.cli import options

SUMMARY = {
    "pixel accuracy": "pixel_accuracy",
    "mean accuracy": "mean_accuracy",
    "frequency-weighted IoU": "frequency_weighted_iou",
    "Dice": "mean_dice",
    "boundary F": "boundary_f",
    "calibration error": "expected_calibration_error",
}
"""Label in the last line -> key in the JSON."""


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
    batch_size: Annotated[int, typer.Option(help="Images at once, where their sizes are the same.")] = 1,
    out: Annotated[Path | None, typer.Option(help="The JSON to write; else RUN/evaluation_SPLIT.json.")] = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw the confusion matrix, to RUN/figures or beside --out.")
    ] = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Measure a retrained network over a whole split, by default val of its own data.

    Example: autoseg evaluate runs/b --split val
    """
    from autoseg.api.evaluate import evaluate as evaluate_api

    settings = options.overrides(set_)
    inference = options.inference(settings, multi_scale, scales, flip, fuse, crf, window, overlap)
    result = evaluate_api(
        run, data, split=split, inference=inference, checkpoint=checkpoint, device=device or "auto",
        precision=precision, output_stride=output_stride, batch_size=batch_size, overrides=settings, out=out, plot=plot,
    )  # fmt: skip
    options.say(*_lines(result), f"wrote {out or run / f'evaluation_{split}.json'}")


def _lines(result: dict[str, Any]) -> Iterator[str]:
    """A table of the classes, a line with mIoU, and a line with the other scores."""
    width = max(len(name) for name in result["iou"])
    yield f"{'class':<{width}}    IoU   Dice  pixels"
    for name, iou in result["iou"].items():
        share = result["pixel_share"][name]
        yield f"{name:<{width}}  {_number(iou)}  {_number(result['dice'][name])}  {_number(share, '6.1%')}".rstrip()
    interval = result["miou_interval"]
    between = f", 95% interval {interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
    size = f" at {result['size'][1]}x{result['size'][0]}" if result["size"] else ""
    yield f"mIoU {_number(result['miou'], '.4f')}{between}   ({result['images']} images of {result['split']}{size})"
    yield "   ".join(f"{label} {_number(result[key], '.4f')}" for label, key in SUMMARY.items())


def _number(value: float | None, form: str = "5.3f") -> str:
    """Format a score; None becomes a dash."""
    return f"{'-':>{form.split('.')[0] or 1}}" if value is None else format(value, form)
