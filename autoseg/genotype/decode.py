"""From probabilities to a genotype: pure functions of arrays, with no device, file or random number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from autoseg.errors import GenotypeError
from autoseg.genotype.schema import Edge, Genotype
from autoseg.space.arch_probs import ArchProbs
from autoseg.space.cell import CellTopology, state_name
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import STEM_NODE, Arrow, Node, Trellis

INPUTS_PER_BLOCK = 2
PATH_PRIORS = ("uniform", "paper")
TIE = 1e-9
"""Two log-probabilities that differ by less are a tie: sums in another order differ by rounding."""


def decode(
    probs: ArchProbs,
    *,
    path_prior: str | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    retrain: Mapping[str, Any] | None = None,
) -> Genotype:
    """The genotype that a search has arrived at (Auto-DeepLab, section 3.3).

    `path_prior` (`uniform` or `paper`) is the space's unless given. Ties go to the operation named first, the input
    that comes first, and the path that stays at the higher resolution where paths first differ.
    """
    space = probs.space
    prior = path_prior or space.decoding.path_prior
    levels = decode_path(probs.beta_probs, space.trellis, prior)
    return Genotype.of_space(
        space,
        name or f"{space.name}_decoded",
        decode_cell(probs.alpha_probs, space, probs.edge_probs),
        levels,
        {"path_prior": prior, **(source or {})},
        retrain,
    )


def decode_cell(
    alpha_probs: np.ndarray, space: SearchSpace, edge_probs: np.ndarray | None = None
) -> tuple[tuple[Edge, ...], ...]:
    """Each block keeps the two inputs of greatest strength, each with its best operation; `none` counts for neither.

    alpha_probs: [edge, operation]. The strength of an edge is its greatest probability of an operation but `none`,
    times the edge's own where there is one, edge_probs [edge] (PC-DARTS, section 3.3).
    """
    topology: CellTopology = space.topology
    allowed = [column for column, operation in enumerate(space.cell.operations) if operation != "none"]
    strengths = alpha_probs[:, allowed].max(-1) * (1 if edge_probs is None else edge_probs)
    best = alpha_probs[:, allowed].argmax(-1)  # the first of equals
    cell = []
    for block in range(topology.blocks):
        ranked = sorted(topology.edges_into(block), key=lambda edge: (-strengths[edge], edge))
        cell.append(
            tuple(
                Edge(
                    input=state_name(topology.edges[edge][1]),
                    operation=space.cell.operations[allowed[int(best[edge])]],
                )
                for edge in sorted(ranked[:INPUTS_PER_BLOCK])
            )
        )
    return tuple(cell)


def decode_path(beta_probs: np.ndarray, trellis: Trellis, path_prior: str = "uniform") -> tuple[int, ...]:
    """The most probable path from the stem to the last layer, as the levels of layers 1..L, by Viterbi.

    beta_probs: [layer, level, move]. `paper` maximises the product of the probabilities. As border nodes share theirs
    among fewer arrows, it prefers the borders when nothing is learned; `uniform` (our default, a departure from the
    paper) multiplies each probability by the number of arrows leaving its node, so that equal logits make all paths
    tie. Of paths that tie, the first in lexicographic order of levels is returned.
    Raises: GenotypeError: a path prior that there is not.
    """
    if path_prior not in PATH_PRIORS:
        raise GenotypeError(f"unknown path prior {path_prior!r} (known: {', '.join(PATH_PRIORS)})")
    to_go: dict[Node, float] = {node: 0.0 for node in trellis.nodes_at(trellis.layers)}
    for layer in reversed(range(trellis.layers)):
        for node in trellis.nodes_at(layer):
            to_go[node] = max(
                arrow_score(beta_probs, trellis, arrow, path_prior) + to_go[arrow.target]
                for arrow in trellis.arrows_from(node)
            )
    node, so_far, levels = STEM_NODE, 0.0, []
    while node.layer < trellis.layers:
        for arrow in trellis.arrows_from(node):
            score = so_far + arrow_score(beta_probs, trellis, arrow, path_prior)
            if score + to_go[arrow.target] >= to_go[STEM_NODE] - TIE:  # the whole path, or every layer may lose a TIE
                break
        node, so_far = arrow.target, score
        levels.append(node.level)
    return tuple(levels)


def arrow_score(beta_probs: np.ndarray, trellis: Trellis, arrow: Arrow, path_prior: str) -> float:
    """The log-probability that an arrow adds to its path, with the correction of `path_prior`."""
    probability = float(beta_probs[arrow.source.layer, arrow.source.level, arrow.move])
    if path_prior == "uniform":
        probability *= len(trellis.arrows_from(arrow.source))
    return float(np.log(probability)) if probability > 0 else -float("inf")
