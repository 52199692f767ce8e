"""Networks of several paths: which arrows of the trellis stay (topology search of DiNTS, He et al. 2021).

In a feasible topology every reached node outside the last layer has an arrow out, and every node except the stem that
an arrow leaves has an arrow in. So the possible arrows between two layers depend only on the set of reached levels.
Sets of levels are bit masks here, and the search goes layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from autoseg.errors import GenotypeError
from autoseg.genotype.flops import PER_BILLION_A_MEGAPIXEL, Costs
from autoseg.genotype.schema import Cell
from autoseg.space.resolution import Skip
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import Arrow, Move, Node, Trellis, nearest_level

CERTAIN = 2.0**-29
"""Least distance of probabilities from 0 and 1; logits then stay below 21."""
LOGIT_UNIT, ARROW_PENALTY, LEVEL_PENALTY = 2.0**-20, 2.0**-30, 2.0**-41
"""Logits are rounded to the first; every arrow costs the second, plus the third times its level. For up to 170 arrows
these sums are exact: topologies tie exactly, and then fewer arrows win, then a higher resolution."""
STEM_SET = 1
PRICES, BOUNDS = 24, 8
"""Number of prices of a multiply-add that are tried until the best topology meets the budget, and of the last ones that
serve as bounds."""
BEAM = 300
ROUNDING = 1e-11


class ArrowSets(NamedTuple):
    """The arrows into a layer, and every non-empty set of them."""

    arrows: list[Arrow]
    sets: np.ndarray  # bit masks of arrows
    before: np.ndarray  # bit masks of the levels that they leave
    after: np.ndarray  # bit masks of the levels that they reach


class Layer(NamedTuple):
    """The choices between two layers: the sets of arrows that are not dominated, sorted by `before`."""

    arrows: list[Arrow]
    sets: np.ndarray
    before: np.ndarray
    after: np.ndarray
    score: np.ndarray
    cost: np.ndarray  # of the arrows and the cells that they reach, without the cost of H(l-2)
    prev_prev_cost: np.ndarray  # [set two layers ago, set of this layer]: the cost of H(l-2)


def decode_topology(
    beta_probs: np.ndarray,
    space: SearchSpace,
    cells: Sequence[Cell],
    upsampling: Mapping[Arrow, tuple[str, Skip]] | None = None,
) -> tuple[Arrow, ...]:
    """The feasible topology with the greatest sum of logit(p) - logit(threshold) over its arrows.

    With a threshold of 0.5 this is the most probable one, if each arrow stays with its probability. With
    `decoding.budget` it is the best whose cells and arrows cost no more: exact, by a branch and bound over sets of
    levels. Ties go to fewer arrows, then to the smaller sum of their levels.

    beta_probs: [layer, level, move]. upsampling: the upsampler and skip of each up move, for the budget; if a skip may
    join the stem's feature or a cell's, the wider one counts.
    Raises: GenotypeError: a budget below the cost of the cheapest topology, which the message gives.
    """
    budget = space.decoding.budget
    scores = arrow_scores(beta_probs, space)
    costs = None if budget is None else Costs.of_space(space, cells)
    layers = [_layer(space, scores, costs, upsampling or {}, layer) for layer in range(1, space.network.layers + 1)]
    if budget is None:
        chosen, _, _ = _follow(layers, _to_go(layers, 0.0))
    else:
        chosen = _within(layers, budget * PER_BILLION_A_MEGAPIXEL, space.name)
    rows = zip(layers, chosen, strict=True)
    return tuple(arrow for layer, row in rows for arrow in arrows_of(layer.arrows, int(layer.sets[row])))


# --- the choices of a layer -------------------------------------------------------------------------------------------


def arrow_sets(trellis: Trellis, layer: int) -> ArrowSets:
    """The possible sets of arrows into a layer; at most 2^16, with six levels."""
    arrows = sorted(arrow for node in trellis.nodes_at(layer) for arrow in trellis.arrows_into(node))
    sets = np.arange(1, 1 << len(arrows))
    before, after = np.zeros_like(sets), np.zeros_like(sets)
    for bit, arrow in enumerate(arrows):
        before |= (sets >> bit & 1) << arrow.source.level
        after |= (sets >> bit & 1) << arrow.target.level
    return ArrowSets(arrows, sets, before, after)


def arrows_of(arrows: Sequence[Arrow], chosen: int) -> list[Arrow]:
    """The arrows of a set."""
    return [arrow for bit, arrow in enumerate(arrows) if chosen >> bit & 1]


def arrow_scores(beta_probs: np.ndarray, space: SearchSpace) -> dict[Arrow, float]:
    """logit(p) - logit(threshold) of each arrow, minus the penalties that break ties."""

    def logit(p: float) -> float:
        p = min(max(p, CERTAIN), 1 - CERTAIN)
        return float(np.log(p) - np.log1p(-p))

    shift = logit(space.decoding.threshold)
    scores = {}
    for arrow in space.trellis.arrows:
        ahead = logit(float(beta_probs[arrow.source.layer, arrow.source.level, arrow.move])) - shift
        scores[arrow] = round(ahead / LOGIT_UNIT) * LOGIT_UNIT - ARROW_PENALTY - arrow.target.level * LEVEL_PENALTY
    return scores


def _layer(
    space: SearchSpace,
    scores: Mapping[Arrow, float],
    costs: Costs | None,
    upsampling: Mapping[Arrow, tuple[str, Skip]],
    layer: int,
) -> Layer:
    arrows, sets, before, after = arrow_sets(space.trellis, layer)
    size = 1 << len(space.network.strides)
    score, cost, prev_prev_cost = np.zeros(len(sets)), np.zeros(len(sets)), np.zeros((size, size))
    for bit, arrow in enumerate(arrows):
        there = sets >> bit & 1
        score += there * scores[arrow]
        if costs is not None:
            how = upsampling.get(arrow, ()) if arrow.move is Move.UP else ()
            cost += there * costs.arrow(arrow, *how)
    if costs is not None:
        for node in space.trellis.nodes_at(layer):
            cost += (after >> node.level & 1) * costs.cell(node)
        prev_prev_cost = _prev_prev_cost(space, costs, layer)
    kept = _front(before * size + after, score, cost)
    sets, before, after, score, cost = (column[kept] for column in (sets, before, after, score, cost))
    return Layer(arrows, sets, before, after, score, cost, prev_prev_cost)


def _prev_prev_cost(space: SearchSpace, costs: Costs, layer: int) -> np.ndarray:
    """[set two layers ago, set of this layer]: the cost of H(l-2) for the nodes of this layer."""
    levels = range(len(space.network.strides))
    size = 1 << len(levels)
    cost, sets = np.zeros((size, size)), np.arange(size)
    for before in range(1, size):
        there = [level for level in levels if before >> level & 1]
        for level in levels:
            source = Node(layer - 2, nearest_level(level, there))
            cost[before] += (sets >> level & 1) * costs.prev_prev(source, Node(layer, level))
    return cost


def _front(group: np.ndarray, score: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Indices, by group and cost, of the rows whose score exceeds that of every row of their group at no more cost."""
    order = np.lexsort((-score, cost, group))
    rank = np.unique(score, return_inverse=True)[1][order]  # ranks are integers, whose sums with groups are exact
    height = rank + np.unique(group, return_inverse=True)[1][order] * (len(score) + 1)
    highest = np.maximum.accumulate(height)
    kept: np.ndarray = order[np.concatenate(([True], height[1:] > highest[:-1]))]
    return kept


