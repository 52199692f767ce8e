"""A discrete cell: sizes, and drop path."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from helpers.genotypes import EVERY_OPERATION, edges_of
from torch import nn

from autoseg.network.cell import Cell
from autoseg.network.preprocess import Preprocess
from autoseg.ops.resize import level_size
from autoseg.registry import OPERATIONS
from autoseg.space.trellis import Move

SIZES = [(32, 32), (33, 65), (47, 34), (49, 50)]


def make_cell(edges: Sequence[Sequence[str]], channels: int, prev: int, prev_prev: int, move: Move) -> Cell:
    """The cell of a path; `prev` and `prev_prev` are channels."""
    arrival = Preprocess(prev, channels, move is Move.UP, nn.BatchNorm2d)
    return Cell(edges_of(edges), channels, [arrival], prev_prev, 2 if move is Move.DOWN else 1, nn.BatchNorm2d)


@pytest.mark.slow
@pytest.mark.parametrize("move", list(Move))
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "none"])
def test_every_operation_on_every_move_keeps_the_declared_size(operation: str, move: Move) -> None:
    """Read from either input or a block, at strides that bring a feature down to one pixel."""
    cell = make_cell([[f"prev {operation}", f"prev_prev {operation}"], [f"b1 {operation}"]], 2, 3, 4, move)
    for image in SIZES:
        for stride in (4, 16, 32):
            before = {Move.UP: 2 * stride, Move.SAME: stride, Move.DOWN: stride // 2}[move]
            size = level_size(image, stride)
            prev = torch.randn(2, 3, *level_size(image, before))
            for prev_prev_stride in (before, 2 * before, max(before // 2, 1)):
                prev_prev = torch.randn(2, 4, *level_size(image, prev_prev_stride))
                assert cell([prev], prev_prev, size).shape == (2, 4, *size)


def skipping_cell(edges: list[str]) -> Cell:
    return make_cell([edges], 3, 3, 3, Move.SAME)


def shares(cell: Cell, images: int = 4000) -> torch.Tensor:
    """By what the output of each image is scaled against that without drop path: (images,)."""
    features = torch.randn(images, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        dropped = cell([features], features, (2, 2))
        cell.set_drop_probability(0.0)
        whole = cell([features], features, (2, 2))
    scale = (dropped * whole).sum((1, 2, 3)) / (whole * whole).sum((1, 2, 3))
    torch.testing.assert_close(dropped, whole * scale.view(-1, 1, 1, 1), rtol=1e-3, atol=1e-3)  # of a whole image
    return scale


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_drop_path_keeps_the_expectation(probability: float) -> None:
    torch.manual_seed(0)
    cell = skipping_cell(["prev skip_connect"])
    cell.set_drop_probability(probability)
    scale = shares(cell)
    kept = scale > 0.5
    torch.testing.assert_close(scale[kept], torch.full_like(scale[kept], 1 / (1 - probability)), rtol=1e-3, atol=0)
    torch.testing.assert_close(scale[~kept], torch.zeros_like(scale[~kept]))
    assert float(kept.float().mean()) == pytest.approx(1 - probability, abs=0.03)
    assert float(scale.mean()) == pytest.approx(1, abs=0.06)


def test_branches_are_dropped_independently() -> None:
    torch.manual_seed(0)
    cell = skipping_cell(["prev skip_connect", "prev skip_connect"])
    cell.set_drop_probability(0.5)
    scale = shares(cell)  # of two equal branches: 0 both dropped, 1 one, 2 both kept
    assert [float((scale.round() == kept).float().mean()) for kept in (0, 1, 2)] == pytest.approx(
        [0.25, 0.5, 0.25], abs=0.03
    )


def test_drop_path_does_nothing_in_evaluation_or_at_probability_zero() -> None:
    torch.manual_seed(0)
    cell = make_cell(EVERY_OPERATION, 2, 3, 4, Move.DOWN)
    prev, prev_prev = torch.randn(3, 3, 9, 9), torch.randn(3, 4, 9, 9)
    state = torch.get_rng_state()
    cell([prev], prev_prev, (5, 5))
    assert torch.equal(torch.get_rng_state(), state)
    cell.eval()
    whole = cell([prev], prev_prev, (5, 5))
    cell.set_drop_probability(0.9)
    assert torch.equal(cell([prev], prev_prev, (5, 5)), whole)
    assert torch.equal(torch.get_rng_state(), state)
    cell.train()
    assert not torch.equal(cell([prev], prev_prev, (5, 5)), cell([prev], prev_prev, (5, 5)))
