"""The reference supernet against the fused one and, through it, against the oracles: in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.errors import raises_code
from helpers.oracle_supernet import largest_difference
from helpers.spaces import small_space
from helpers.supernets import results
from helpers.upsampling_spaces import SPACES as UPSAMPLING_SPACES
from helpers.upsampling_spaces import images_of
from torch import nn

from autoseg.errors import PluginError, SearchSpaceError
from autoseg.registry import OPERATIONS, Operation, register
from autoseg.space.schema import SearchSpace
from autoseg.supernet import Supernet, build_supernet, unfused_operations
from autoseg.supernet.fast.cell import Preprocess, SearchCell, state_order
from autoseg.supernet.fast.supernet import FusedSupernet
from autoseg.supernet.fast.weights import of_kind
from autoseg.supernet.reference import MixedOperation, ReferenceCell

SPACES = {
    **UPSAMPLING_SPACES,
    "every operation": small_space(layers=3),
    "deep": small_space(layers=6, blocks=1, strides=(4, 8)),
    "one filter": small_space(layers=3, blocks=3, filters=1, strides=(4, 8)),
    "mixed before the cell": SearchSpace.parse(
        {**small_space(layers=3).to_dict(), "relaxation": {"mix_before_cell": True}}
    ),
}
Pair = tuple[nn.Parameter, Any, nn.Parameter]


def pairs(fused: FusedSupernet, reference: Supernet) -> Iterator[Pair]:
    """(parameter of the fused one, index into it, parameter of the reference) for every parameter of the latter."""
    of_fused = dict(fused.named_parameters())
    for name, parameter in reference.named_parameters():
        if not name.startswith("cells."):
            yield of_fused[name], ..., parameter
    for name, cell in reference.cells.items():
        yield from cell_pairs(fused.cells[name], cell)  # type: ignore[arg-type]


def cell_pairs(fused: SearchCell, reference: ReferenceCell) -> Iterator[Pair]:
    preprocess = [reference.preprocess_prev_prev, *reference.preprocess_prev]
    for ours, theirs in zip(fused.arrivals, preprocess, strict=True):
        inner = getattr(theirs, "preprocess", getattr(theirs, "upsample", theirs))
        if not isinstance(ours, Preprocess):
            yield from ((a, ..., b) for a, b in zip(ours.parameters(), inner.parameters(), strict=True))
            continue
        yield ours.conv.weight, ..., inner.conv.weight
        if ours.conv_offset is not None:
            yield ours.conv_offset.weight, ..., inner.conv_offset.weight
    order = state_order(reference.topology)
    for number, edge in enumerate(reference.edges[0]):
        yield from edge_pairs(fused, edge, number, order)


def edge_pairs(fused: SearchCell, edge: MixedOperation, number: int, order: list[int]) -> Iterator[Pair]:
    weights, channels, edges = fused.weights, fused.weights.channels, fused.weights.edges
    rows = slice(number * channels, (number + 1) * channels)
    separable, dilated, atrous = (of_kind(edge.names, kind) for kind in ("separable", "dilated", "atrous"))
    for name, operation in zip(edge.names, edge.operations, strict=True):
        if name in separable:
            kernel = separable.index(name)
            for stage in ("depthwise1", "depthwise2"):
                yield getattr(weights, stage)[kernel], rows, getattr(operation, stage).weight
            for stage in ("pointwise1", "pointwise2"):
                place = (kernel * edges + number, ..., None, None)
                yield getattr(weights, stage), place, getattr(operation, stage).weight
        elif name in dilated:
            kernel = dilated.index(name)
            yield weights.dilated[kernel], rows, operation.depthwise.weight
            place = ((len(separable) + kernel) * edges + number, ..., None, None)
            yield weights.pointwise2, place, operation.pointwise.weight
        elif name in atrous:
            place = order.index(number) * channels
            yield weights.atrous[atrous.index(name)], slice(place, place + channels), operation.conv.weight


def both(space: SearchSpace) -> tuple[FusedSupernet, Supernet]:
    """The fused supernet and the reference with the same weights, in float64."""
    torch.manual_seed(0)
    fused = FusedSupernet(space, 3, 1.0).double()
    reference = Supernet(space, 3, 1.0).double()
    with torch.no_grad():
        for ours, index, theirs in pairs(fused, reference):
            theirs.copy_(ours[index])
    return fused, reference


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_logits_and_gradients_equal_the_fused_supernet(name: str) -> None:
    fused, reference = both(SPACES[name])
    images = images_of(35, 40)
    ours, gradients = results(fused, images)
    theirs, _ = results(reference, images)
    assert largest_difference(ours, theirs) < 1e-10
    of_parameters = {parameter: gradients.get(of) for of, parameter in fused.named_parameters()}
    compared, seen = set(), set()
    for parameter, index, other in pairs(fused, reference):
        compared.add(parameter)
        seen.add(other)
        expected = torch.zeros_like(other) if other.grad is None else other.grad
        assert largest_difference(of_parameters[parameter][index], expected) < 1e-10
    assert compared == set(fused.parameters())
    assert seen == set(reference.parameters())
    fused.eval(), reference.eval()  # running statistics are those of each arrow and edge by itself
    with torch.no_grad():
        assert largest_difference(fused(images), reference(images)) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["every operation", "skips"])
def test_checkpointed_cells_give_the_same_gradients_and_statistics(name: str) -> None:
    _, plain = both(SPACES[name])
    checkpointed = copy.deepcopy(plain)
    checkpointed.checkpoint_cells = True
    images = images_of(33, 40)
    (logits, gradients), (again, others) = results(plain, images), results(checkpointed, images)
    assert torch.equal(logits, again)
    assert all(largest_difference(others[of], gradient) < 1e-12 for of, gradient in gradients.items())
    found = checkpointed.state_dict()
    for of, value in plain.state_dict().items():
        assert torch.equal(value, found[of]), of


@pytest.mark.slow
def test_halves_are_frozen_in_turn() -> None:
    _, supernet = both(SPACES["skips"])
    supernet.train_weights()
    _, of_weights = results(supernet, images_of(40, 40))
    supernet.train_architecture()
    _, of_architecture = results(supernet, images_of(40, 40))
    names = {of for of, _ in supernet.named_parameters()}
    assert set(of_architecture) == {of for of in names if of.startswith("arch.")}
    assert set(of_weights) == names - set(of_architecture)


def test_arrows_share_weights_and_keep_statistics_of_their_own() -> None:
    _, supernet = both(small_space(layers=2, strides=(4, 8)))
    cell = supernet.cells["layer2_level0"]
    first, second = (dict(edges.named_parameters()) for edges in cell.edges)  # type: ignore[union-attr]
    assert all(first[of] is second[of] for of in first)
    one, other = (dict(edges.named_buffers()) for edges in cell.edges)  # type: ignore[union-attr]
    assert not any(one[of] is other[of] for of in one)


# --- operations that are not fused ------------------------------------------------------------------------------------


@pytest.fixture
def own() -> Iterator[str]:
    """A dense 3x3 convolution with a learnable scale, registered for one test as a user would."""

    class Scaled(nn.Module):
        def __init__(self, channels: int, stride: int, norm: Any) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
            self.norm, self.scale = norm(channels), nn.Parameter(torch.ones(channels, 1, 1))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return self.scale * self.norm(self.conv(features.relu()))

    register(Operation("own_conv_3x3", "own 3x3", lambda c: 9 * c * c, Scaled))
    yield "own_conv_3x3"
    OPERATIONS.discard(__name__)


def test_a_space_of_fused_operations_is_fused_and_any_other_is_not(own: str) -> None:
    fused, mixed = small_space(layers=2), small_space(layers=2, operations=["skip_connect", own])
    assert isinstance(build_supernet(fused, 3), FusedSupernet)
    assert type(build_supernet(mixed, 3)) is Supernet
    assert (unfused_operations(fused), unfused_operations(mixed)) == ([], [own])


@pytest.mark.parametrize("relaxation", [{"pc_darts": 2}, {"gdas": [4.0, 0.5]}], ids=str)
def test_variants_refuse_operations_without_a_fused_form(own: str, relaxation: dict[str, Any]) -> None:
    space = SearchSpace.parse(
        {**small_space(layers=2, operations=["skip_connect", own]).to_dict(), "relaxation": relaxation}
    )
    with raises_code(SearchSpaceError, "operation-without-fused-form", f"relaxation.{next(iter(relaxation))}"):
        build_supernet(space, 3)


def test_an_operation_that_turns_nan_is_named_at_the_first_step(own: str) -> None:
    supernet = build_supernet(small_space(layers=2, operations=["skip_connect", own]), 3)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.endswith("scale"):
                parameter.fill_(float("nan"))
    with raises_code(PluginError, "operation-not-finite", own):
        supernet(torch.randn(2, 3, 32, 32))