# --- the best at a price, and within a budget -------------------------------------------------------------------------


def _to_go(layers: Sequence[Layer], price: float, worth: float = 1.0) -> list[np.ndarray]:
    """For each layer, [set before, set of the layer]: the greatest worth * score - price * cost of the later layers."""
    size = len(layers[0].prev_prev_cost)
    to_go = [np.zeros((size, size))]
    for layer in reversed(layers):
        best = np.full((size, size), -np.inf)
        np.maximum.at(best, (layer.before, layer.after), worth * layer.score - price * layer.cost)
        best += to_go[0]
        # [set two layers ago, set before]: the best next set
        to_go.insert(0, (best[None] - price * layer.prev_prev_cost[:, None]).max(-1))
    return to_go


def _follow(
    layers: Sequence[Layer], to_go: Sequence[np.ndarray], price: float = 0.0, worth: float = 1.0
) -> tuple[list[int], float, float]:
    """The rows of the layers that attain the value of `_to_go` at the stem, their score and their cost."""
    ago, here, rows, score, cost = STEM_SET, STEM_SET, [], 0.0, 0.0
    for layer, rest in zip(layers, to_go[1:], strict=True):
        open_rows = np.flatnonzero(layer.before == here)
        after = layer.after[open_rows]
        own_cost = layer.cost[open_rows] + layer.prev_prev_cost[ago, after]
        best = int((worth * layer.score[open_rows] - price * own_cost + rest[here, after]).argmax())
        rows.append(int(open_rows[best]))
        score, cost = score + layer.score[rows[-1]], cost + own_cost[best]
        ago, here = here, int(after[best])
    return rows, float(score), float(cost)


