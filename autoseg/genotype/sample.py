"""Random genotypes, uniform over paths and over cells: what a search is compared with."""

from __future__ import annotations

import numpy as np

from autoseg.genotype.decode import INPUTS_PER_BLOCK
from autoseg.genotype.schema import Edge, Genotype
from autoseg.space.cell import state_name
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import STEM_NODE, Node, Trellis


def sample_genotype(space: SearchSpace, rng: np.random.Generator | int) -> Genotype:
    """A random genotype of `space`; `rng` is a generator, which it advances, or a seed.

    Every path from the stem to the last layer is equally likely (random moves would favour the border strides, whose
    nodes have fewer arrows), and so is every pair of inputs and every operation other than `none`, in each block.
    """
    seed = {} if isinstance(rng, np.random.Generator) else {"seed": int(rng)}
    generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
    arrows = space.trellis.arrows_along(sample_path(space.trellis, generator))
    cells = [sample_cell(space, generator) for _ in range(space.cells)]
    source = {"sampled": "uniform over paths and cells", **seed}
    return Genotype.of_space(space, f"{space.name}_random", cells, arrows, source)


def sample_cell(space: SearchSpace, rng: np.random.Generator) -> tuple[tuple[Edge, ...], ...]:
    """For each block two inputs, uniform over the pairs, each with an operation, uniform over those but `none`."""
    operations = [operation for operation in space.cell.operations if operation != "none"]
    return tuple(
        tuple(
            Edge(input=state_name(int(state)), operation=operations[rng.integers(len(operations))])
            for state in sorted(rng.choice(block + 2, size=INPUTS_PER_BLOCK, replace=False))
        )
        for block in range(space.cell.blocks)
    )


def sample_path(trellis: Trellis, rng: np.random.Generator) -> tuple[int, ...]:
    """A path, uniform over all, as the levels of layers 1..L."""
    return path_at(trellis, _below(trellis.count_paths(), rng))


def path_at(trellis: Trellis, index: int) -> tuple[int, ...]:
    """The path with this number, from 0, in the order of `trellis.paths()`; found from counts, without listing them.

    Raises: IndexError: there are not so many paths.
    """
    to_go = _paths_to_go(trellis)
    if not 0 <= index < to_go[STEM_NODE]:
        raise IndexError(f"there is no path {index}; there are {to_go[STEM_NODE]}, counted from 0")
    node, levels = STEM_NODE, []
    while node.layer < trellis.layers:
        for arrow in trellis.arrows_from(node):
            node = arrow.target
            if index < to_go[node]:
                break
            index -= to_go[node]
        levels.append(node.level)
    return tuple(levels)


def _paths_to_go(trellis: Trellis) -> dict[Node, int]:
    """Number of paths from each node to the last layer, exact however large."""
    counts = {node: 1 for node in trellis.nodes_at(trellis.layers)}
    for layer in reversed(range(trellis.layers)):
        for node in trellis.nodes_at(layer):
            counts[node] = sum(counts[arrow.target] for arrow in trellis.arrows_from(node))
    return counts


def _below(limit: int, rng: np.random.Generator) -> int:
    """A uniform whole number from 0 to `limit` - 1, which may be beyond 64 bits: draws too large are drawn again."""
    bits = limit.bit_length()
    while True:
        number = int.from_bytes(rng.bytes((bits + 7) // 8), "little") & ((1 << bits) - 1)
        if number < limit:
            return number
