"""`autoseg spaces`: the names that autoseg knows."""

from __future__ import annotations

from autoseg.genotype.schema import Genotype
from autoseg.registry import NETWORKS
from autoseg.space.schema import SearchSpace, genotype_names, space_names


def known_names() -> dict[str, dict[str, str]]:
    """Kind -> name -> description or paper of all search spaces, genotypes and networks of the literature."""
    return {
        "search spaces": {name: SearchSpace.load(name).description for name in space_names()},
        "genotypes": {name: Genotype.load(name).source.get("paper", "") for name in genotype_names()},
        "networks of the literature": {name: entry.paper for name, entry in NETWORKS.items()},
    }
