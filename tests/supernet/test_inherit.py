"""The network of a genotype with the supernet's weights equals the supernet reduced to it, but where it is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.errors import raises_code
from helpers.spaces import KINDS, TEMPERATURES, space_of
from helpers.supernets import supernet_of
from helpers.upsampling_spaces import SPACES

from autoseg.config.base import merge
from autoseg.errors import GenotypeError
from autoseg.genotype.sample import sample_cell, sample_genotype, sample_path, sample_upsampling
from autoseg.genotype.schema import Cell, Edge, Genotype
from autoseg.network import Network, build_searched
from autoseg.space.schema import SearchSpace, space_names
from autoseg.supernet.fast.mixed_op import StackedNorm
from autoseg.supernet.inherit import Inherited, inherit, with_supernet_head
from autoseg.supernet.reference import Supernet
from autoseg.supernet.upsampling import EncoderFeatures, Feature, UpsampleInput

IMAGES = torch.randn(2, 3, 32, 37, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
ALL = {**{name: space_of(name) for name in KINDS}, **{f"up: {name}": space for name, space in SPACES.items()}}
ALL |= {
    "gdas": space_of("plain", relaxation={"gdas": TEMPERATURES}),
    "gdas, several paths": space_of("multi", relaxation={"gdas": TEMPERATURES}),
    "mixed before the cell": space_of("hourglass", relaxation={"mix_before_cell": True}),
    "another epsilon": space_of("hourglass", network_batch_norm={"eps": 1e-2, "momentum": 3e-4}),
    "every operation": space_of(
        "plain",
        cell={"blocks": 3, "operations": [
            "none", "skip_connect", "avg_pool_3x3", "max_pool_3x3", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3",
            "dil_conv_5x5", "atrous_conv_3x3", "atrous_conv_5x5",
        ]},
    ),
}  # fmt: skip


def shipped(name: str) -> SearchSpace:
    """A space that ships with autoseg, with fewer layers, blocks and filters, which its features do not depend on."""
    space = SearchSpace.load(name).to_dict()
    hourglass = space["network"].get("down_layers") is not None
    small: dict[str, Any] = {"cell": {"blocks": 2}, "network": {"filter_multiplier": 4}, "stem": {"channels": [6]}}
    small["stem"]["channels"] *= len(space["stem"]["channels"])
    return SearchSpace.parse(merge(space, small, {} if hourglass else {"network": {"layers": 3}}))


NARROW = [name for name in space_names() if SearchSpace.load(name).macro is None]  # the weights of wide ones do not fit
ALL |= {name: shipped(name) for name in NARROW if name != "fast"}


def filled(space: SearchSpace, genotype: Genotype, kind: type[Supernet] | None = None) -> tuple[float, Inherited]:
    """The greatest difference of the logits, as a share of the greatest logit; and what was inherited."""
    supernet = supernet_of(space) if kind is None else kind(space, 3).double()
    supernet.choose(genotype)
    network, generator = with_head(space, genotype).eval(), torch.Generator().manual_seed(5)
    with torch.no_grad():
        supernet(IMAGES)  # statistics near to the true ones, and different from channel to channel
        for norm in (part for part in supernet.modules() if isinstance(part, StackedNorm)):
            norm.running_mean.add_(torch.randn(norm.running_mean.shape, generator=generator), alpha=0.3)
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.5, 2, generator=generator))
        inherited = inherit(supernet.eval(), network)
        expected, found = supernet(IMAGES), network(IMAGES)
    return float((found - expected).abs().max() / expected.abs().max()), inherited


def with_head(space: SearchSpace, genotype: Genotype) -> Network:
    """The genotype's network with the supernet's head, and fresh weights."""
    return with_supernet_head(build_searched(genotype, 3).double(), space)


def narrow(space: SearchSpace, genotype: Genotype) -> Genotype:
    """The genotype at the supernet's width."""
    network = genotype.network.model_copy(update={"filter_multiplier": space.network.filter_multiplier})
    return genotype.model_copy(update={"network": network})


