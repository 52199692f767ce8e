"""`autoseg spaces`."""

from __future__ import annotations

import typer

from autoseg.cli import options


def spaces(debug: options.Debug = False) -> None:
    """List the search spaces, genotypes and networks of the literature that autoseg knows by name.

    Example: autoseg spaces
    """
    from autoseg.genotype.schema import Genotype
    from autoseg.space.schema import SearchSpace, genotype_names, space_names
    from autoseg.zoo.schema import NETWORKS

    loaded = [SearchSpace.load(name) for name in space_names()]
    width = max(len(name) for name in (*space_names(), *genotype_names(), *NETWORKS))
    typer.echo("search spaces")
    for space in loaded:
        typer.echo(f"  {space.name:<{width}}  {space.description}")
    typer.echo("genotypes")
    for name in genotype_names():
        typer.echo(f"  {name:<{width}}  {Genotype.load(name).source.get('paper', '')}")
    typer.echo("networks of the literature")
    for name, entry in NETWORKS.items():
        typer.echo(f"  {name:<{width}}  {entry.paper}")
