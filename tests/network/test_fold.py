"""Networks made ready for use: convolutions do what BatchNorm did, bf16 within a bound, channels_last throughout."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from helpers.errors import raises_code
from helpers.genotypes import EVERY_OPERATION, make_genotype, make_hourglass, make_multi
from helpers.modules import noise
from torch import Tensor, nn

from autoseg.errors import ConfigError
from autoseg.genotype.schema import Genotype
from autoseg.network import Network, build_searched, fold_batch_norm, for_inference
from autoseg.ops.heads import AsppHead, AuxiliaryHead, DeepLabV3PlusDecoder, FcnDecoder, ScoreDecoder, Stem, UNetDecoder
from autoseg.ops.layers import ReluConvNorm
from autoseg.registry import OPERATIONS, DecoderInputs
from autoseg.space.groups import DecoderSpec

CPU = torch.device("cpu")
NORM = partial(nn.BatchNorm2d, eps=1e-3)
INPUTS = DecoderInputs(3, [2], 5, DecoderSpec(filters=4), [], NORM, ("transposed_conv",))
SIZES = [(32, 32), (33, 47), (50, 65)]
GENOTYPES = {
    decoder: make_genotype((4, 8, 16, 8, 8, 4), EVERY_OPERATION, 4, decoder, aspp_rates=[16, 64])
    for decoder in ("aspp", "deeplabv3plus")
}


def trained(module: nn.Module) -> nn.Module:
    """In evaluation mode, with factors, shifts and statistics as a training might leave them."""
    generator = torch.Generator().manual_seed(0)
    for norm in batch_norms(module):
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.normal_(0, 0.3, generator=generator)
        norm.running_mean.normal_(0, 0.3, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
    return module.eval()


def batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


def network_of(decoder: str, auxiliary: bool = False) -> Network:
    torch.manual_seed(0)
    network = build_searched(GENOTYPES[decoder], 5, auxiliary)
    trained(network)
    return network


def assert_equal(result: Tensor, expected: Tensor) -> None:
    """To 1e-10 of the largest value."""
    assert result.shape == expected.shape
    assert float((result - expected).detach().abs().max()) <= 1e-10 * float(expected.detach().abs().max())


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_folds(name: str, stride: int) -> None:
    operation = trained(OPERATIONS[name].build(3, stride, NORM).double())
    folded = fold_batch_norm(operation)
    assert batch_norms(folded) == []
    for size in [(1, 1), (5, 5), (6, 9)]:
        assert_equal(folded(noise(2, 3, *size)), operation(noise(2, 3, *size)))


@pytest.mark.parametrize(
    ("part", "shapes"),
    [
        (Stem((4, 6, 5), (2, 1, 2), NORM), [(3, 17, 22)]),
        (Stem((4,), (2,), NORM), [(3, 17, 22)]),
        (ReluConvNorm(3, 4, NORM), [(3, 5, 6)]),
        (ScoreDecoder(AsppHead(3, 4, [1, 2], NORM, 0.1), 4, 5), [(3, 5, 4)]),
        (DeepLabV3PlusDecoder(3, 2, 5, 4, 3, [2], 0.1, NORM), [(3, 4, 5), [(2, 7, 10)]]),
        (UNetDecoder(INPUTS), [(3, 4, 5), [(2, 7, 10)]]),
        (FcnDecoder(INPUTS), [(3, 4, 5), [(2, 7, 10)]]),
        (AuxiliaryHead(8, 3, NORM), [(8, 4, 5)]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_stem_and_heads_fold(part: nn.Module, shapes: list[Any]) -> None:
    """Shapes without the images; a list of several in place of a shape is one argument."""
    part = trained(copy.deepcopy(part).double())
    folded = fold_batch_norm(part)
    assert batch_norms(folded) == []
    features = [[noise(2, *one) for one in shape] if isinstance(shape, list) else noise(2, *shape) for shape in shapes]
    results, expected = folded(*features), part(*features)
    for result, value in zip(results, expected, strict=True):  # of the stem two features, else image by image
        assert_equal(result, value)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", GENOTYPES)
def test_a_folded_network_gives_the_same_logits(decoder: str) -> None:
    network = network_of(decoder, auxiliary=True).double()
    folded = fold_batch_norm(network)
    assert batch_norms(folded) == []
    for size in SIZES:
        assert_equal(folded(noise(2, 3, *size)), network(noise(2, 3, *size)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("genotype", "left"),
    [
        (make_hourglass(["transposed_conv", "bilinear"], ["concat", "add"]), 0),
        (make_multi(["transposed_conv", "max_unpool", "bilinear", "pixel_dcl"]), 2),
        (make_genotype((4, 8, 16), decoder="unet", upsamplers=["pixel_shuffle", "transposed_conv"]), 1),
    ],
    ids=["hourglass", "multi", "unet"],
)
def test_networks_with_upsamplers_fold(genotype: Genotype, left: int) -> None:
    """A BatchNorm after a transposed convolution is merged; the other upsamplers do not end in one convolution."""
    torch.manual_seed(0)
    network = trained(build_searched(genotype, 5).double())
    folded = fold_batch_norm(network)
    assert len(batch_norms(folded)) == left
    for size in SIZES:
        assert_equal(folded(noise(2, 3, *size)), network(noise(2, 3, *size)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto_deeplab_s", "auto_deeplab_m", "auto_deeplab_l"])
def test_the_published_networks_fold(name: str) -> None:
    torch.manual_seed(0)
    network = trained(build_searched(Genotype.load(name), 19).double())
    folded = fold_batch_norm(network)
    assert batch_norms(folded) == []
    with torch.no_grad():
        assert_equal(folded(noise(1, 3, 33, 47)), network(noise(1, 3, 33, 47)))


@pytest.mark.slow
def test_the_network_stays_as_it_was() -> None:
    network = network_of("aspp", auxiliary=True).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_batch_norm(network)
    assert network.training
    assert not folded.training
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert not any(parameter.grad_fn or not parameter.requires_grad for parameter in network.parameters())


def test_what_says_nothing_of_its_parts_stays() -> None:
    """Whether a BatchNorm reads a convolution alone cannot be told from their names."""
    module = trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).double())
    folded = fold_batch_norm(module)
    assert len(batch_norms(folded)) == 1
    assert torch.equal(folded(noise(2, 3, 4, 4)), module(noise(2, 3, 4, 4)))


# --- layout and precision ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "genotype",
    [
        GENOTYPES["deeplabv3plus"],
        make_hourglass(["transposed_conv", "pixel_dcl"], ["concat", "add"]),
        make_hourglass(["max_unpool", "bilinear"], ["none", "concat"]),
        make_multi(["pixel_shuffle"] * 4, decoder="unet"),
    ],
    ids=["deeplabv3plus", "concat", "unpool", "multi"],
)
def test_features_stay_in_channels_last_throughout(genotype: Genotype) -> None:
    torch.manual_seed(0)
    network = for_inference(trained(build_searched(genotype, 5)), CPU)
    strayed: list[str] = []
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: (
                    None if inputs[0].is_contiguous(memory_format=torch.channels_last) else strayed.append(name)
                )
            )
    network(torch.randn(2, 3, 65, 97).contiguous(memory_format=torch.channels_last))
    assert strayed == []


@pytest.mark.slow
@pytest.mark.parametrize("decoder", GENOTYPES)
def test_bf16_is_within_its_bound_of_float64(decoder: str) -> None:
    """No logit is off by more than a tenth of the largest, and their errors by a twentieth of the logits' spread.

    In float32 the same are 1e-5 and 1e-6.
    """
    network = network_of(decoder)
    images = noise(2, 3, 65, 97)
    with torch.no_grad():
        expected = copy.deepcopy(network).double()(images)
        for precision, dtype, largest, spread in (
            ("float32", torch.float32, 1e-5, 1e-6),
            ("bf16", torch.bfloat16, 0.1, 0.05),
        ):
            ready = for_inference(network, CPU, precision)
            assert {parameter.dtype for parameter in ready.parameters()} == {dtype}
            logits = ready(images.to(dtype))
            assert logits.dtype == torch.float32  # also of bf16: where classes are close, there must be no ties
            errors = logits.double() - expected
            assert float(errors.abs().max() / expected.abs().max()) < largest
            assert float(errors.std() / expected.std()) < spread
            if precision == "bf16":
                assert float(errors.std() / expected.std()) > 1e-4  # it is bf16 indeed


@pytest.mark.slow
def test_a_network_for_use_needs_no_gradients() -> None:
    network = network_of("aspp")
    assert not any(parameter.requires_grad for parameter in for_inference(network, CPU).parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_an_unknown_precision_is_refused() -> None:
    with raises_code(ConfigError, "unknown-precision", "precision", "float32 or bf16", "fp8"):
        for_inference(network_of("aspp"), CPU, "fp8")


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "largest"), [("float32", 1e-2), ("bf16", 0.1)])
def test_on_the_gpu(precision: str, largest: float) -> None:
    """Convolutions in float32 may use TF32 there, whose products have ten bits."""
    network = network_of("deeplabv3plus")
    images = noise(2, 3, 65, 97)
    with torch.no_grad():
        expected = copy.deepcopy(network).double()(images)
        ready = for_inference(network, torch.device("cuda"), precision)
        dtype = next(ready.parameters()).dtype
        logits = ready(images.to("cuda", dtype, memory_format=torch.channels_last)).cpu()
    assert float((logits.double() - expected).abs().max() / expected.abs().max()) < largest
