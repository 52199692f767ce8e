"""Changing and listing the genes of a wide space (`autoseg.genotype.genes`). Pure functions, without torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from autoseg.errors import SearchSpaceError
from autoseg.genotype.genes import FREE, Genes, genotype_of, key_of, label_of, macro_of, options_of
from autoseg.genotype.sample import draw_gene, one_of, sample_genes
from autoseg.space.schema import SearchSpace

__all__ = [
    "Genes",
    "enumerate_genes",
    "genotype_of",
    "key_of",
    "label_of",
    "macro_of",
    "mutate",
    "options_of",
    "sample_genes",
]

TRIES = 100
"""Draws of a changed gene before it is given up: two genes may make the same network."""


def mutate(space: SearchSpace, genes: Genes, rng: np.random.Generator) -> Genes:
    """Genes of which one is another, drawn uniformly among those with a choice; the network they make is another.

    A path or topology that does not begin at a new stem's stride is drawn anew.
    Raises: SearchSpaceError: the space has one network.
    """
    options = options_of(space)
    names = [name for name, known in options.items() if known is FREE or len(known) > 1]
    before = key_of(genotype_of(space, genes))
    for _ in range(TRIES if names else 0):
        name = one_of(names, rng)
        known, changed = options[name], dict(genes)
        changed[name] = draw_gene(space, name, genes, rng) if known is FREE else one_of(known, rng)
        if name == "stem" and options["network"] is FREE and changed["stem"].stride != genes["stem"].stride:
            changed["network"] = draw_gene(space, "network", changed, rng)
        if key_of(genotype_of(space, changed)) != before:
            return changed
    raise SearchSpaceError(f"space '{space.name}' has no second network; give it more options", code="space-too-small")


def enumerate_genes(space: SearchSpace) -> Iterator[Genes]:
    """Every combination of options, the last gene changing first. Raises: SearchSpaceError: they cannot be listed."""
    options = options_of(space)
    free = [name for name, known in options.items() if known is FREE]
    if free:
        raise SearchSpaceError(
            f"the networks of space '{space.name}' cannot be listed: {' and '.join(free)} is drawn; name its options in"
            " macro.networks and macro.cells",
            code="space-not-listed",
        )
    lists = [known for known in options.values() if known is not FREE]
    return (dict(zip(options, combination, strict=True)) for combination in itertools.product(*lists))
