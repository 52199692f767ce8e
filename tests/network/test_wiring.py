"""The genotypes of the space `unet` are wired as the networks that they are named after, seen by what flows in them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from autoseg.genotype.contains import check_in_space
from autoseg.genotype.schema import Genotype
from autoseg.network.network import Network, build_searched
from autoseg.network.preprocess import Preprocess, UpsamplePreprocess
from autoseg.ops.resize import resize
from autoseg.ops.upsample import MaxUnpool, TransposedConv
from autoseg.space.schema import SearchSpace
from autoseg.space.trellis import STEM_NODE, Move, Node

NAMES = ("unet_shaped", "fcn8s_shaped", "deeplabv3_shaped", "segnet_shaped")


@dataclass
class Traced:
    """One forward pass: what each node made, and what each named part read and made."""

    network: Network
    made: dict[Node, Tensor] = field(default_factory=dict)
    read: dict[nn.Module, tuple[Tensor, ...]] = field(default_factory=dict)
    given: dict[nn.Module, Tensor] = field(default_factory=dict)

    def cells(self, *moves: Move) -> list[tuple[Node, nn.Module]]:
        """Node and cell of every layer that these moves lead into."""
        pairs = zip(self.network.node_inputs, self.network.cells, strict=True)
        return [(reading.node, cell) for reading, cell in pairs if reading.arrows[0].move in moves]

    def descents(self) -> dict[int, Node]:
        """Level -> the node from which the network goes down from it."""
        return {arrow.source.level: arrow.source for arrow in self.network.genotype.arrows if arrow.move is Move.DOWN}


def trace(name: str) -> Traced:
    torch.manual_seed(0)
    traced = Traced(build_searched(Genotype.load(name), 3).eval())

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        traced.read[module], traced.given[module] = inputs, output

    for module in traced.network.modules():
        if module is not traced.network:
            module.register_forward_hook(record)
    with torch.no_grad():
        traced.network(torch.randn(2, 3, 37, 52))
    traced.made[STEM_NODE] = traced.given[traced.network.stem][1]
    for reading, cell in zip(traced.network.node_inputs, traced.network.cells, strict=True):
        traced.made[reading.node] = traced.given[cell]
    return traced


def moves_of(name: str) -> str:
    return "".join(move.name[0] for move in Genotype.load(name).moves)


def operations_of(cells: list[tuple[Node, nn.Module]]) -> set[str]:
    return {operation for _, cell in cells for block in cell.operations for operation in block}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_choices_of_the_space(name: str) -> None:
    genotype, space = Genotype.load(name), SearchSpace.load("unet")
    check_in_space(genotype, space)
    assert genotype.stem == space.stem
    assert genotype.network.filter_multiplier == space.decoding.filter_multiplier
    assert genotype.decoder.model_dump(exclude={"upsamplers"}) == space.decoder.model_dump(exclude={"upsamplers"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("unet_shaped", "SDDDDUUUU"),
        ("fcn8s_shaped", "SDDDDUUUU"),
        ("segnet_shaped", "SDDDDUUUU"),
        ("deeplabv3_shaped", "SDDDSSUUU"),
    ],
)
def test_they_come_back_up_as_often_as_they_go_down(name: str, moves: str) -> None:
    assert moves_of(name) == moves
    assert moves.count("U") == moves.count("D")
    traced = trace(name)
    assert traced.made[traced.network.node_inputs[-1].node].shape[2:] == (37, 52)  # full resolution again


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_reads_the_one_before_it_and_nothing_older(name: str) -> None:
    """But for what an up move's skip or unpooling brings back: H(l-2) is read by no operation."""
    traced = trace(name)
    before = STEM_NODE
    for reading, cell in zip(traced.network.node_inputs, traced.network.cells, strict=True):
        assert cell.preprocess_prev_prev is None
        assert traced.read[cell.preprocess_prev][0] is traced.made[before]
        assert (reading.encoder_node is not None) == isinstance(cell.preprocess_prev, UpsamplePreprocess)
        before = reading.node


