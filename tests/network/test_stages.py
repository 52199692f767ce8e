"""Networks of stages: their nodes written out from the definitions, sizes, folding and drop path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.modules import noise, randomised
from helpers.oracle_blocks import apply
from helpers.oracle_operations import convolve, interpolate, normalise
from helpers.wide_spaces import KINDS, STAGES, drawn, of_stages
from torch import Tensor, nn

from autoseg.analysis.receptive_field import receptive_field
from autoseg.genotype.schema import Genotype
from autoseg.network import build_searched, fold_batch_norm
from autoseg.network.stage import Stage
from autoseg.ops.layers import DropPath
from autoseg.ops.resize import level_size
from autoseg.registry import BLOCKS
from autoseg.space.trellis import FIRST_STEM_NODE, STEM_NODE, Move, Node

SIZE = (33, 46)


def relu_conv_norm(x: Tensor, module: Any) -> Tensor:
    return normalise(convolve(x.clamp(min=0), module.conv.weight), module.norm)


def arrived(move: Move, x: Tensor, module: Any, size: tuple[int, int]) -> Tensor:
    """What an arrow brings to a sum, at the stage's size and width."""
    if move is Move.DOWN:  # two 1x1 convolutions of stride 2, the second a pixel further
        x = x.clamp(min=0)
        first = normalise(convolve(x, module.conv.weight, 2), module.norm)
        shifted = torch.zeros_like(x)
        shifted[:, :, :-1, :-1] = x[:, :, 1:, 1:]
        return torch.cat([first, normalise(convolve(shifted, module.conv_offset.weight, 2), module.norm_offset)], 1)
    if not hasattr(module, "conv"):
        return x.clamp(min=0)
    return relu_conv_norm(interpolate(x, size) if move is Move.UP else x, module)


@pytest.mark.parametrize("name", ["path", "several paths"])
def test_every_node_equals_its_definition(name: str) -> None:
    """In training mode; only the weights are taken from the network."""
    genotype = of_stages(name)
    network, made = randomised(build_searched(genotype, 3)), dict[Node, Tensor]()
    for inputs, stage in zip(network.node_inputs, network.cells, strict=True):
        stage.register_forward_hook(lambda _, given, output, node=inputs.node: made.update({node: output}))
    images = noise(2, 3, *SIZE)
    network(images)
    made |= dict(zip((FIRST_STEM_NODE, STEM_NODE), network.stem(images), strict=True))
    for inputs, stage in zip(network.node_inputs, network.cells, strict=True):
        node, spec = inputs.node, STAGES[inputs.node.level]
        size = level_size(SIZE, genotype.stride(node.level))
        given = [made[arrow.source] for arrow in inputs.arrows]
        stride = 2 if [arrow.move for arrow in inputs.arrows] == [Move.DOWN] else 1
        if len(given) > 1 or inputs.arrows[0].move is Move.UP:
            parts = zip(inputs.arrows, given, stage.preprocess_prev, strict=True)
            given = [sum(arrived(arrow.move, x, module, size) for arrow, x, module in parts)]
        x = given[0].clamp(min=0)
        assert len(stage.blocks) == spec.get("depth", 1)
        for number, block in enumerate(stage.blocks):
            x = apply(spec["block"], x, block, 1 if number else stride)
        assert tuple(x.shape) == (2, spec["filters"], *size)
        torch.testing.assert_close(made[node], x, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("paths", ["single", "multi"])
def test_drawn_networks_keep_sizes_and_fold(paths: str) -> None:
    """Of every block and decoder, and images of odd and of the smallest sides."""
    for seed in range(3):
        torch.manual_seed(seed)
        network = build_searched(drawn(seed, paths=[paths], blocks=list(BLOCKS), upsamplers=["bilinear"]), 3).double()
        network(noise(2, 3, 64, 64))  # statistics as a training might leave them
        folded = fold_batch_norm(network)
        assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
        for size in ((32, 32), (33, 47)):
            with torch.no_grad():
                images = noise(2, 3, *size)
                expected = network.eval()(images)
                assert expected.shape == (2, 3, *size)
                torch.testing.assert_close(folded(images), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_trained_with_drop_path_and_an_auxiliary_head(name: str) -> None:
    torch.manual_seed(0)
    network = build_searched(of_stages(name), 3, auxiliary=True)
    network.set_drop_path(0.4, 0.5)
    for inputs, node in zip(network.node_inputs, network.cells, strict=True):
        probability = 0.2 * inputs.node.layer / network.genotype.layers
        parts = [part for part in node.modules() if isinstance(part, DropPath)]
        assert [part.drop_probability for part in parts] == [pytest.approx(probability)] * len(parts)
        assert len(parts) == dropping(node)
    logits, auxiliary = network.forward_with_auxiliary(torch.randn(2, 3, *SIZE))
    assert auxiliary is not None
    assert logits.shape == auxiliary.shape == (2, 3, *SIZE)
    (logits.mean() + auxiliary.mean()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def dropping(node: nn.Module) -> int:
    """Parts that drop branches: the cell, or every block of a stage but those of convolutions alone."""
    return 1 if not isinstance(node, Stage) else sum(hasattr(block, "branch") for block in node.blocks)


def test_the_receptive_field_of_a_network_of_stages() -> None:
    """By hand, each convolution adds its reach times the stride before it."""
    stages = [
        {"stride": 2, "block": "conv_3x3", "filters": 2},
        {"stride": 4, "block": "atrous_residual", "filters": 2},
    ]
    genotype = of_stages("path").to_dict() | {
        "stages": stages, "network": {"strides": [2, 4], "filter_multiplier": 2}, "decoder": {"name": "classifier"}
    }  # fmt: skip
    network = build_searched(Genotype.parse(genotype), 2)
    # stem 3; conv 3x3 at stride 2: +4; first 3x3 of the residual at stride 2: +4; the second at rate 2, stride 4: +16
    assert receptive_field(network) == 3 + 4 + 4 + 16
