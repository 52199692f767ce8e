"""How features come up, and several arrows into a node: against what the modules' parts make of their inputs."""

from __future__ import annotations

import pytest
import torch
from helpers.genotypes import make_genotype, make_hourglass, make_multi
from helpers.modules import noise, randomised
from helpers.oracle_operations import convolve, interpolate, normalise
from torch import Tensor, nn

from autoseg.genotype.node_inputs import decoder_nodes, low_level_node, node_inputs
from autoseg.network.network import Network, build_searched
from autoseg.network.preprocess import FactorizedReduce, UpsamplePreprocess
from autoseg.ops.upsample import TransposedConv
from autoseg.registry import UPSAMPLERS
from autoseg.space.trellis import FIRST_STEM_NODE, STEM_NODE, Node

SIZES = [(32, 32), (33, 47), (50, 65)]


def brought(x: Tensor, module: nn.Module) -> Tensor:
    """ReLU, 1x1 convolution, BN."""
    return normalise(convolve(x.clamp(min=0), module.conv.weight), module.norm)


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
@pytest.mark.parametrize("skip", ["none", "add", "concat"])
@pytest.mark.parametrize("upsampler", ["bilinear", "transposed_conv", "max_unpool"])
def test_ascent_equals_its_definition(upsampler: str, skip: str, size: tuple[int, int]) -> None:
    ascent = randomised(UpsamplePreprocess(5, 4, upsampler, skip, 3, nn.BatchNorm2d))  # type: ignore[arg-type]
    features, descent = noise(3, 5, 3, 4), noise(3, 3, *size, seed=2)
    if upsampler == "bilinear":
        up = interpolate(features, size)
    else:
        narrow = convolve(features.clamp(min=0), ascent.narrow.weight)
        up = normalise(ascent.doubling.up(narrow, size, descent), ascent.doubling.norm)
    if skip == "concat":
        up = brought(torch.cat([up, descent], 1), ascent.merge)
    elif upsampler == "bilinear":
        up = brought(up, ascent.merge)
    if skip == "add":
        up = up + brought(descent, ascent.side)
    result = ascent(features, size, descent)
    assert result.shape == (3, 4, *size)
    torch.testing.assert_close(result, up, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 2)])
