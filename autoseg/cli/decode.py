"""`autoseg decode`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli import options

if TYPE_CHECKING:
    from autoseg.genotype.schema import Genotype


def decode(
    run: Annotated[Path, typer.Argument(help="The directory of a search, or an .npz file of tables of any program.")],
    space: Annotated[str | None, typer.Option(help="For tables: their search space, by name or file.")] = None,
    epoch: Annotated[int | None, typer.Option(help="Decode after this epoch, counted from 0; else the last.")] = None,
    path_prior: Annotated[
        str | None, typer.Option(help="uniform or paper: how arrows are weighed against each other; else the space's.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Of several paths: the probability from which arrows stay; else the space's.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Of several paths: billions of multiply-adds a megapixel at most; else the space's."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; else RUN/genotype.yaml, or TABLES.yaml.")] = None,
    overwrite: options.Overwrite = False,
    plugin: options.Plugin = None,
    debug: options.Debug = False,
) -> None:
    """Decode what a search has found into a discrete network, a genotype.

    Example: autoseg decode runs/a

    Example: autoseg decode tables.npz --space auto_deeplab_separable
    """
    from autoseg.api.decode import decode as decode_api
    from autoseg.api.decode import default_target
    from autoseg.files import shell_quoted

    genotype = decode_api(
        run, space=space, epoch=epoch, path_prior=path_prior, threshold=threshold, budget=budget, out=out,
        overwrite=overwrite,
    )  # fmt: skip
    for name, value in _lines(genotype):
        options.say(f"{name:<5} {value}")
    for line in _evidence(genotype):
        options.say(line)
    target = out or default_target(run)
    options.say(f"wrote {target}; next: autoseg retrain {shell_quoted(target)} --data ... --out ...")


def _lines(genotype: Genotype) -> Iterator[tuple[str, str]]:
    """Path or arrows, upsamplers and skips, the decoder's upsamplers, and the cells, one item on each line."""
    from autoseg.genotype.flops import PER_BILLION_A_MEGAPIXEL, topology_cost

    if genotype.is_path:
        yield "path", f"{' '.join(map(str, genotype.network.strides))}  (output strides)"
    else:
        for layer, arrows in enumerate(genotype.network.arrows, start=1):
            yield f"l{layer}", "  ".join(arrows)
        billions = topology_cost(genotype) / PER_BILLION_A_MEGAPIXEL
        yield "cost", f"{billions:.4g} billion multiply-adds a megapixel, cells and arrows"
    for arrow in genotype.up_arrows if genotype.network.upsamplers or genotype.network.skips else ():
        strides = f"{genotype.stride(arrow.source.level)}->{genotype.stride(arrow.target.level)}"
        yield "up", f"l{arrow.target.layer} {strides} {genotype.upsampler(arrow)}, skip {genotype.skip(arrow)}"
    stages = zip(genotype.decoder_levels, genotype.decoder.upsamplers, strict=False)
    for level, upsampler in stages:
        yield "dec", f"{genotype.stride(level)}->{genotype.stride(level - 1)} {upsampler}"
    for prefix, cell in (("", genotype.cell), ("up ", genotype.up_cell or ())):
        for number, block in enumerate(cell, start=1):
            yield f"{prefix}b{number}", " + ".join(f"{edge.operation}({edge.input})" for edge in block)


def _evidence(genotype: Genotype) -> Iterator[str]:
    """The verdict on the architecture, and the names of its ties."""
    from autoseg.analysis.evidence import said_of, undecided_in
    from autoseg.files import cut

    if said := said_of(genotype):
        yield f"evidence: {said}"
    for name, ties in undecided_in(genotype).items():
        if ties:
            yield f"undecided {name}: {cut('; '.join(sorted(ties)), 300)}"
