"""`autoseg decode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options


def decode(
    run: Annotated[Path, typer.Argument(help="The directory of a search.")],
    epoch: Annotated[int | None, typer.Option(help="Decode after this epoch, counted from 0; else the last.")] = None,
    path_prior: Annotated[
        str | None, typer.Option(help="uniform or paper: how arrows are weighed against each other; else the space's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; else RUN/genotype.yaml.")] = None,
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Decode what a search has found into a discrete network, a genotype.

    Example: autoseg decode runs/a
    """
    from autoseg.api.decoding import decode as decode_api

    genotype = decode_api(run, epoch=epoch, path_prior=path_prior, out=out, overwrite=overwrite)
    typer.echo(f"path  {' '.join(map(str, genotype.network.strides))}  (output strides)")
    for number, block in enumerate(genotype.cell, start=1):
        typer.echo(f"b{number}    " + " + ".join(f"{edge.operation}({edge.input})" for edge in block))
    target = out or run / "genotype.yaml"
    typer.echo(f"wrote {target}; next: autoseg retrain {target} --data ... --out ...")