def genotype_of(space: SearchSpace, levels: tuple[int, ...], cells: list[Cell], rng: np.random.Generator) -> Genotype:
    arrows = space.trellis.arrows_along(levels)
    return narrow(space, Genotype.of_space(space, "one", cells, arrows, {}, **sample_upsampling(space, arrows, rng)))


def without_prev_prev(cell: Cell) -> Cell:
    """A cell that reads `prev` in place of `prev_prev`, and nothing twice."""
    blocks = ({edge.input.replace("prev_prev", "prev"): edge.operation for edge in block} for block in cell)
    return tuple(tuple(Edge(input=of, operation=operation) for of, operation in block.items()) for block in blocks)


def one_path_each(space: SearchSpace, paths: int = 2) -> Iterator[tuple[SearchSpace, Genotype]]:
    """A path that stays at the finest stride; and, as a network of several paths has them, paths that do not.

    There a down move halves before the cell, as in the supernet, and without H(l-2) no feature off the path is read.
    """
    rng = np.random.default_rng(0)
    flat = (0,) * space.network.layers
    yield space, genotype_of(space, flat, [sample_cell(space, rng) for _ in range(space.cells)], rng)
    several = SearchSpace.parse(merge(space.to_dict(), {"network": {"paths": "multi"}}))
    for _ in range(paths):
        cells = [without_prev_prev(sample_cell(several, rng)) for _ in range(several.cells)]
        yield several, genotype_of(several, sample_path(several.trellis, rng), cells, rng)


@pytest.mark.parametrize("name", ALL)
def test_the_network_equals_the_reduced_supernet_where_nothing_else_is_said(name: str) -> None:
    (space, flat), *others = one_path_each(ALL[name])
    off, inherited = filled(space, flat)
    assert (inherited.anew, inherited.differs) == ((), ())
    assert off < 1e-10
    for space, genotype in others:
        off, inherited = filled(space, genotype)
        assert off < 1e-10 or inherited.differs, off


def test_up_moves_are_among_what_is_equal() -> None:
    """Every upsampler but bilinear and unpooling outside an hourglass, and the skips none and add."""
    seen = set[str]()
    for name in ("hourglass", "by arrow", "multi hourglass", "up: skips", "up: by arrow"):
        for space, genotype in one_path_each(ALL[name], paths=6):
            if inherit(supernet_of(space), with_head(space, genotype)).differs == ():
                seen |= {f"{genotype.upsampler(arrow)}, {genotype.skip(arrow)}" for arrow in genotype.up_arrows}
                assert genotype.up_arrows == () or filled(space, genotype)[0] < 1e-10
    assert {name.split(",")[0] for name in seen} >= {"nearest", "transposed_conv", "max_unpool"}, seen
    assert {name.split(", ")[1] for name in seen} == {"none", "add"}, seen


@pytest.mark.parametrize("skip", ["none", "add", "concat"])
def test_a_bilinear_up_move_differs_by_the_place_of_the_relu_alone(skip: str) -> None:
    """Of a feature without negative values it is the same, with and without a skip."""
    space, rng = ALL["up: skips alone"], np.random.default_rng(0)
    cells = [sample_cell(space, rng) for _ in range(space.cells)]
    genotype = Genotype.of_space(space, "up", cells, space.trellis.arrows_along((1, 1, 1, 0, 0)), {}, skips=[skip])
    supernet, generator = Supernet(space, 3).double().eval(), torch.Generator().manual_seed(5)
    for norm in (part for part in supernet.modules() if isinstance(part, StackedNorm)):
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
    network = build_searched(genotype, 3).double().eval()
    inherit(supernet, network)
    arrow, node = genotype.up_arrows[0], genotype.encoder_node(0, 4)
    feature = torch.rand(2, space.cell.blocks * space.filters(1), 6, 7, dtype=torch.float64)
    encoder = torch.randn(2, supernet.stem.out_channels[1], 11, 13, dtype=torch.float64)
    with torch.no_grad():
        found = network.cells[3].preprocess_prev(feature, (11, 13), encoder)  # type: ignore[operator]
        conv = supernet.upsampling.skips[0].convs[supernet.upsampling.sources[0].index(node)]  # type: ignore[index, operator, union-attr]
        joined = supernet.upsampling.skips[0].norm(conv(encoder.relu()))  # type: ignore[operator]
        cell: Any = supernet.cells["layer4_level0"]
        module = cell.preprocess_prev[space.trellis.arrows_into(arrow.target).index(arrow)]
        one_hot = torch.eye(3, dtype=torch.float64)[space.resolution.skips.index(skip)]
        given = UpsampleInput(Feature(feature, feature), EncoderFeatures(joined, None), one_hot.new_ones(1), one_hot)
        torch.testing.assert_close(found, module(given, (11, 13)))


