"""`autoseg predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options


def predict(
    run: Annotated[Path, typer.Argument(help="The directory of a retraining.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option(help="The folder for labels/ and overlays/.")],
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
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Label images with a retrained network: palette PNGs and overlays, at each image's size.

    Example: autoseg predict runs/b photos/ --out predictions
    """
    from autoseg.api.predict import predict as predict_api
    from autoseg.config.base import refuse_others

    settings = options.overrides(set_)
    inference = options.inference(settings, multi_scale, scales, flip, fuse, crf, window, overlap)
    refuse_others(settings, "crf", "crf.iterations")
    files = predict_api(
        run, images, out, inference=inference, checkpoint=checkpoint, device=device or "auto", precision=precision,
        output_stride=output_stride,
    )  # fmt: skip
    typer.echo(f"wrote {len(files)} label maps to {out / 'labels'} and overlays to {out / 'overlays'}")
