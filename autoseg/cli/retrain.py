"""`autoseg retrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import options
from autoseg.errors import ConfigError
from autoseg.files import shell_quoted, user_path


def retrain(
    out: Annotated[Path, typer.Option(help="The run directory to make.")],
    genotype: Annotated[
        str | None, typer.Argument(help="A genotype or network: file, searched run, or name (see `autoseg spaces`).")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="A network of the literature, such as deeplabv3plus_resnet101.")
    ] = None,
    match_cost: options.MatchCost = None,
    match: options.Match = "parameters",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Start from the weights of a retrained run; or, for the backbone, from a file of ImageNet weights"
            " (torchvision's names)."
        ),
    ] = None,
    warm_start: Annotated[
        Path | None,
        typer.Option(help="Start from the weights of this search's supernet; without a genotype, train its own."),
    ] = None,
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
    """Train a network from scratch: that of a genotype, or one of the literature.

    Example: autoseg retrain runs/a/genotype.yaml --data generated --out runs/b

    Example: autoseg retrain --network unet --match-cost runs/a --data generated --out runs/c

    Example: autoseg retrain --weights runs/b --data photos/ --out runs/d

    Example: autoseg retrain --warm-start runs/a --set genotype.network.filter_multiplier=8 --data photos/ --out runs/e
    """
    from autoseg.api.retrain import retrain as retrain_api
    from autoseg.zoo.match_cost import cost_target

    if genotype is not None and network is not None:
        raise ConfigError(
            f"both {genotype} and --network {network} are given; give one of them", code="options-conflict"
        )
    overrides = options.overrides(set_, device, seed)
    for key, path in (("weights", weights), ("warm_start", warm_start)):
        if path is not None:
            overrides[key] = str(user_path(path).absolute())
    run = retrain_api(
        genotype or network, data, out, config=config, overrides=overrides, quick=quick, resume=resume,
        match=None if match_cost is None else cost_target(match_cost, match),
    )  # fmt: skip
    values = [row["miou"] or 0.0 for row in run.metrics() if row["kind"] == "val"]
    options.say(
        f"retrained {run.path}: val mIoU {values[-1]:.3f} at the end, best {max(values):.3f};"
        f" next: autoseg evaluate {shell_quoted(run.path)}"
    )
