"""`autoseg search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options


def search(
    out: Annotated[Path, typer.Option(help="The run directory to make.")],
    space: Annotated[str | None, typer.Option(help="A search space by name (see `autoseg spaces`) or file.")] = None,
    data: options.Data = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    device: options.Device = None,
    seed: options.Seed = None,
    quick: options.Quick = False,
    resume: options.Resume = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Search a network by gradient: weights on one half of the training set, architecture on the other.

    Example: autoseg search --space tiny --data generated --out runs/a
    """
    from autoseg.api.search import search as search_api
    from autoseg.files import shell_quoted

    run = search_api(
        space, data, out, config=config, overrides=options.overrides(set_, device, seed), quick=quick, resume=resume
    )
    best = max((row["miou"] or 0.0 for row in run.metrics() if row["kind"] == "val"), default=0.0)
    options.say(
        f"searched {run.path}: best val mIoU of the supernet {best:.3f}; next: autoseg decode {shell_quoted(run.path)}"
    )
