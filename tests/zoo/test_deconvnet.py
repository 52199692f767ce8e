"""DeconvNet and SegNet: published parameters, unpooling where it was pooled, export."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from helpers.zoo_contract import CLASSES, assert_contract, assert_traces, count_parameters, made, noise
from torch import Tensor
from torch.nn import functional as F

from autoseg.network.base import SegmentationNetwork
from autoseg.ops.upsample import unpool
from autoseg.zoo.deconvnet import DeconvNet, SegNet
from autoseg.zoo.vgg import VGG16

WIDTH = 0.06


def whole(kind: type[DeconvNet] | type[SegNet], batch_norm: bool, classes: int = 21) -> SegmentationNetwork:
    return kind(VGG16(batch_norm=batch_norm), classes, batch_norm)


def deconvnet(batch_norm: bool = True) -> DeconvNet:
    return DeconvNet(VGG16(3, WIDTH, batch_norm), CLASSES)


def segnet(batch_norm: bool = True) -> SegNet:
    return SegNet(VGG16(3, WIDTH, batch_norm), CLASSES)


@pytest.mark.parametrize(("batch_norm", "parameters"), [(True, 251_805_653), (False, 251_772_245)])
def test_parameters_of_deconvnet_as_published(batch_norm: bool, parameters: int) -> None:
    assert count_parameters(lambda: whole(DeconvNet, batch_norm)) == parameters


@pytest.mark.parametrize("batch_norm", [True, False])
def test_parameters_of_segnet(batch_norm: bool) -> None:
    """The convolutions in the paper's order, with biases; BN after all but the last."""
    encoder = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    decoder = [512, 512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 12]
    convs = [*pairwise(encoder), *pairwise(decoder)]
    expected = sum(9 * before * after + after for before, after in convs)
    if batch_norm:
        expected += 2 * sum(after for _, after in convs[:-1])
    assert count_parameters(lambda: whole(SegNet, batch_norm, 12)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("build", [deconvnet, segnet, partial(deconvnet, False), partial(segnet, False)])
def test_contract(build: partial[SegmentationNetwork]) -> None:
    assert_contract(build)


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
@pytest.mark.parametrize("build", [deconvnet, segnet])
def test_unpools_where_it_pooled(build: partial[DeconvNet | SegNet], size: tuple[int, int]) -> None:
    """By PyTorch's own pooling with indices and unpooling, layer by layer."""
    network = made(build)
    images = noise(2, 3, *size)
    features, poolings = images, []
    for layer in network.backbone.features:
        if type(layer).__name__ == "MaxPool":
            before = features.shape
            features, places = F.max_pool2d(features, 2, ceil_mode=True, return_indices=True)
            poolings.append((places, before))
        else:
            features = layer(features)
    if isinstance(network, DeconvNet):
        connected = network.fully_connected
        for conv, norm in ((connected.fc6, connected.norm6), (connected.fc7, connected.norm7)):
            padding = conv.kernel_size[0] // 2
            features = F.relu(norm(F.conv2d(features, conv.weight, conv.bias, padding=padding)))
        features = network.fc6_mirror(features)
    for stage, (places, before) in zip(network.up, reversed(poolings), strict=True):
        features = stage(F.max_unpool2d(features, places, 2, output_size=before[-2:]))
    torch.testing.assert_close(network(images), network.score(features), rtol=1e-4, atol=1e-5)


def test_a_deconvolution_of_stride_1_is_a_convolution_with_its_kernel_turned() -> None:
    """As the module's docstring says of DeconvNet: nothing is lost by writing one for the other."""
    features, kernel = noise(1, 4, 9, 7), noise(4, 3, 7, 7, seed=1)
    turned = kernel.flip(2, 3).transpose(0, 1)
    torch.testing.assert_close(F.conv_transpose2d(features, kernel, padding=3), F.conv2d(features, turned, padding=3))


@pytest.mark.parametrize("build", [deconvnet, segnet])
def test_dropout_is_where_it_says(build: partial[DeconvNet | SegNet]) -> None:
    network = made(build).train()
    images = noise(1, 3, 64, 64)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    places = (
        [network.fully_connected.dropout6, network.fully_connected.dropout7]
        if isinstance(network, DeconvNet)
        else [network.dropout]
    )
    assert torch.equal(network(images), network(images))
    for place in places:
        place.p = 0.5
    assert not torch.equal(network(images), network(images))


# --- unpooling --------------------------------------------------------------------------------------------------------


def through_pytorch(features: Tensor, guide: Tensor) -> Tensor:
    _, places = F.max_pool2d(guide, 2, ceil_mode=True, return_indices=True)
    return F.max_unpool2d(features, places, 2, output_size=guide.shape[-2:])


@pytest.mark.parametrize("size", [(6, 8), (5, 8), (6, 7), (5, 7), (1, 1)])
def test_unpool_is_pytorchs(size: tuple[int, int]) -> None:
    guide = F.relu(noise(2, 3, *size))  # with windows of zeros alone
    features = noise(2, 3, (size[0] + 1) // 2, (size[1] + 1) // 2, seed=1).requires_grad_()
    result = unpool(features, guide)
    assert torch.equal(result, through_pytorch(features, guide))
    result.sum().backward()
    assert torch.equal(features.grad, torch.ones_like(features))  # type: ignore[arg-type]
    assert torch.equal(unpool(features, guide, size), result)


@pytest.mark.slow
def test_one_graph_for_every_size() -> None:
    assert_traces(partial(segnet, False))
