"""`autoseg spaces`."""

from __future__ import annotations

import typer

from autoseg.cli import options


def spaces(debug: options.Debug = False) -> None:
    """List the search spaces and published networks that autoseg knows by name.

    Example: autoseg spaces
    """
    from autoseg.genotype.schema import Genotype
    from autoseg.space.schema import SearchSpace, genotype_names, space_names

    loaded = [SearchSpace.load(name) for name in space_names()]
    width = max(len(name) for name in (*space_names(), *genotype_names()))
    typer.echo("search spaces")
    for space in loaded:
        typer.echo(f"  {space.name:<{width}}  {space.description}")
    typer.echo("networks")
    for name in genotype_names():
        typer.echo(f"  {name:<{width}}  {Genotype.load(name).source.get('paper', '')}")
