"""From probabilities to a genotype: pure functions of arrays, with no device, file or random number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from autoseg.errors import GenotypeError
from autoseg.genotype.design import FREE, Genes, genotype_of, network_of, options_of
from autoseg.genotype.held import check_relaxable, held_genes, relaxed_networks
from autoseg.genotype.multi_path import arrow_scores, decode_topology
from autoseg.genotype.schema import Cell, Edge, Genotype, decoder_levels
from autoseg.space.cell import INPUTS_PER_BLOCK, CellTopology, state_name
from autoseg.space.resolution import Skip
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs
from autoseg.space.trellis import STEM_NODE, Arrow, Move, Node, Trellis

PATH_PRIORS = ("uniform", "paper")
TIE = 1e-9
"""Two log-probabilities that differ by less are a tie: sums in another order differ by rounding."""


def decode(
    probs: ArchProbs,
    *,
    path_prior: str | None = None,
    threshold: float | None = None,
    budget: float | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    retrain: Mapping[str, Any] | None = None,
) -> Genotype:
    """The genotype that a search found (Auto-DeepLab, section 3.3; with several paths DiNTS, section 3.3).

    Ties go to the operation, upsampler or skip that the space names first, to the first input, and to the path with the
    higher resolution at the first difference.

    In a wide space the most probable block, depth and width of each level or of the network, or profile; and if it
    names its networks, the best of these (`decode_network`). What the search holds fixed is `held_genes`. Filters are
    those of the space, not yet scaled to `macro.cost`.

    path_prior: `uniform` or `paper`, for a single path. threshold, budget: for several paths. Default: the space's.
    Raises: GenotypeError, SearchSpaceError: a setting that is wrong, for the other kind of network, or too small.
    """
    space = with_decoding(probs.space, path_prior=path_prior, threshold=threshold, budget=budget)
    how: dict[str, Any] = {"path_prior": space.decoding.path_prior}
    if space.network.paths == "multi":
        how = {"threshold": space.decoding.threshold}
        if space.decoding.budget is not None:
            how["budget"] = space.decoding.budget
    cells, arrows = decode_cells(probs), decode_network(probs, space)
    upsampling = decode_upsampling(probs, arrows)
    name, origin = name or f"{space.name}_decoded", {**how, **(source or {})}
    if space.macro is None:
        return Genotype.of_space(space, name, cells, arrows, origin, retrain, **upsampling)
    genes = decode_genes(probs, cells, arrows)
    return genotype_of(space, genes, name, retrain, origin, upsampling if "upsampler" not in genes else None)


def decode_network(probs: ArchProbs, space: SearchSpace) -> tuple[Arrow, ...]:
    """The arrows of the network that a search found: its path by Viterbi, or its topology.

    Where a wide space names its networks, the best of these: for several paths by the sum of `arrow_scores`, else by
    the mean log-probability of an arrow with the path prior (`arrow_score`). All paths have as many arrows, so among
    them this is the most probable one; a topology, whose arrows no single path takes, is compared by the same mean.

    space: that of `probs`, perhaps with other settings of decoding. Raises: see `decode`.
    """
    trellis, prior, multi = space.trellis, space.decoding.path_prior, space.network.paths == "multi"
    if space.macro is not None and space.macro.networks:
        check_relaxable(space)
        if multi:
            of_arrow = arrow_scores(probs.beta_probs, space)
        else:
            of_arrow = {arrow: arrow_score(probs.beta_probs, trellis, arrow, prior) for arrow in trellis.arrows}
        found = [arrows for _, arrows in relaxed_networks(space)]
        scores = [sum(of_arrow[arrow] for arrow in arrows) / (1 if multi else len(arrows)) for arrows in found]
        return next(arrows for arrows, score in zip(found, scores, strict=True) if score >= max(scores) - TIE)
    if multi:
        return decode_topology(probs.beta_probs, space, decode_cells(probs), _up_choices(probs))
    return trellis.arrows_along(decode_path(probs.beta_probs, trellis, prior))


def decode_genes(probs: ArchProbs, cells: Sequence[Cell], arrows: Sequence[Arrow]) -> Genes:
    """The genes of a wide space that a search found, but for the upsampler where upsamplers compete.

    cells: the searched cell, if there is one. arrows: of the network.
    """
    space = probs.space
    check_relaxable(space)
    genes: dict[str, Any] = {**held_genes(space), **({"cell": cells[0]} if cells else {})}
    named = [network for network, theirs in relaxed_networks(space) if set(theirs) == set(arrows)]
    strides, is_path = space.network.strides, space.network.paths == "single"
    genes["network"] = named[0] if named else network_of(arrows, strides, is_path)
    for gene, options in options_of(space).items():
        table, _, stride = gene.partition(" ")
        if table not in ("block", "depth", "width") or (stride and int(stride) not in strides) or options is FREE:
            continue
        genes[gene] = options[0]
        if table in space.macro_tables:
            row = strides.index(int(stride)) if stride else 0
            genes[gene] = options[int(getattr(probs, f"{table}_probs")[row].argmax())]
    return genes


def with_decoding(space: SearchSpace, **given: Any) -> SearchSpace:
    """The space with the given decoding settings."""
    changes = {key: value for key, value in given.items() if value is not None}
    multi = space.network.paths == "multi"
    for key in changes:
        if (key == "path_prior") == multi:
            raise GenotypeError(
                f"{key} is for networks of {'a single path' if multi else 'several paths'}, and space '{space.name}'"
                f" has network.paths {space.network.paths}; leave it out",
                code="setting-not-for-space",
            )
    if not changes:
        return space
    _check_prior(changes.get("path_prior", space.decoding.path_prior))
    data = space.to_dict()
    return SearchSpace.parse({**data, "decoding": {**data["decoding"], **changes}})


def decode_cells(probs: ArchProbs) -> list[Cell]:
    """The cell of the space, or those of its down path and up path; none if no operations compete."""
    if not probs.space.searches_cell:
        return []
    alphas = np.split(probs.alpha_probs, probs.space.cells)
    edges = [None] * len(alphas) if probs.edge_probs is None else np.split(probs.edge_probs, len(alphas))
    return [decode_cell(alpha, probs.space, of_edges) for alpha, of_edges in zip(alphas, edges, strict=True)]


def decode_upsampling(probs: ArchProbs, arrows: Sequence[Arrow]) -> dict[str, Any]:
    """The most probable upsampler and skip of each up move in `arrows`, and upsampler of each stage of the decoder."""
    gamma, skips = ([] if of is None else of.argmax(-1).tolist() for of in (probs.gamma_probs, probs.skip_probs))
    return upsampling_of(probs.space, arrows, gamma, skips)


def upsampling_of(
    space: SearchSpace, arrows: Sequence[Arrow], gamma: Sequence[int], skips: Sequence[int]
) -> dict[str, Any]:
    """What `Genotype.of_space` takes for the up moves among `arrows`, by the choice of each site and level.

    gamma: for each of `space.gamma_sites`, the column of `space.upsamplers`. skips: for each level, the column of
    `space.resolution.skips`. Each is empty if nothing competes.
    """
    up_moves = [arrow for arrow in sorted(arrows) if arrow.move is Move.UP]
    found: dict[str, Any] = {}
    rows = [row for arrow in up_moves if (row := space.gamma_row(arrow)) is not None]
    if rows:
        found["upsamplers"] = [space.upsamplers[gamma[row]] for row in rows]
    if space.decoder_stages:
        end = min(arrow.target.level for arrow in arrows if arrow.target.layer == space.network.layers)
        stages = [space.decoder_row(level) for level in decoder_levels(space, end)]
        found["decoder_upsamplers"] = [space.upsamplers[gamma[row]] for row in stages]
    if skips:
        found["skips"] = [space.resolution.skips[skips[arrow.target.level]] for arrow in up_moves]
    return found


def _up_choices(probs: ArchProbs) -> dict[Arrow, tuple[str, Skip]]:
    """The upsampler and skip of every up move of the trellis."""
    up_moves = [arrow for arrow in sorted(probs.space.trellis.arrows) if arrow.move is Move.UP]
    found = decode_upsampling(probs, probs.space.trellis.arrows)
    names = (found.get(key, [plain] * len(up_moves)) for key, plain in (("upsamplers", "bilinear"), ("skips", "none")))
    return dict(zip(up_moves, zip(*names, strict=True), strict=True))


def decode_cell(alpha_probs: np.ndarray, space: SearchSpace, edge_probs: np.ndarray | None = None) -> Cell:
    """Each block keeps its two strongest inputs, each with its best operation; `none` does not count.

    alpha_probs: [edge, operation]. The strength of an edge is its greatest probability of an operation except `none`,
    times its edge_probs [edge] if given (PC-DARTS, section 3.3).
    """
    topology: CellTopology = space.topology
    allowed = [column for column, operation in enumerate(space.cell.operations) if operation != "none"]
    strengths = alpha_probs[:, allowed].max(-1) * (1 if edge_probs is None else edge_probs)
    best = alpha_probs[:, allowed].argmax(-1)  # a tie goes to the first
    cell = []
    for block in range(topology.blocks):
        ranked = sorted(topology.edges_into(block), key=lambda edge: (-strengths[edge], edge))
        kept = sorted(ranked[:INPUTS_PER_BLOCK])
        names = [space.cell.operations[allowed[int(best[edge])]] for edge in kept]
        states = [state_name(topology.edges[edge][1]) for edge in kept]
        cell.append(tuple(Edge(input=of, operation=name) for of, name in zip(states, names, strict=True)))
    return tuple(cell)


def decode_path(beta_probs: np.ndarray, trellis: Trellis, path_prior: str = "uniform") -> tuple[int, ...]:
    """The most probable path from the stem to the last layer, as the levels of layers 1..L, by Viterbi.

    beta_probs: [layer, level, move]. `paper` maximises the product of the probabilities. Border nodes have fewer
    arrows, so it prefers the borders if nothing is learned. `uniform` (our default, a departure from the paper)
    multiplies each probability by the number of arrows leaving its node, so equal logits make all paths tie. A tie goes
    to the first path in lexicographic order of levels.
    Raises: GenotypeError: an unknown path prior.
    """
    _check_prior(path_prior)
    score_of = partial(arrow_score, beta_probs, trellis, path_prior=path_prior)
    to_go: dict[Node, float] = {node: 0.0 for node in trellis.nodes_at(trellis.layers)}
    for layer in reversed(range(trellis.layers)):
        for node in trellis.nodes_at(layer):
            to_go[node] = max(score_of(arrow) + to_go[arrow.target] for arrow in trellis.arrows_from(node))
    node, so_far, levels = STEM_NODE, 0.0, []
    while node.layer < trellis.layers:
        for arrow in trellis.arrows_from(node):
            score = so_far + score_of(arrow)
            # compare whole paths, or every layer could lose a TIE
            if score + to_go[arrow.target] >= to_go[STEM_NODE] - TIE:
                break
        node, so_far = arrow.target, score
        levels.append(node.level)
    return tuple(levels)


def _check_prior(path_prior: str) -> None:
    if path_prior not in PATH_PRIORS:
        known = ", ".join(PATH_PRIORS)
        raise GenotypeError(f"unknown path prior {path_prior!r} (known: {known})", code="unknown-path-prior")


def arrow_score(beta_probs: np.ndarray, trellis: Trellis, arrow: Arrow, path_prior: str) -> float:
    """The log-probability that an arrow adds to its path, with the correction of `path_prior`."""
    probability = float(beta_probs[arrow.source.layer, arrow.source.level, arrow.move])
    if path_prior == "uniform":
        probability *= len(trellis.arrows_from(arrow.source))
    return float(np.log(probability)) if probability > 0 else -float("inf")
