"""The number of networks of a wide space, without listing them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from autoseg.genotype.design import FREE, macro_of, options_of
from autoseg.genotype.schema import decoder_levels
from autoseg.registry import CELL
from autoseg.space.arrows import network_arrows
from autoseg.space.groups import DecoderSpec, StemSpec
from autoseg.space.macro import NamedNetwork
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Move


class Shape(NamedTuple):
    """What the other choices of a network depend on."""

    levels: int
    end_level: int
    """The level at which the decoder begins."""
    goes_up: bool


def count_cells(space: SearchSpace) -> int:
    """Discrete cells of a space: two inputs with an operation each in every block, in any of its cells."""
    choices = len(set(space.cell.operations) - {"none"})
    one = math.prod((block + 2) * (block + 1) // 2 * choices**2 for block in range(space.cell.blocks))
    cells: int = one**space.cells
    return cells


def count_networks(space: SearchSpace) -> int | None:
    """Number of different networks of a wide space, before they are scaled to a cost.

    Two genes may make one network: a level without nodes has a width too, and a cell one depth. None if topologies of
    several paths are drawn, which are not counted. Raises: SearchSpaceError: the space is not wide.
    """
    macro, options = macro_of(space), options_of(space)
    if options["network"] is FREE and "multi" in (macro.paths or (space.network.paths,)):
        return None
    total, stems = 0, {stem.stride: stem for stem in options["stem"] or ()}  # all else depends on a stem's stride
    times = Counter(stem.stride for stem in options["stem"] or ())
    for stride, stem in stems.items():
        for shape, number in _shapes(space, stem).items():
            stages, decoders = _count_stages(space, stem, shape.levels), _count_decoders(space, stem, shape)
            total += times[stride] * number * stages * decoders
    return total


def _shapes(space: SearchSpace, stem: StemSpec) -> Counter[Shape]:
    """Number of paths or topologies of each shape."""
    macro, named = macro_of(space), options_of(space)["network"]
    if named is not FREE:
        return Counter(_shape_of(arrows) for arrows in {_arrows(network, stem) for network in named})
    levels = (space.network.strides[-1] // stem.stride).bit_length()
    moves = [move.step for move in Move if move.name.lower() in space.network.moves]
    found: Counter[Shape] = Counter()
    here = Counter({Shape(1, 0, False): 1})
    layers = macro.layers or (space.network.layers,)
    for layer in range(1, 1 + max(layers)):
        there: Counter[Shape] = Counter()
        for (most, level, goes_up), number in here.items():
            for step in moves:
                if 0 <= level + step < levels:
                    there[Shape(max(most, level + step + 1), level + step, goes_up or step < 0)] += number
        here = there
        if layer in layers:
            found += here
    return found


def _arrows(network: NamedNetwork, stem: StemSpec) -> frozenset[tuple[tuple[int, int], tuple[int, int]]]:
    return frozenset(arrow[:2] for arrow in network_arrows(network.strides, network.arrows, stem.stride))


def _shape_of(arrows: frozenset[tuple[tuple[int, int], tuple[int, int]]]) -> Shape:
    nodes = [target for _, target in arrows]
    last = max(layer for layer, _ in nodes)
    end_level = min(level for layer, level in nodes if layer == last)
    goes_up = any(target[1] < source[1] for source, target in arrows)
    return Shape(1 + max(level for _, level in nodes), end_level, goes_up)


def _count_stages(space: SearchSpace, stem: StemSpec, levels: int) -> int:
    """Number of different stages of all levels, each with the cells that a network of them may have."""
    macro, cells = macro_of(space), options_of(space).get("cell", ())
    blocks = {(block, 1 if block == CELL else depth) for block in macro.blocks for depth in macro.depths}
    places = 1 if macro.shared_by == "network" else levels
    without = sum(block != CELL for block, _ in blocks) ** places
    number_of_cells = count_cells(space) if cells is FREE else len(set(cells))
    stages: int = without + (len(blocks) ** places - without) * number_of_cells
    return _count_widths(space, stem, levels) * stages


def _count_widths(space: SearchSpace, stem: StemSpec, levels: int) -> int:
    macro = macro_of(space)

    def filters(width: float, level: int) -> int:
        stride = stem.stride << level
        f = space.decoding.filter_multiplier or space.network.filter_multiplier
        return max(1, round(f * width * stride / space.network.strides[0]))

    if macro.profiles:
        return len(
            {tuple(filters(profile.widths[level], level) for level in range(levels)) for profile in macro.profiles}
        )
    return math.prod(len({filters(width, level) for width in macro.widths}) for level in range(levels))


def _count_decoders(space: SearchSpace, stem: StemSpec, shape: Shape) -> int:
    """Number of decoders, each with the upsamplers of a network that has a place for one."""
    return sum(
        len(macro_of(space).upsamplers) if shape.goes_up or doublings else 1
        for doublings in _doublings(space, stem, shape.end_level)
    )


def _doublings(space: SearchSpace, stem: StemSpec, end_level: int) -> Iterator[tuple[int, ...]]:
    for decoder in options_of(space)["decoder"] or ():
        assert isinstance(decoder, DecoderSpec)
        yield decoder_levels(space.model_copy(update={"decoder": decoder, "stem": stem}), end_level)
