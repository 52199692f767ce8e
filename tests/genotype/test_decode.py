"""Decoding against brute force: every path, every pair of inputs, and networkx's shortest path."""

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import networkx as nx
import numpy as np
import pytest
from helpers.errors import raises_code
from helpers.spaces import paths_of

from autoseg.errors import GenotypeError
from autoseg.genotype.decode import arrow_score, decode, decode_cell, decode_path
from autoseg.registry import OPERATIONS
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import ArchProbs
from autoseg.space.trellis import STEM_NODE, Trellis

PRIORS = ("uniform", "paper")
MOVES = [("up", "same", "down"), ("same", "down"), ("up", "same"), ("same",)]
STEP = {"up": -1, "same": 0, "down": 1}


def log_score(path: Sequence[int], beta: np.ndarray, levels: int, moves: Sequence[str], prior: str) -> float:
    """Log of a path's probability, straight from the definition."""
    total = 0.0
    for layer, (before, after) in enumerate(pairwise((0, *path))):
        leaving = sum(0 <= before + STEP[move] < levels for move in moves)
        probability = beta[layer, before, after - before + 1] * (leaving if prior == "uniform" else 1)
        total += np.log(probability) if probability > 0 else -np.inf
    return total


def first_of_the_best(beta: np.ndarray, trellis: Trellis, moves: Sequence[str], prior: str) -> tuple[int, ...]:
    """The lexicographically first of all paths within 1e-9 of the best."""
    scores = {path: log_score(path, beta, len(trellis.strides), moves, prior) for path in paths_of(trellis)}
    best = max(scores.values())
    return min(path for path, score in scores.items() if score >= best - 1e-9)


def random_trellis(rng: np.random.Generator) -> tuple[Trellis, tuple[str, ...]]:
    layers = int(rng.integers(2, 9))
    levels = int(rng.integers(1, 5 if layers > 6 else 7))
    first = int(rng.integers(0, 7 - levels))
    moves = MOVES[rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])]
    return Trellis(layers, [2 ** (first + level) for level in range(levels)], moves), moves


