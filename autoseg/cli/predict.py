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
    checkpoint: options.Checkpoint = "best",
    device: options.Device = None,
    precision: options.Precision = "float32",
    debug: options.Debug = False,
) -> None:
    """Label images with a retrained network: palette PNGs and overlays, at each image's size.

    Example: autoseg predict runs/b photos/ --out predictions
    """
    from autoseg.api.use import predict as predict_api

    files = predict_api(run, images, out, checkpoint=checkpoint, device=device or "auto", precision=precision)
    typer.echo(f"wrote {len(files)} label maps to {out / 'labels'} and overlays to {out / 'overlays'}")