def test_the_readable_supernet_gives_the_same() -> None:
    for name in ("plain", "hourglass", "multi hourglass"):
        for space, genotype in one_path_each(ALL[name]):
            off, inherited = filled(space, genotype, Supernet)
            assert off < 1e-10 or inherited.differs, off


def test_what_differs_is_said() -> None:
    """Each kind of difference, with its layers."""
    space = ALL["plain"]
    cell = sample_cell(space, np.random.default_rng(0))
    assert any(edge.input == "prev_prev" for block in cell for edge in block)
    off, inherited = filled(space, genotype_of(space, (1, 1, 1, 0), [cell], np.random.default_rng(0)))
    assert off > 1e-3
    assert inherited.differs == (
        "down moves stride in the operations, the supernet's before its cell (layer 1)",
        "H(l-2) comes from another stride, where the supernet keeps to its own (layer 4)",
    )
    assert {name.rpartition(".")[0] for name in inherited.anew} == {
        "cells.3.preprocess_prev_prev.conv", "cells.3.preprocess_prev_prev.norm",
    }  # fmt: skip
    several = sample_genotype(ALL["multi"], 0)
    assert filled(ALL["multi"], several)[1].differs[0].startswith("arrows are summed before the cell")


def test_partial_channels_are_said_and_their_operations_start_anew() -> None:
    for share in (1, 2):
        space = space_of("plain", relaxation={"pc_darts": share})
        off, inherited = filled(space, next(one_path_each(space))[1])
        assert off > 1e-3
        assert inherited.differs == ("the supernet has partial channels and weighs its edges",)
        assert (inherited.anew == ()) == (share == 1)
        assert all(".blocks." in name for name in inherited.anew)
    assert SearchSpace.load("fast").relaxation.pc_darts == 4  # the shipped space left out above


def test_a_decoder_of_its_own_starts_anew() -> None:
    space, genotype = next(one_path_each(ALL["plain"]))
    network = build_searched(genotype, 3).double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inherited = inherit(supernet_of(space), network)
    assert inherited.differs == ("the decoder, deeplabv3plus, starts anew: the supernet ends in its own head (aspp)",)
    assert inherited.anew
    after = network.state_dict()
    assert all(name.startswith("decoder.") and torch.equal(before[name], after[name]) for name in inherited.anew)
    assert not any(torch.equal(before[name], after[name]) for name in inherited.taken if "conv" in name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network": {"filter_multiplier": 7}}, "network.filter_multiplier 7, the supernet of space 'plain' 2"),
        ({"stem": {"channels": [4, 8]}}, "stem.channels [4, 8], the supernet of space 'plain' [4, 6]"),
    ],
)
def test_another_width_or_stem_is_refused(change: dict[str, Any], said: str) -> None:
    space, genotype = next(one_path_each(ALL["plain"]))
    other = Genotype.parse(merge(genotype.to_dict(), change))
    with raises_code(GenotypeError, "supernet-differs", said, "--set genotype."):
        inherit(supernet_of(space), build_searched(other, 3))
