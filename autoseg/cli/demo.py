"""`autoseg demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options


def demo(
    out: Annotated[Path, typer.Option(help="The folder to make.")] = Path("runs/demo"),
    set_: options.Set = None,
    device: options.Device = None,
    seed: options.Seed = None,
    debug: options.Debug = False,
) -> None:
    """Go the whole way on generated images: search, decode, retrain, evaluate, draw. Minutes on two CPU cores.

    Example: autoseg demo --out runs/demo
    """
    from autoseg.api.demo import demo as demo_api

    options.say(*demo_api(out, overrides=options.overrides(set_, device, seed)).split("\n"))