def random_beta(rng: np.random.Generator, trellis: Trellis, kind: str) -> np.ndarray:
    """Probabilities [layer, level, move]: 0 on illegal arrows, 1 in sum over the legal ones of a node."""
    legal = trellis.legal()
    if kind == "ties":  # few distinct values, exact in binary: many paths have equal scores
        weights = rng.choice([1.0, 2.0], size=legal.shape)
    elif kind == "near_ties":  # ... or scores that differ by about the 1e-9 that still counts as equal
        weights = 1 + rng.uniform(0, 1e-9, legal.shape)
    elif kind == "zeros":
        weights = rng.choice([0.0, 1.0, 1.0, 3.0], size=legal.shape)
    else:
        logits = rng.standard_normal(legal.shape) * {"random": 1.0, "peaked": 600.0}[kind]
        weights = np.exp(
            logits - np.where(legal, logits, -1e9).max(-1, keepdims=True), where=legal, out=np.zeros(legal.shape)
        )
    weights = np.where(legal, weights, 0.0)
    total = weights.sum(-1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


@pytest.mark.slow
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("kind", ["random", "peaked", "ties", "near_ties", "zeros"])
def test_path_is_the_first_of_the_best_by_brute_force(kind: str, prior: str) -> None:
    rng = np.random.default_rng([11, len(kind), len(prior)])
    zeros = 0
    for _ in range(60):
        trellis, moves = random_trellis(rng)
        beta = random_beta(rng, trellis, kind)
        zeros += int((beta[trellis.legal()] == 0).any())
        assert decode_path(beta, trellis, prior) == first_of_the_best(beta, trellis, moves, prior)
    if kind in ("peaked", "zeros"):
        assert zeros > 20


def test_quantised_probabilities_really_tie_and_the_rule_decides() -> None:
    rng = np.random.default_rng(5)
    decided_by_rule = 0
    for _ in range(40):
        trellis, moves = random_trellis(rng)
        beta = random_beta(rng, trellis, "ties")
        scores = [log_score(path, beta, len(trellis.strides), moves, "uniform") for path in paths_of(trellis)]
        decided_by_rule += sum(score >= max(scores) - 1e-9 for score in scores) > 1
    assert decided_by_rule > 10


def test_small_losses_do_not_add_up_to_more_than_a_tie() -> None:
    """At each layer the lower level is better by 0.4e-9: within a tie at each, but not over all eight."""
    trellis = Trellis(8, (4, 8))
    beta = np.zeros((8, 2, 3))
    beta[:, 0, 1:] = 0.5, 0.5 * (1 + 0.4e-9)
    beta[:, 1, :2] = 0.5, 0.5 * (1 + 0.4e-9)
    assert decode_path(beta, trellis) == (0, 0, 1, 1, 1, 1, 1, 1)
    assert decode_path(beta, trellis) == first_of_the_best(beta, trellis, MOVES[0], "uniform")


def test_no_possible_path_is_a_tie_of_all() -> None:
    trellis = Trellis(4, (4, 8, 16))
    assert decode_path(np.zeros((4, 3, 3)), trellis) == (0, 0, 0, 0)
    only_at_the_end = np.zeros((4, 3, 3))
    only_at_the_end[3] = 1.0
    assert decode_path(only_at_the_end, trellis) == (0, 0, 0, 0)


def test_unknown_prior_is_refused() -> None:
    with raises_code(GenotypeError, "unknown-path-prior", "'papper'", "uniform, paper"):
        decode_path(np.zeros((2, 2, 3)), Trellis(2, (4, 8)), "papper")


def make_space(layers: int = 12, **more: Any) -> SearchSpace:
    return SearchSpace.parse({"name": "test", "network": {"layers": layers}, **more})


@pytest.mark.slow
@pytest.mark.parametrize("layers", [2, 5, 9, 12])
def test_equal_logits_make_all_paths_tie_under_the_uniform_prior(layers: int) -> None:
    space = make_space(layers)
    beta = ArchProbs.zeros(space).beta_probs
    scores = [log_score(path, beta, 4, MOVES[0], "uniform") for path in paths_of(space.trellis)]
    assert np.ptp(scores) < 1e-12
    assert decode_path(beta, space.trellis, "uniform") == (0,) * layers  # the first of all


@pytest.mark.slow
def test_equal_logits_favour_the_border_under_the_paper_prior_by_86() -> None:
    space = make_space(12)
    beta = ArchProbs.zeros(space).beta_probs
    scores = {path: log_score(path, beta, 4, MOVES[0], "paper") for path in paths_of(space.trellis)}
    assert len(scores) == 75_025
    best = max(scores, key=scores.__getitem__)
    assert best == decode_path(beta, space.trellis, "paper") == (0,) * 12
    ratio = np.exp(scores[best] - min(scores.values()))
    assert ratio == pytest.approx(1.5**11, rel=1e-12)
    assert round(ratio) == 86


@pytest.mark.parametrize("prior", PRIORS)
def test_path_has_the_length_of_the_shortest_path_on_minus_log_p(prior: str) -> None:
    rng = np.random.default_rng(7)
    for kind in ("random", "peaked", "ties") * 12:
        trellis, _ = random_trellis(rng)
        beta = random_beta(rng, trellis, kind)
        graph: nx.DiGraph[Any] = nx.DiGraph()
        graph.add_edges_from((node, "end", {"w": 0.0}) for node in trellis.nodes_at(trellis.layers))
        for arrow in trellis.arrows:
            score = arrow_score(beta, trellis, arrow, prior)
            if np.isfinite(score):
                graph.add_edge(arrow.source, arrow.target, w=-score)
        # `uniform` gives arrows above 1, hence lengths below 0, which Dijkstra cannot take
        method = "dijkstra" if prior == "paper" else "bellman-ford"
        length = nx.shortest_path_length(graph, STEM_NODE, "end", weight="w", method=method)
        levels = decode_path(beta, trellis, prior)
        score = log_score(levels, beta, len(trellis.strides), [move.name.lower() for move in trellis.moves], prior)
        assert score == pytest.approx(-length, abs=2e-9)


# --- cells ------------------------------------------------------------------------------------------------------------


def brute_force_cell(alpha: np.ndarray, space: SearchSpace) -> list[list[tuple[str, str]]]:
    """The first pair of inputs with the greatest strengths for each block, each with its first best operation."""
    operations = space.cell.operations
    rows = iter(alpha)
    cell = []
    for block in range(space.cell.blocks):
        names = ["prev_prev", "prev", *(f"b{number}" for number in range(1, block + 1))]
        choices = []
        for name in names:
            row = next(rows)
            p, _, operation = max((row[k], -k, operations[k]) for k in range(len(row)) if operations[k] != "none")
            choices.append((p, name, operation))
        pair = max(combinations(choices, 2), key=lambda two: sorted((p for p, _, _ in two), reverse=True))
        cell.append([(name, operation) for _, name, operation in pair])
    return cell


def plain(cell: Any) -> list[list[tuple[str, str]]]:
    return [[(edge.input, edge.operation) for edge in block] for block in cell]


@pytest.mark.parametrize("kind", ["random", "peaked", "ties", "zeros"])
def test_cell_equals_brute_force(kind: str) -> None:
    rng = np.random.default_rng([13, len(kind)])
    for _ in range(60):
        count = int(rng.integers(2, 9))
        operations = [str(operation) for operation in rng.permutation(list(OPERATIONS))[:count]]
        space = make_space(cell={"blocks": int(rng.integers(1, 7)), "operations": operations})
        shape = (len(space.topology.edges), count)
        if kind == "ties":
            alpha = rng.integers(0, 3, shape) / 8
        elif kind == "zeros":
            alpha = np.zeros(shape)
        else:
            scale = 1.0 if kind == "random" else 50.0
            zeros = ArchProbs.zeros(space)
            alpha = ArchProbs(space, scale * rng.standard_normal(shape), zeros.beta_logits).alpha_probs
        assert plain(decode_cell(alpha, space)) == brute_force_cell(alpha, space)


def test_ties_go_to_the_first_operation_but_none_and_the_first_inputs() -> None:
    space = make_space(cell={"blocks": 3, "operations": ["none", "sep_conv_5x5", "skip_connect"]})
    cell = decode_cell(ArchProbs.zeros(space).alpha_probs, space)
    assert plain(cell) == [[("prev_prev", "sep_conv_5x5"), ("prev", "sep_conv_5x5")]] * 3


def test_none_is_never_decoded_and_lends_no_strength() -> None:
    space = make_space(cell={"blocks": 2, "operations": ["skip_connect", "none", "sep_conv_3x3"]})
    logits = np.zeros((5, 3))
    logits[:, 1] = 9.0  # `none` is far ahead on every edge, and furthest on the last
    logits[4, 1] = 20.0
    logits[2, 2] = 1.0
    probs = ArchProbs(space, logits, ArchProbs.zeros(space).beta_logits)
    assert (probs.alpha_probs.argmax(-1) == 1).all()
    assert plain(decode_cell(probs.alpha_probs, space)) == [
        [("prev_prev", "skip_connect"), ("prev", "skip_connect")],
        [("prev_prev", "sep_conv_3x3"), ("prev", "skip_connect")],
    ]


def test_inputs_are_ranked_by_probability_not_by_logit() -> None:
    space = make_space(cell={"blocks": 2, "operations": ["none", "skip_connect", "sep_conv_3x3"]})
    logits = np.zeros((5, 3))
    logits[2] = [7.0, 5.0, 0.0]  # a great logit, but a small share: `none` is greater
    logits[3] = [0.0, 3.0, 0.0]
    logits[4] = [0.0, 0.0, 2.0]
    probs = ArchProbs(space, logits, ArchProbs.zeros(space).beta_logits)
    assert plain(decode_cell(probs.alpha_probs, space))[1] == [("prev", "skip_connect"), ("b1", "sep_conv_3x3")]


# --- whole ------------------------------------------------------------------------------------------------------------


def test_decode_puts_the_parts_together() -> None:
    space = make_space(
        layers=4,
        cell={"blocks": 2, "operations": ["none", "skip_connect", "sep_conv_3x3"]},
        decoding={"path_prior": "paper"},
        decoder={"filters": 12},
        network_batch_norm={"eps": 1e-3},
    )
    beta = np.zeros((4, 4, 3))
    beta[0, 0, 2] = beta[1, 1, 2] = beta[2, 2, 0] = beta[3, 1, 1] = 9.0  # 8, 16, 8, 8
    alpha = np.zeros((5, 3))
    alpha[0, 2] = alpha[4, 1] = alpha[3, 2] = 1.0
    genotype = decode(ArchProbs(space, alpha, beta), source={"run": "runs/a"}, retrain={"epochs": 3})
    assert genotype.network.strides == (8, 16, 8, 8)
    assert genotype.network.filter_multiplier == 8
    assert plain(genotype.cell) == [
        [("prev_prev", "sep_conv_3x3"), ("prev", "skip_connect")],
        [("prev", "sep_conv_3x3"), ("b1", "skip_connect")],
    ]
    assert genotype.name == "test_decoded"
    assert genotype.source == {"space": "test", "path_prior": "paper", "run": "runs/a"}
    assert genotype.retrain == {"epochs": 3}
    assert (genotype.stem, genotype.batch_norm) == (space.stem, space.network_batch_norm)
    assert (genotype.decoder.name, genotype.decoder.filters) == ("deeplabv3plus", 12)
    assert genotype.decoder.upsamplers == ()


def test_the_prior_given_overrules_the_space_and_is_written_down() -> None:
    space = make_space(layers=3, decoding={"path_prior": "paper"})
    beta = np.zeros((3, 4, 3))
    beta[0, 0] = [0, 0, 0.1]
    beta[1, 1] = [0.0, 0.1, 0.0]
    probs = ArchProbs(space, ArchProbs.zeros(space).alpha_logits, beta)
    by_paper, by_uniform = decode(probs), decode(probs, path_prior="uniform", name="mine")
    assert (by_paper.network.strides, by_paper.source["path_prior"]) == ((4, 4, 4), "paper")
    assert (by_uniform.network.strides, by_uniform.source["path_prior"]) == ((8, 8, 4), "uniform")
    assert by_uniform.name == "mine"
    assert decode(probs) == by_paper
