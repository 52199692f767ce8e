"""`autoseg predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options


def predict(
    run: Annotated[Path, typer.Argument(help="The directory of a retraining.")],
    images: Annotated[
        list[str],
        typer.Argument(help="Images, folders, patterns ('photos/*.jpg'), lists (.txt, .csv), or - for standard input."),
    ],
    out: Annotated[Path, typer.Option(help="The folder for labels/ and overlays/.")],
    labels: Annotated[
        str,
        typer.Option(
            help="classes: 0, 1, ...; stored: the labels of the training masks; auto: stored if these are in colour."
        ),
    ] = "auto",
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write probabilities/NAME.npy too: (classes, H, W).")
    ] = False,
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
    if "-" in images:
        listed = [line.strip() for line in sys.stdin if line.strip()]
        images = [source for given in images for source in (listed if given == "-" else [given])]
    files = predict_api(
        run, images, out, labels=labels, probabilities=probabilities,  # type: ignore[arg-type]
        inference=inference, checkpoint=checkpoint, device=device or "auto", precision=precision,
        output_stride=output_stride,
    )  # fmt: skip
    options.say(f"wrote {len(files)} label maps to {out / 'labels'} and overlays to {out / 'overlays'}")
