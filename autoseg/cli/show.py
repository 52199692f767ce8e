"""`autoseg show`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoseg.cli import options


def show(
    source: Annotated[str, typer.Argument(help="A space or genotype, by name or file, or a run with a genotype.")],
    classes: Annotated[int, typer.Option(help="Number of classes to count with.")] = 19,
    size: Annotated[
        tuple[int, int] | None, typer.Option(help="Height and width to count multiply-adds at.", metavar="H W")
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Tell what is in a space or genotype: cells, paths, edges, parameters, multiply-adds.

    Example: autoseg show auto_deeplab
    """
    from autoseg.api.describe import describe

    for name, value in describe(source, classes, size).items():
        typer.echo(f"{name:<14}{value}")