def test_reduction_reads_every_second_pixel_and_those_between(size: tuple[int, int], channels: int) -> None:
    reduction = randomised(FactorizedReduce(3, channels, nn.BatchNorm2d))
    features = noise(3, 3, *size).clamp(min=0)
    height, width = -(-size[0] // 2), -(-size[1] // 2)
    between = torch.zeros(3, 3, height, width, dtype=torch.float64)
    pixels = features[:, :, 1::2, 1::2]
    between[:, :, : pixels.shape[2], : pixels.shape[3]] = pixels
    parts = [normalise(convolve(features[:, :, ::2, ::2], reduction.conv.weight), reduction.norm)]
    if channels > 1:
        parts.append(normalise(convolve(between, reduction.conv_offset.weight), reduction.norm_offset))
    torch.testing.assert_close(reduction(features, (height, width)), torch.cat(parts, 1), rtol=1e-9, atol=1e-9)


# --- networks ---------------------------------------------------------------------------------------------------------


def assert_trains_at_any_size(network: Network) -> None:
    """Logits at odd and even sizes, and gradients in every parameter."""
    for size in SIZES:
        assert network.eval()(torch.randn(1, 3, *size)).shape == (1, network.num_classes, *size)
        logits, auxiliary = network.train().forward_with_auxiliary(torch.randn(2, 3, *size))
        assert auxiliary is not None
        assert logits.shape == auxiliary.shape == (2, network.num_classes, *size)
    (logits.square().sum() + auxiliary.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


@pytest.mark.slow
@pytest.mark.parametrize("upsampler", [*UPSAMPLERS, "pixel_dcl_5x5"])
def test_every_upsampler_stands_on_up_moves(upsampler: str) -> None:
    torch.manual_seed(0)
    network = build_searched(make_hourglass([upsampler, "bilinear"], ["concat", "add"]), 3, auxiliary=True)
    assert_trains_at_any_size(network)


@pytest.mark.slow
@pytest.mark.parametrize("upsamplers", [[], ["max_unpool", "pixel_dcl"]])
@pytest.mark.parametrize("decoder", ["aspp", "deeplabv3plus", "unet", "fcn", "classifier"])
def test_every_decoder_at_any_size(decoder: str, upsamplers: list[str]) -> None:
    torch.manual_seed(0)
    genotype = make_genotype((4, 8, 8, 16), decoder=decoder, upsamplers=upsamplers)
    assert_trains_at_any_size(build_searched(genotype, 3, auxiliary=True))


@pytest.mark.slow
@pytest.mark.parametrize("upsampler", ["bilinear", "transposed_conv", "max_unpool"])
@pytest.mark.parametrize("decoder", ["deeplabv3plus", "unet"])
def test_several_paths_at_any_size(decoder: str, upsampler: str) -> None:
    torch.manual_seed(0)
    up_moves = len(make_multi().up_arrows)
    network = build_searched(make_multi([upsampler] * up_moves, decoder=decoder), 3, auxiliary=True)
    assert network.decoder.classifier.out_channels == 3
    assert_trains_at_any_size(network)


def test_arrivals_at_a_node_are_summed_before_its_one_cell() -> None:
    network = build_searched(make_multi(["bilinear"] * 4), 3)
    assert [len(reading.arrows) for reading in network.node_inputs] == [1, 1, 1, 2, 1, 1, 3, 1, 2, 2, 1]
    node = [reading.node for reading in network.node_inputs].index(Node(3, 1))
    cell, seen = network.cells[node], []
    for arrival in cell.preprocess_prev:
        arrival.register_forward_hook(lambda _, __, output: seen.append(output))
    cell.blocks[0][1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # prev, b1's second edge
    network(torch.randn(2, 3, 33, 47))
    assert [tuple(arrived.shape) for arrived in seen] == [(2, 6, 5, 6)] * 4
    torch.testing.assert_close(seen[0] + seen[1] + seen[2], seen[3])


def test_what_each_node_reads_as_prev_prev_stays() -> None:
    read = {reading.node: reading.prev_prev for reading in node_inputs(make_multi())}
    assert {read[Node(1, level)] for level in (0, 1)} == {FIRST_STEM_NODE}
    assert {read[Node(2, level)] for level in (0, 1, 2)} == {STEM_NODE}
    assert [read[Node(3, level)] for level in (0, 1, 2)] == [(1, 0), (1, 1), (1, 1)]
    assert [read[Node(4, level)] for level in (0, 1, 2)] == [(2, 0), (2, 1), (2, 2)]


def test_the_decoder_of_several_paths_reads_all_ends_at_the_finest_size() -> None:
    network = build_searched(make_multi(decoder="aspp"), 3)
    seen: list[Tensor] = []
    network.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.randn(2, 3, 33, 47))
    widths = [cell.out_channels for cell in network.cells[-3:]]
    assert seen[0].shape == (2, sum(widths), 9, 12)


def test_drop_path_grows_by_layer_not_by_cell() -> None:
    network = build_searched(make_multi(), 2)
    network.set_drop_path(0.2, 1.0)
    assert [cell.drop_probability for cell in network.cells] == pytest.approx(
        [0.2 * share for share in (0.25, 0.25, 0.5, 0.5, 0.5, 0.75, 0.75, 0.75, 1, 1, 1)]
    )


@pytest.mark.parametrize(
    ("strides", "decoder", "upsamplers", "nodes"),
    [
        ((4, 8, 4, 8, 16), "unet", [], [(4, 1), (3, 0)]),
        ((8, 16, 16, 32), "fcn", [], [(3, 2), (1, 1), (0, 0)]),
        ((4, 8, 16, 8), "classifier", ["max_unpool"], [(1, 0)]),
        ((4, 8, 16, 8), "aspp", [], []),
        ((4, 8, 16, 16), "deeplabv3plus", [], [(1, 0)]),
        ((4, 8, 16, 16), "deeplabv3plus", ["max_unpool", "nearest"], [(2, 1), (1, 0)]),
    ],
)
def test_the_decoder_reads_the_last_feature_of_each_stride(
    strides: tuple[int, ...], decoder: str, upsamplers: list[str], nodes: list[tuple[int, int]]
) -> None:
    assert decoder_nodes(make_genotype(strides, decoder=decoder, upsamplers=upsamplers)) == nodes


def test_the_low_level_feature_of_several_paths_is_the_last_at_its_stride() -> None:
    assert low_level_node(make_multi()) == Node(4, 0)
    assert low_level_node(make_multi(low_level_stride=8)) == Node(4, 1)
    assert low_level_node(make_multi(low_level_stride=2)) == STEM_NODE


def test_upsamplers_keep_their_own_initialisation() -> None:
    """He's would undo the bilinear, ICNR and averaging ones; 1x1 convolutions of the ascent get it all the same."""
    torch.manual_seed(0)
    network = build_searched(make_hourglass(["transposed_conv_bilinear", "pixel_shuffle_icnr"], ["none", "none"]), 3)
    first, second = (cell.preprocess_prev for cell in network.cells[3:])
    assert isinstance(first.doubling.up, TransposedConv)
    channels = first.narrow.out_channels
    for channel in range(channels):
        row = first.doubling.up.conv.weight[channel, channel, 1]
        torch.testing.assert_close(row, torch.tensor([0.1875, 0.5625, 0.5625, 0.1875]))
    shuffled = second.doubling.up.conv.weight
    assert torch.equal(shuffled[0], shuffled[1])
    assert float(first.narrow.weight.detach().std()) == pytest.approx((2 / channels) ** 0.5, rel=0.25)
