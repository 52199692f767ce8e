"""The fast supernet against the textbook one, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.oracle_supernet import TextbookSupernet, largest_difference, parameter_pairs, textbook_of
from helpers.spaces import small_space
from helpers.supernets import supernet_of

from autoseg.registry import OPERATIONS
from autoseg.space.schema import SearchSpace
from autoseg.supernet import Supernet


def assert_equal_to_textbook(space: SearchSpace, size: tuple[int, int], seed: int = 0) -> None:
    fast = supernet_of(space, seed=seed)
    assert_same_logits_and_gradients(fast, textbook_of(fast, 3), size)


def assert_same_logits_and_gradients(fast: Supernet, textbook: TextbookSupernet, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    direction = torch.randn(2, 3, *size, dtype=torch.float64)
    ours, theirs = fast(images), textbook(images)
    assert largest_difference(ours, theirs) < 1e-10
    (ours * direction).sum().backward()
    (theirs * direction).sum().backward()
    compared = set()
    for parameter, index, other in parameter_pairs(fast, textbook):
        compared.add(parameter)
        expected = torch.zeros_like(other) if other.grad is None else other.grad
        assert largest_difference(parameter.grad[index], expected) < 1e-10
    assert compared == set(fast.parameters())  # nothing was left out


@pytest.mark.slow
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "none"])
def test_each_operation_alone_equals_the_textbook(operation: str) -> None:
    assert_equal_to_textbook(small_space(operations=["none", operation], layers=3), (37, 48))


@pytest.mark.slow
@pytest.mark.parametrize("layers", [*range(2, 8), 12])
def test_any_number_of_layers_equals_the_textbook(layers: int) -> None:
    # Few pixels a channel make BatchNorm amplify rounding from layer to layer: deep nets are compared at a larger size.
    assert_equal_to_textbook(small_space(layers=layers, blocks=1), (64, 65) if layers < 8 else (96, 97), seed=layers)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", range(1, 6))
def test_any_number_of_blocks_equals_the_textbook(blocks: int) -> None:
    assert_equal_to_textbook(small_space(layers=2, blocks=blocks, strides=(4, 8)), (33, 34))


@pytest.mark.slow
@pytest.mark.parametrize("size", [*itertools.product((32, 33), (32, 47)), (64, 129)])
def test_odd_and_even_sizes_equal_the_textbook(size: tuple[int, int]) -> None:
    assert_equal_to_textbook(small_space(layers=3), size)


@pytest.mark.slow
@pytest.mark.parametrize("strides", [(1, 2), (2, 4, 8), (4,), (8, 16, 32), (1, 2, 4, 8, 16, 32)])
def test_any_adjacent_strides_equal_the_textbook(strides: tuple[int, ...]) -> None:
    assert_equal_to_textbook(small_space(layers=6, blocks=1, strides=strides), (34, 33))


@pytest.mark.slow
@pytest.mark.parametrize("filters", [1, 3, 9])
def test_any_width_equals_the_textbook(filters: int) -> None:
    """Odd widths, and those on both sides of the width at which the CPU changes its kernel."""
    assert_equal_to_textbook(small_space(layers=2, blocks=3, filters=filters, strides=(4, 8)), (33, 32))


@pytest.mark.slow
@pytest.mark.parametrize("moves", [["same", "down"], ["up", "same"]])
def test_restricted_moves_equal_the_textbook(moves: list[str]) -> None:
    assert_equal_to_textbook(small_space(layers=4, blocks=1, moves=moves), (40, 40))


@pytest.mark.slow
@pytest.mark.parametrize("stem", [([4, 6, 5], [2, 1, 2]), ([3, 4, 5, 6], [1, 2, 2, 1]), ([4, 6], [2, 2])])
def test_any_stem_equals_the_textbook(stem: tuple[list[int], list[int]]) -> None:
    """H(-1) is the last but one of the stem's features, whatever its width and stride."""
    assert_equal_to_textbook(small_space(layers=3, blocks=1, stem=stem), (33, 46))


@pytest.mark.slow
def test_evaluation_mode_equals_the_textbook() -> None:
    """Running statistics are kept apart for every arrow and edge; they are the textbook's, and have no gradient."""
    fast = supernet_of(small_space(layers=3))
    textbook = textbook_of(fast, 3)
    with torch.no_grad():
        for _ in range(3):
            images = torch.randn(2, 3, 40, 40, dtype=torch.float64)
            fast(images), textbook(images)
    fast.eval(), textbook.eval()
    assert_same_logits_and_gradients(fast, textbook, (41, 32))


def test_frozen_halves_give_no_gradient() -> None:
    fast = supernet_of(small_space(layers=2))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    fast.train_weights()
    fast(images).sum().backward()
    assert all(parameter.grad is None for parameter in fast.arch.parameters())
    assert all(parameter.grad is not None for parameter in fast.weights())
    fast.zero_grad(set_to_none=True)
    fast.train_architecture()
    fast(images).sum().backward()
    assert all(parameter.grad is not None for parameter in fast.arch.parameters())
    assert all(parameter.grad is None for parameter in fast.weights())