def test_unet_concatenates_the_way_downs_feature_at_every_level() -> None:
    traced = trace("unet_shaped")
    ups = traced.cells(Move.UP)
    assert [node.level for node, _ in ups] == [3, 2, 1, 0]
    for node, cell in ups:
        ascent = cell.preprocess_prev
        assert isinstance(ascent, UpsamplePreprocess)
        assert isinstance(ascent.doubling.up, TransposedConv)
        left = traced.made[traced.descents()[node.level]]
        joint = traced.read[ascent.merge][0]
        upsampled = traced.given[ascent.doubling]
        assert torch.equal(joint, torch.cat([upsampled, left], 1))  # exactly these, and nothing else
        assert upsampled.shape[2:] == left.shape[2:]
        coarser = traced.read[ascent][0]
        assert coarser is traced.made[Node(node.layer - 1, node.level + 1)]
        assert ascent.side is None
        assert traced.read[cell.blocks[0][0]][0] is traced.given[ascent.merge]  # the joint's 1x1 enters the cell


def test_unet_goes_down_by_stride_and_convolves_both_ways() -> None:
    traced = trace("unet_shaped")
    assert operations_of(traced.cells(*Move)) == {"sep_conv_3x3"}
    for node, cell in traced.cells(Move.DOWN):
        first = cell.blocks[0][0]
        assert first.depthwise1.stride == (2, 2)
        assert traced.given[first].shape[2:] == traced.made[node].shape[2:]
        assert traced.read[cell.blocks[1][0]][0] is traced.given[first]  # one convolution after the other


def test_fcn8s_adds_at_the_two_coarsest_doublings_and_does_nothing_else_on_the_way_up() -> None:
    traced = trace("fcn8s_shaped")
    ups = traced.cells(Move.UP)
    assert operations_of(ups) == {"skip_connect"}
    assert operations_of(traced.cells(Move.SAME, Move.DOWN)) == {"max_pool_3x3", "sep_conv_3x3"}
    for number, (node, cell) in enumerate(ups):
        arrival = cell.preprocess_prev
        if number >= 2:
            assert isinstance(arrival, Preprocess)
            expected = resize(traced.read[arrival][0], traced.made[node].shape[2:])  # type: ignore[arg-type]
            torch.testing.assert_close(traced.given[arrival], arrival.norm(arrival.conv(expected.relu())))
            continue
        assert isinstance(arrival.doubling.up, TransposedConv)
        assert arrival.merge is None
        assert traced.read[arrival.side][0] is traced.made[traced.descents()[node.level]]
        assert torch.equal(traced.given[arrival], traced.given[arrival.doubling] + traced.given[arrival.side])


def test_deeplabv3_has_atrous_convolutions_and_comes_up_bilinearly_with_nothing_joined() -> None:
    traced = trace("deeplabv3_shaped")
    ups = traced.cells(Move.UP)
    assert operations_of(ups) == {"skip_connect"}
    assert operations_of(traced.cells(Move.DOWN)) == {"atrous_conv_3x3"}
    assert all(isinstance(cell.preprocess_prev, Preprocess) for _, cell in ups)
    assert max(node.level for node in traced.made) == 3  # stride 8
    at_stride_8 = traced.network.cells[4]
    assert {operation.conv.dilation for block in at_stride_8.blocks for operation in block} == {(2, 2)}


def test_segnet_unpools_to_where_the_way_down_had_its_maxima() -> None:
    traced = trace("segnet_shaped")
    assert operations_of(traced.cells(Move.UP)) == {"sep_conv_3x3"}
    assert "max_pool_3x3" in operations_of(traced.cells(Move.DOWN))
    for node, cell in traced.cells(Move.UP):
        ascent = cell.preprocess_prev
        assert isinstance(ascent, UpsamplePreprocess)
        assert isinstance(ascent.doubling.up, MaxUnpool)
        assert (ascent.merge, ascent.side, ascent.skip) == (None, None, "none")
        left = traced.made[traced.descents()[node.level]]
        assert traced.read[ascent.doubling][2] is left
        coarse, unpooled = traced.read[ascent.doubling.up][0], traced.given[ascent.doubling.up]
        assert int((unpooled != 0).sum()) == coarse.numel()  # one pixel of each window
