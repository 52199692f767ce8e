"""Random genotypes, uniform over paths or topologies and over cells: the baseline of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoseg.genotype.decode import INPUTS_PER_BLOCK, upsampling_of
from autoseg.genotype.multi_path import STEM_SET, ArrowSets, arrow_sets, arrows_of
from autoseg.genotype.schema import Edge, Genotype
from autoseg.space.cell import state_name
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import STEM_NODE, Arrow, Trellis


def sample_genotype(space: SearchSpace, rng: np.random.Generator | int) -> Genotype:
    """Sample a genotype of a search space uniformly.

    Every path from the stem to the last layer is equally likely, or every feasible topology, whatever its cost. (Random
    moves would favour the border strides, whose nodes have fewer arrows.) The same holds for every pair of inputs and
    every operation except `none` in each block, and for every upsampler and skip at each place with a choice.

    Args:
        space: The search space.
        rng: A random generator, which advances, or a seed.

    Returns:
        The genotype; the same seed gives the same one.

    Raises:
        ValueError: a negative seed.
    """
    seed = {} if isinstance(rng, np.random.Generator) else {"seed": int(rng)}
    generator = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
    multi = space.network.paths == "multi"
    if multi:
        arrows = sample_topology(space.trellis, generator)
    else:
        arrows = space.trellis.arrows_along(sample_path(space.trellis, generator))
    cells = [sample_cell(space, generator) for _ in range(space.cells)]
    source = {"sampled": f"uniform over {'topologies' if multi else 'paths'} and cells", **seed}
    upsampling = sample_upsampling(space, arrows, generator)
    return Genotype.of_space(space, f"{space.name}_random", cells, arrows, source, **upsampling)


def sample_upsampling(space: SearchSpace, arrows: Sequence[Arrow], rng: np.random.Generator) -> dict[str, Any]:
    """Each site's upsampler and each level's skip for the up moves among `arrows`, uniform over the competing ones."""
    gamma = [space.upsamplers.index(site.candidates[rng.integers(len(site.candidates))]) for site in space.gamma_sites]
    skips = space.resolution.skips
    levels = range(len(space.network.strides) - 1) if skips != ("none",) else ()
    return upsampling_of(space, arrows, gamma, [int(rng.integers(len(skips))) for _ in levels])


def sample_cell(space: SearchSpace, rng: np.random.Generator) -> tuple[tuple[Edge, ...], ...]:
    """Two inputs for each block, uniform over pairs, each with an operation, uniform over all except `none`."""
    operations = [operation for operation in space.cell.operations if operation != "none"]
    return tuple(
        tuple(
            Edge(input=state_name(int(state)), operation=operations[rng.integers(len(operations))])
            for state in sorted(rng.choice(block + 2, size=INPUTS_PER_BLOCK, replace=False))
        )
        for block in range(space.cell.blocks)
    )


def sample_path(trellis: Trellis, rng: np.random.Generator) -> tuple[int, ...]:
    """A path, uniform over all paths, as the levels of layers 1..L."""
    return path_at(trellis, _below(trellis.count_paths(), rng))


def path_at(trellis: Trellis, index: int) -> tuple[int, ...]:
    """The path with this number, from 0, in the lexicographic order of levels. Raises: IndexError: there is none."""
    to_go = trellis.paths_to_go()
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


def sample_topology(trellis: Trellis, rng: np.random.Generator) -> tuple[Arrow, ...]:
    """A feasible topology, uniform over all: counts from the last layer on, then draws from the stem on."""
    layers = [arrow_sets(trellis, layer) for layer in range(1, trellis.layers + 1)]
    to_go = _topologies_to_go(layers)
    chosen: list[list[Arrow]] = []
    here = STEM_SET
    for (arrows, sets, before, after), counts in zip(layers, to_go[1:], strict=True):
        index = _below(to_go[len(chosen)][here], rng)
        for reached, ways in _ways(before, after)[here].items():
            if index < ways * counts[reached]:
                break
            index -= ways * counts[reached]
        alike = sets[(before == here) & (after == reached)]
        chosen.append(arrows_of(arrows, int(alike[index // counts[reached]])))
        here = reached
    return tuple(arrow for arrows in chosen for arrow in arrows)


def count_topologies(trellis: Trellis) -> int:
    """Number of feasible topologies, exact for any size."""
    layers = [arrow_sets(trellis, layer) for layer in range(1, trellis.layers + 1)]
    return _topologies_to_go(layers)[0][STEM_SET]


def _topologies_to_go(layers: Sequence[ArrowSets]) -> list[dict[int, int]]:
    """For each layer from 0 on, the number of continuations from each reachable set of levels."""
    to_go = [dict.fromkeys(np.unique(layers[-1].after).tolist(), 1)]
    for layer in reversed(layers):
        ways, later = _ways(layer.before, layer.after), to_go[0]
        counts = {here: sum(n * later[reached] for reached, n in onward.items()) for here, onward in ways.items()}
        to_go.insert(0, counts)
    return to_go


def _ways(before: np.ndarray, after: np.ndarray) -> dict[int, dict[int, int]]:
    """For each set of levels before a layer, the number of sets of arrows that lead to each set after it."""
    ways: dict[int, dict[int, int]] = {}
    pairs, counts = np.unique(np.stack([before, after]), axis=1, return_counts=True)
    for here, reached, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
        ways.setdefault(here, {})[reached] = count
    return ways


def _below(limit: int, rng: np.random.Generator) -> int:
    """A uniform whole number from 0 to `limit` - 1, which may exceed 64 bits; redraws numbers that are too large."""
    bits = limit.bit_length()
    while True:
        number = int.from_bytes(rng.bytes((bits + 7) // 8), "little") & ((1 << bits) - 1)
        if number < limit:
            return number
