"""Whether a search space holds a genotype."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from autoseg.errors import GenotypeError
from autoseg.genotype.schema import Cell, Genotype
from autoseg.space.schema import SearchSpace


def check_in_space(genotype: Genotype, space: SearchSpace) -> None:
    """Refuse a genotype that is not in the search space.

    Settings that a space fixes and does not search, such as the width, the stem and the decoder, may differ.
    Raises: GenotypeError: one line with the first thing that the space lacks.
    """
    lack = next(_lacking(genotype, space), None)
    if lack is not None:
        message = f"genotype '{genotype.name}' is not in space '{space.name}': {lack}"
        raise GenotypeError(message, code="genotype-not-in-space")


def _lacking(genotype: Genotype, space: SearchSpace) -> Iterator[str]:
    """What the genotype has and the space lacks."""
    yield from _of_cell(genotype.cell, "cell", space)
    if genotype.up_cell is not None:
        if space.cells == 1:
            yield "it has a cell for the up path, up_cell, but the space searches one cell for all layers"
        if genotype.network.down_layers != space.network.down_layers:
            yield (
                f"its up path begins after layer {genotype.network.down_layers}, the space's after layer"
                f" {space.network.down_layers} (network.down_layers)"
            )
        yield from _of_cell(genotype.up_cell, "up_cell", space)
    yield from _of_arrows(genotype, space)
    yield from _of_up_path(genotype, space)
    decoder = genotype.decoder.upsamplers or ("bilinear",) * len(genotype.decoder_levels)
    yield from _unknown("decoder.upsamplers", decoder, space.decoder.upsamplers)


def _of_cell(cell: Cell, where: str, space: SearchSpace) -> Iterator[str]:
    if len(cell) != space.cell.blocks:
        yield f"its {where} has {len(cell)} blocks, the space's {space.cell.blocks}"
    used = (edge.operation for block in cell for edge in block)
    yield from _unknown(where, used, space.cell.operations)


def _of_arrows(genotype: Genotype, space: SearchSpace) -> Iterator[str]:
    if genotype.layers != space.network.layers:
        yield f"it has {genotype.layers} layers, the space {space.network.layers}"
    if not genotype.is_path and space.network.paths == "single":
        yield "it has several paths, the space's networks have one (network.paths)"
    strides = space.network.strides
    legal = {(arrow.source.layer, strides[arrow.source.level], arrow.move) for arrow in space.trellis.arrows}
    for arrow in genotype.arrows:
        before, after = genotype.stride(arrow.source.level), genotype.stride(arrow.target.level)
        if (arrow.source.layer, before, arrow.move) not in legal:
            yield f"it goes from stride {before} to {after} into layer {arrow.target.layer}, and the space does not"


def _of_up_path(genotype: Genotype, space: SearchSpace) -> Iterator[str]:
    upsamplers = [genotype.upsampler(arrow) for arrow in genotype.up_arrows]
    skips = [genotype.skip(arrow) for arrow in genotype.up_arrows]
    yield from _unknown("network.upsamplers", upsamplers, space.resolution.upsamplers)
    yield from _unknown("network.skips", skips, space.resolution.skips)
    shared: dict[str, tuple[Sequence[str], str]] = {"network.skips": (skips, "resolution.skips")}
    if space.resolution.shared_by == "level":
        shared["network.upsamplers"] = upsamplers, "resolution.shared_by"
    for where, (names, setting) in shared.items():
        chosen: dict[int, str] = {}
        for arrow, name in zip(genotype.up_arrows, names, strict=True):
            level = arrow.target.level
            if chosen.setdefault(level, name) != name:
                yield (
                    f"{where} has '{chosen[level]}' and '{name}' into stride {genotype.stride(level)}, for which the"
                    f" space has one choice ({setting})"
                )


def _unknown(where: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{where} has '{name}', the space {', '.join(known)}"
