"""A genotype's network against a forward pass written out from FACTS, and what one expects of any network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.errors import raises_code
from helpers.genotypes import CHEAP, EVERY_OPERATION, make_genotype
from helpers.modules import noise, randomised
from helpers.oracle_operations import apply, conv_norm_relu, convolve, interpolate, normalise
from torch import Tensor, nn

from autoseg.errors import GenotypeError
from autoseg.network import Network, build_searched

DECODERS = ["aspp", "deeplabv3plus"]


def relu_conv_norm(x: Tensor, module: Any) -> Tensor:
    return normalise(convolve(x.clamp(min=0), module.conv.weight), module.norm)


def written_out(network: Network, images: Tensor) -> Tensor:
    """Training-mode logits, without dropout; only the weights are taken from `network`."""
    genotype = network.genotype
    outputs, x = [], images
    for number, (conv, norm) in enumerate(zip(network.stem.convs, network.stem.norms, strict=True)):
        x = normalise(convolve(x.clamp(min=0) if number else x, conv.weight, genotype.stem.strides[number]), norm)
        outputs.append(x)
    outputs = outputs[-2:]  # H(-1), H(0)
    before, height, width = 4, images.shape[2], images.shape[3]
    for cell, stride in zip(network.cells, genotype.network.strides, strict=True):
        prev, prev_prev = outputs[-1], outputs[-2]
        if stride < before:
            prev = interpolate(prev, (-(-height // stride), -(-width // stride)))
        if prev_prev.shape[2:] != prev.shape[2:]:
            prev_prev = interpolate(prev_prev, tuple(prev.shape[2:]))
        states = {
            "prev": relu_conv_norm(prev, cell.preprocess_prev),
            "prev_prev": relu_conv_norm(prev_prev, cell.preprocess_prev_prev),
        }
        for number, edges in enumerate(genotype.cell):
            total = torch.zeros(())
            for edge, operation in zip(edges, cell.blocks[number], strict=True):
                step = 2 if stride > before and edge.input in ("prev", "prev_prev") else 1
                total = total + apply(edge.operation, states[edge.input], operation, step)
            states[f"b{number + 1}"] = total
        outputs.append(torch.cat([states[f"b{number + 1}"] for number in range(len(genotype.cell))], 1))
        before = stride
    decoder, x = network.decoder, outputs[-1].clamp(min=0)
    aspp, rates = decoder.head.aspp, [rate // before for rate in genotype.decoder.aspp_rates]
    branches = [conv_norm_relu(x, aspp.pointwise)]
    branches += [conv_norm_relu(x, conv, rate) for conv, rate in zip(aspp.atrous, rates, strict=True)]
    branches.append(conv_norm_relu(x.mean((2, 3), keepdim=True), aspp.pooled).expand_as(branches[0]))
    x = conv_norm_relu(torch.cat(branches, 1), decoder.head.project)
    if genotype.decoder.name == "deeplabv3plus":
        layer = max(n for n, stride in enumerate((4, *genotype.network.strides)) if stride == 4)
        fine = conv_norm_relu(outputs[1 + layer], decoder.low_level)
        x = torch.cat([interpolate(x, tuple(fine.shape[2:])), fine], 1)
        x = conv_norm_relu(conv_norm_relu(x, decoder.refine[0]), decoder.refine[1])
    logits = convolve(x, decoder.classifier.weight) + decoder.classifier.bias.view(1, -1, 1, 1)
    return interpolate(logits, (height, width))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(65, 97), (64, 50)])
@pytest.mark.parametrize("strides", [(4, 8, 16, 8, 8, 4), (8, 8, 4, 4, 8, 16)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_logits_equal_those_written_out(decoder: str, strides: tuple[int, ...], size: tuple[int, int]) -> None:
    """Every operation on every move, sums of one to five inputs, at odd and even sizes."""
    network = build_searched(make_genotype(strides, EVERY_OPERATION, 2, decoder, aspp_rates=[16, 64]), 3)
    randomised(network)
    images = noise(3, 3, *size)
    torch.testing.assert_close(network(images), written_out(network, images), rtol=1e-7, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8, 16, 32, 16, 8, 4)])
def test_any_size_from_32_up_works(decoder: str, strides: tuple[int, ...]) -> None:
    network = build_searched(make_genotype(strides, decoder=decoder), 3)
    for size in [(32, 32), (33, 33), (32, 63), (64, 37), (50, 129)]:
        assert network.train()(torch.randn(2, 3, *size)).shape == (2, 3, *size)
        assert network.eval()(torch.randn(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("filters", [1, 3, 8, 17])
def test_any_filter_multiplier_works(filters: int) -> None:
    network = build_searched(make_genotype((4, 8, 16, 8), EVERY_OPERATION, filters), 2)
    assert [cell.out_channels for cell in network.cells] == [4 * filters * scale for scale in (1, 2, 4, 2)]
    assert network(torch.randn(2, 3, 40, 33)).shape == (2, 2, 40, 33)


@pytest.mark.parametrize(
    ("stem_strides", "strides", "low_level_stride", "layer"),
    [
        ((2, 1, 2), (4, 4, 8, 4, 8, 16), 4, 4),
        ((2, 1, 2), (4, 4, 4, 8, 16, 8), 4, 3),
        ((2, 1, 2), (8, 8, 16), 4, 0),
        ((2, 1, 2), (8, 4), 4, 2),
        ((2, 1, 1), (2, 4, 4, 8), 4, 3),
        ((2, 1, 1), (2, 4, 8, 8), 2, 1),
        ((2, 1, 1), (4, 8), 2, 0),
        ((2, 1, 1), (2, 2), 4, 0),
    ],
)
def test_low_level_feature_is_the_last_at_its_stride_or_the_stem(
    stem_strides: tuple[int, ...], strides: tuple[int, ...], low_level_stride: int, layer: int
) -> None:
    genotype = make_genotype(strides, stem=((4, 6, 5), stem_strides), low_level_stride=low_level_stride)
    network = build_searched(genotype, 2)
    seen: dict[str, Tensor] = {}
    source = network.stem if layer == 0 else network.cells[layer - 1]
    source.register_forward_hook(lambda _, __, output: seen.update(made=output[1] if layer == 0 else output))
    network.decoder.low_level.register_forward_hook(lambda _, inputs, __: seen.update(read=inputs[0]))
    network(torch.randn(2, 3, 32, 32))
    assert network.decoder_nodes[-1].layer == layer
    assert seen["read"] is seen["made"]


def test_auxiliary_head_works_in_training_only() -> None:
    network = build_searched(make_genotype((4, 8, 8, 16, 8, 4)), 3, auxiliary=True)
    assert network.auxiliary_node == (4, 2)
    images = torch.randn(2, 3, 37, 50)
    logits, auxiliary = network.forward_with_auxiliary(images)
    assert auxiliary is not None
    assert logits.shape == auxiliary.shape == (2, 3, 37, 50)
    network.eval()
    logits, auxiliary = network.forward_with_auxiliary(images)
    assert auxiliary is None
    assert torch.equal(logits, network(images))


def test_without_auxiliary_head_there_are_no_auxiliary_logits() -> None:
    network = build_searched(make_genotype(), 3)
    assert network.forward_with_auxiliary(torch.randn(2, 3, 32, 32))[1] is None
    assert not any(name.startswith("auxiliary") for name in network.state_dict())


def test_drop_path_grows_with_depth_and_progress() -> None:
    network = build_searched(make_genotype((4, 8, 8, 4)), 2)
    assert [cell.drop_probability for cell in network.cells] == [0, 0, 0, 0]
    for progress in (0.0, 0.25, 1.0):
        network.set_drop_path(0.2, progress)
        assert [cell.drop_probability for cell in network.cells] == pytest.approx(
            [0.2 * progress * share for share in (0.25, 0.5, 0.75, 1)]
        )


def test_drop_path_changes_training_but_not_evaluation() -> None:
    torch.manual_seed(0)
    network = build_searched(make_genotype(), 2)
    images = torch.randn(4, 3, 32, 32)
    network.eval()
    whole = network(images)
    network.set_drop_path(0.5, 1.0)
    assert torch.equal(network(images), whole)
    network.train()
    assert not torch.equal(network(images), network(images))


@pytest.mark.parametrize("decoder", DECODERS)
def test_gradients_reach_every_parameter(decoder: str) -> None:
    torch.manual_seed(0)
    network = build_searched(make_genotype((4, 8, 16, 8), EVERY_OPERATION, decoder=decoder), 3, auxiliary=True).double()
    logits, auxiliary = network.forward_with_auxiliary(noise(3, 3, 40, 49))
    assert auxiliary is not None
    (logits * noise(*logits.shape) + auxiliary * noise(*logits.shape, seed=2)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 1e-12, name
        assert bool(parameter.grad.isfinite().all()), name


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        network = build_searched(make_genotype(cell=EVERY_OPERATION), 3, auxiliary=True)
        return nn.utils.parameters_to_vector(network.parameters()).detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_convolutions_have_no_bias_and_batch_norm_the_published_constants() -> None:
    network = build_searched(make_genotype(), 3)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            assert (module.bias is not None) == (name == "decoder.classifier"), name
        elif isinstance(module, nn.BatchNorm2d):
            assert module.eps == (1e-5 if name.startswith("decoder") else 1e-3), name
            assert module.momentum == 3e-4, name
            assert module.affine, name


@pytest.mark.parametrize("num_classes", [1, 0, -3])
def test_fewer_than_two_classes_are_refused(num_classes: int) -> None:
    with raises_code(GenotypeError, "too-few-classes", f"not {num_classes}"):
        build_searched(make_genotype(cell=CHEAP), num_classes)
