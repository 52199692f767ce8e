"""`autoseg export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options


def export(
    source: Annotated[str, typer.Argument(help="The directory of a retraining; for a genotype also a file or a name.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    format: Annotated[str, typer.Option(help="onnx, pt2 or safetensors; of a genotype json, graphml or dot.")],
    checkpoint: options.Checkpoint = "best",
    overwrite: options.Overwrite = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Export a retrained network, checked against the network itself, or a genotype.

    Example: autoseg export runs/b --format onnx --out model.onnx
    """
    from autoseg.api.export import export_model

    options.say(export_model(source, out, format, checkpoint=checkpoint, overwrite=overwrite))
