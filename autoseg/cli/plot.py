"""`autoseg plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options


def plot(
    source: Annotated[str, typer.Argument(help="A run directory, a genotype, a network, or a space.")],
    out: Annotated[Path | None, typer.Option(help="The folder for the figures; else the run's figures/.")] = None,
    format: Annotated[list[str] | None, typer.Option(help="svg, png or pdf; repeatable. Else all three.")] = None,
    set_: options.SetNetwork = None,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Draw the trellis with its path, the cell, the probabilities and the curves.

    Example: autoseg plot runs/a --out figures
    """
    from autoseg.api.plot import plot as plot_api

    for path in plot_api(source, out, format or ("svg", "png", "pdf"), overrides=options.overrides(set_)):
        options.say(path)
