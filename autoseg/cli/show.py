"""`autoseg show`."""

from __future__ import annotations

from typing import Annotated

import typer

from autoseg.cli import options


def show(
    source: Annotated[
        str, typer.Argument(help="A space, genotype or network, by name or file, or a run with a network.")
    ],
    classes: Annotated[int, typer.Option(help="Number of classes to count with.")] = 19,
    size: Annotated[
        tuple[int, int] | None, typer.Option(help="Height and width to count multiply-adds at.", metavar="H W")
    ] = None,
    match_cost: options.MatchCost = None,
    match: options.Match = "parameters",
    set_: options.SetNetwork = None,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Tell what is in a space, genotype or network: cells, paths, stages, parameters, multiply-adds, receptive field.

    Example: autoseg show auto_deeplab

    Example: autoseg show deeplabv3plus_resnet101 --set network.output_stride=8 --size 512 512
    """
    from autoseg.api.show import describe
    from autoseg.zoo.match_cost import cost_target

    target = None if match_cost is None else cost_target(match_cost, match)
    for number, found in enumerate(describe(source, classes, size, overrides=options.overrides(set_), match=target)):
        if number:
            options.say("")
        width = max(14, *(len(name) + 1 for name in found))
        for name, value in found.items():
            options.say(f"{name:<{width}}{value}")
