"""Random genotypes, uniform over paths or topologies and over cells: the baseline of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoseg.genotype.decode import upsampling_of
from autoseg.genotype.design import genotype_of, sample_genes
from autoseg.genotype.draws import sample_cell, sample_path, sample_topology
from autoseg.genotype.schema import Genotype
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow


def sample_genotype(space: SearchSpace, rng: np.random.Generator | int) -> Genotype:
    """Sample a genotype of a search space uniformly.

    Every path from the stem to the last layer is equally likely, or every feasible topology, whatever its cost. (Random
    moves would favour the border strides, whose nodes have fewer arrows.) The same holds for every pair of inputs and
    every operation except `none` in each block, and for every upsampler and skip at each place with a choice. In a wide
    space each gene is drawn uniformly (`design.sample_genes`), and the network is not yet scaled to a cost.

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
    if space.macro is not None:
        source = {"sampled": "each gene uniform", **seed}
        return genotype_of(space, sample_genes(space, generator), f"{space.name}_random", source=source)
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