def _within(layers: Sequence[Layer], budget: float, name: str) -> list[int]:
    """The rows of the best topology that costs no more than `budget` multiply-adds per pixel.

    Lagrange's bound, score + price * (budget - cost), holds for every price. `_search` drops a partial topology whose
    bound at some price is no better than the best topology so far. Few remain.
    """
    best, best_score, cost = _follow(layers, _to_go(layers, 1.0, 0.0), 1.0, 0.0)
    if cost > budget:
        cheapest = np.ceil(cost / PER_BILLION_A_MEGAPIXEL * 1e4) / 1e4
        raise GenotypeError(
            f"decoding.budget {budget / PER_BILLION_A_MEGAPIXEL:g} is less than the cheapest network of space '{name}'"
            f" costs, {cheapest:g} billion multiply-adds a megapixel; give that or more",
            code="budget-too-small",
        )
    tables: list[tuple[float, list[np.ndarray]]] = []
    price, low, high = 0.0, 0.0, 0.0
    for _ in range(PRICES):
        to_go = _to_go(layers, price)
        rows, score, cost = _follow(layers, to_go, price)
        if cost <= budget and score > best_score:
            best, best_score = rows, score
        if cost <= budget and price == 0:
            return best
        low, high = (low, price) if cost <= budget else (price, high)
        tables.append((price, to_go))
        price = (low * high) ** 0.5 if low and high else high / 8 or low * 8 or 1 / budget
    for width in (BEAM, None):  # a narrow search first: a better best so far lets the bound drop more
        found = _search(layers, budget, tables[-BOUNDS:], best_score, width)
        if found is not None:
            best, best_score = found
    return best


def _search(
    layers: Sequence[Layer],
    budget: float,
    tables: Sequence[tuple[float, list[np.ndarray]]],
    to_beat: float,
    width: int | None,
) -> tuple[list[int], float] | None:
    """The rows of the best topology within `budget`, and its score; None if none is above `to_beat`.

    Among partial topologies that end in the same two sets, only the Pareto front of score and cost is kept. width: keep
    only this many of the highest bounds at each layer; the result may then not be the best.
    """
    ago, here = np.array([STEM_SET]), np.array([STEM_SET])
    score, cost, steps = np.zeros(1), np.zeros(1), []
    for number, layer in enumerate(layers, start=1):
        first, last = (np.searchsorted(layer.before, here, side) for side in ("left", "right"))
        parents = np.repeat(np.arange(len(here)), last - first)
        rows = np.arange(len(parents)) + np.repeat(last - np.cumsum(last - first), last - first)
        after = layer.after[rows]
        cost = cost[parents] + layer.cost[rows] + layer.prev_prev_cost[ago[parents], after]
        score = score[parents] + layer.score[rows]
        bound = np.full(len(rows), np.inf)
        for price, to_go in tables:
            np.minimum(bound, score + price * (budget - cost) + to_go[number][here[parents], after], out=bound)
        kept = np.flatnonzero((cost <= budget) & (bound > to_beat - ROUNDING))
        if not len(kept):
            return None
        states = here[parents[kept]] * len(layer.prev_prev_cost) + after[kept]
        kept = kept[_front(states, score[kept], cost[kept])]
        if width is not None:
            kept = kept[np.argsort(-bound[kept], kind="stable")[:width]]
        steps.append((parents[kept], rows[kept]))
        ago, here, score, cost = here[parents[kept]], after[kept], score[kept], cost[kept]
    chosen: list[int] = []
    at = int(score.argmax())
    if score[at] <= to_beat:
        return None
    for parents, rows in reversed(steps):
        chosen.insert(0, int(rows[at]))
        at = int(parents[at])
    return chosen, float(score.max())
