"""Partial channels, sampling and mixing before the cell: against their papers' equations, and off by default."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers.oracle_options import options_pairs, options_textbook_of
from helpers.oracle_supernet import largest_difference
from helpers.spaces import TEMPERATURES, small_space, space_with
from helpers.supernets import supernet_of

from autoseg.analysis.flops import count_cost
from autoseg.genotype.sample import sample_genotype
from autoseg.registry import OPERATIONS
from autoseg.space.groups import RelaxationSpec
from autoseg.supernet import Supernet, build_supernet

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "pc_darts": [{}, {"pc_darts": 1}, {"pc_darts": 2}],
    "gdas": [{}, {"gdas": TEMPERATURES}],
    "mix": [{}, {"mix_before_cell": True}],
}
COMBINATIONS = [a | b | c for a, b, c in itertools.product(*OPTIONS.values())]


def names(relaxation: dict[str, Any]) -> str:
    return "+".join(f"{key}{relaxation[key] if key == 'pc_darts' else ''}" for key in relaxation) or "plain"


def assert_equal_to_textbook(fast: Supernet, size: tuple[int, int]) -> None:
    textbook = options_textbook_of(fast, 3)
    images, direction = (torch.randn(2, 3, *size, dtype=torch.float64) for _ in range(2))
    ours, theirs = fast(images), textbook(images)
    assert largest_difference(ours, theirs) < 1e-10
    (ours * direction).sum().backward()
    (theirs * direction).sum().backward()
    compared = set()
    for parameter, index, other in options_pairs(fast, textbook):
        compared.add(parameter)
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        expected = torch.zeros_like(other) if other.grad is None else other.grad
        assert largest_difference(found[index], expected) < 1e-10
    assert compared == set(fast.parameters())
    fast.eval(), textbook.eval()
    with torch.no_grad():
        assert largest_difference(fast(images), textbook(images)) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", COMBINATIONS, ids=names)
def test_every_combination_equals_the_textbook(relaxation: dict[str, Any]) -> None:
    """Logits and gradients in training, and logits with the running statistics in evaluation."""
    fast = supernet_of(space_with(relaxation, layers=3, blocks=2, filters=4))
    if "gdas" in relaxation:
        fast.arch.draw(3, 1.7)
    assert_equal_to_textbook(fast, (33, 40))


@pytest.mark.slow
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "none"])
def test_each_operation_alone_sampled_and_partial_equals_the_textbook(operation: str) -> None:
    space = space_with({"pc_darts": 2, "gdas": TEMPERATURES}, operations=["none", operation], layers=2, strides=(4, 8))
    fast = supernet_of(space)
    fast.arch.draw(1, 2.0)
    assert set(fast.arch.drawn) == {0, 1}
    assert_equal_to_textbook(fast, (32, 33))


@pytest.mark.slow
@pytest.mark.parametrize("share", [2, 4, 8])
def test_any_share_equals_the_textbook(share: int) -> None:
    space = space_with({"pc_darts": share}, layers=2, blocks=3, strides=(4, 8), filters=8)
    assert_equal_to_textbook(supernet_of(space), (32, 33))


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", COMBINATIONS[1:], ids=names)
def test_checkpointed_cells_give_the_same_gradients_and_statistics(relaxation: dict[str, Any]) -> None:
    space, images = space_with(relaxation, layers=2, strides=(4, 8)), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    plain, checkpointed = supernet_of(space), supernet_of(space)
    checkpointed.checkpoint_cells = True
    for supernet in (plain, checkpointed):
        supernet(images).square().sum().backward()
    gradients = dict(checkpointed.named_parameters())
    for name, parameter in plain.named_parameters():
        assert (parameter.grad is None) == (gradients[name].grad is None), name
        assert parameter.grad is None or largest_difference(gradients[name].grad, parameter.grad) < 1e-12, name
    found = checkpointed.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, found[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", COMBINATIONS[1:], ids=names)
def test_frozen_halves_give_no_gradient(relaxation: dict[str, Any]) -> None:
    fast = supernet_of(space_with(relaxation, layers=2, strides=(4, 8)))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    fast.train_weights()
    fast(images).sum().backward()
    assert all(parameter.grad is None for parameter in fast.arch.parameters())
    fast.zero_grad(set_to_none=True)
    fast.train_architecture()
    fast(images).sum().backward()
    assert all(parameter.grad is not None for parameter in fast.arch.parameters())
    assert all(parameter.grad is None for parameter in fast.weights())


def test_a_draw_depends_on_its_seed_and_follows_alpha() -> None:
    arch = supernet_of(space_with({"gdas": TEMPERATURES}, layers=2, blocks=5)).arch
    arch.draw(7, 1.0)
    first, noise = arch.drawn, arch.gumbel
    torch.manual_seed(99)
    arch.draw(7, 1.0)
    assert arch.drawn == first
    assert torch.equal(arch.gumbel, noise)
    arch.draw(8, 1.0)
    assert arch.drawn != first
    with torch.no_grad():
        arch.alpha_logits.zero_()[:, 2] = 1.0
    probability = float(arch.alpha_probs()[0, 2].detach())
    hits = 0
    for seed in range(400):
        arch.draw(seed, 1.0)
        hits += arch.drawn.count(2)
    assert hits / (400 * len(first)) == pytest.approx(probability, abs=0.02)


def test_evaluation_takes_the_likeliest_operation_whatever_was_drawn() -> None:
    fast = supernet_of(space_with({"gdas": TEMPERATURES}, layers=2)).eval()
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    before = fast(images)
    fast.arch.draw(5, 1.0)
    assert torch.equal(fast(images), before)
    assert fast.arch.samples()[0].operations == tuple(fast.arch.alpha_logits.argmax(-1).tolist())


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", COMBINATIONS[1:], ids=names)
def test_a_chosen_genotype_is_evaluated_alone(relaxation: dict[str, Any]) -> None:
    """Its edges share the probability of their block; those off it add nothing, whatever their weights."""
    space = space_with(relaxation, layers=3, blocks=3)
    fast, genotype = supernet_of(space), sample_genotype(space, 1)
    fast.choose(genotype)
    edges = fast.arch.edge_probs()
    if edges is not None:
        assert sorted(set(edges.tolist())) == [0, 0.5, 1] or sorted(set(edges.tolist())) == [0, 0.5]
        assert edges.sum().item() == pytest.approx(space.cell.blocks)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    before = fast(images)
    with torch.no_grad():
        fast.arch.alpha_logits.normal_()
    assert torch.equal(fast(images), before)


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", COMBINATIONS[1:], ids=names)
def test_bfloat16_is_finite_and_the_cost_is_counted(relaxation: dict[str, Any]) -> None:
    space = space_with(relaxation, layers=2, strides=(4, 8), filters=4)
    torch.manual_seed(0)
    supernet = build_supernet(space, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = supernet(torch.randn(2, 3, 32, 32)).float().square().mean()
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in supernet.parameters() if p.grad is not None)
    assert count_cost(lambda: build_supernet(space, 3), (32, 32)).multiply_adds > 0


@pytest.mark.slow
def test_options_cost_less() -> None:
    settings: dict[str, Any] = {"layers": 4, "filters": 8}
    cost = {
        names(one): count_cost(lambda one=one: build_supernet(space_with(one, **settings), 3), (64, 64)).multiply_adds
        for one in ({}, {"pc_darts": 4}, {"gdas": TEMPERATURES}, {"mix_before_cell": True})
    }
    assert all(cost[name] < 0.75 * cost["plain"] for name in cost if name != "plain"), cost


def test_off_is_the_default_and_leaves_no_trace() -> None:
    space = small_space()
    assert space.relaxation == RelaxationSpec()
    assert "relaxation" not in space.to_dict()
    supernet = supernet_of(space)
    assert {name for name, _ in supernet.arch.named_parameters()} == {"alpha_logits", "beta_logits"}
