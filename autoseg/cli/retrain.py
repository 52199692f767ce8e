"""`autoseg retrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options


def retrain(
    out: Annotated[Path, typer.Option(help="The run directory to make.")],
    genotype: Annotated[str | None, typer.Argument(help="A genotype: file, searched run, or name.")] = None,
    data: options.Data = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    device: options.Device = None,
    seed: options.Seed = None,
    resume: options.Resume = False,
    debug: options.Debug = False,
) -> None:
    """Train the network of a genotype from scratch.

    Example: autoseg retrain runs/a/genotype.yaml --data generated --out runs/b
    """
    from autoseg.api.runs import retrain as retrain_api

    run = retrain_api(
        genotype, data, out, config=config, overrides=options.overrides(set_, device, seed), resume=resume
    )
    values = [row["miou"] or 0.0 for row in run.metrics() if row["kind"] == "val"]
    typer.echo(
        f"retrained {run.path}: val mIoU {values[-1]:.3f} at the end, best {max(values):.3f};"
        f" next: autoseg evaluate {run.path}"
    )
