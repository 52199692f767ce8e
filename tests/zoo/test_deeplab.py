"""DeepLab v1 to v3+: published parameters, rates, sums of branches and what is joined, by hand; export."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.zoo_contract import CLASSES, SIZES, assert_contract, assert_traces, count_parameters, made, noise, record
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.export import export_network
from autoseg.export.formats import load_onnx
from autoseg.network.base import SegmentationNetwork
from autoseg.ops.resize import resize
from autoseg.zoo.build import build_network
from autoseg.zoo.deeplab import DeepLabV1, DeepLabV2, DeepLabV3, DeepLabV3Cascade, DeepLabV3Plus, rates_at
from autoseg.zoo.resnet import ResNet
from autoseg.zoo.schema import FixedNetwork
from autoseg.zoo.vgg import VGG16
from autoseg.zoo.xception import Xception65

WIDTH = 0.05


def vgg(output_stride: int = 8, width: float = WIDTH) -> VGG16:
    return VGG16(3, width, False, output_stride, 3)


def resnet(output_stride: int = 16, width: float = WIDTH, **options: Any) -> ResNet:
    return ResNet(50, 3, width, output_stride, **options)


def v1(output_stride: int = 8, first: Any = "3x3") -> DeepLabV1:
    return DeepLabV1(vgg(output_stride), CLASSES, first)


def v2(output_stride: int = 8, of_vgg: bool = False) -> DeepLabV2:
    backbone = vgg(output_stride) if of_vgg else resnet(output_stride)
    return DeepLabV2(backbone, CLASSES)


def v3(output_stride: int = 16) -> DeepLabV3:
    return DeepLabV3(resnet(output_stride, multi_grid=(1, 2, 4)), CLASSES)


def cascade(output_stride: int = 16) -> DeepLabV3Cascade:
    return DeepLabV3Cascade(resnet(output_stride, multi_grid=(1, 2, 1), extra_blocks=3), CLASSES)


def v3_plus(output_stride: int = 16, separable: bool = False) -> DeepLabV3Plus:
    return DeepLabV3Plus(resnet(output_stride), CLASSES, separable=separable)


def v3_plus_xception(output_stride: int = 16) -> DeepLabV3Plus:
    return DeepLabV3Plus(Xception65(3, WIDTH, output_stride), CLASSES, separable=True)


PUBLISHED = {
    "v1": (lambda: DeepLabV1(vgg(8, 1), 21), 20_505_429),
    "v1 4x4": (lambda: DeepLabV1(vgg(8, 1), 21, "4x4"), 65_140_565),
    "v1 7x7": (lambda: DeepLabV1(vgg(8, 1), 21, "7x7"), 134_346_581),
    "v2 VGG16": (lambda: DeepLabV2(vgg(8, 1), 21), 37_877_652),
    "v2 ResNet-101": (lambda: DeepLabV2(ResNet(101, output_stride=8), 21), 44_048_532),
    "v3 ResNet-101": (lambda: DeepLabV3(ResNet(101, output_stride=16), 21), 58_040_661),
    "v3+ ResNet-101": (lambda: DeepLabV3Plus(ResNet(101, output_stride=16), 21), 59_344_309),
    "v3+ ResNet-101 separable": (lambda: DeepLabV3Plus(ResNet(101, output_stride=16), 21, separable=True), 45_688_261),
    "v3+ Xception-65": (lambda: DeepLabV3Plus(Xception65(), 21, separable=True), 41_055_413),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published(name: str) -> None:
    build, parameters = PUBLISHED[name]
    assert count_parameters(build) == parameters


def test_parameters_of_the_cascade() -> None:
    """ResNet-101, three more blocks like its last one but with 2,048 channels before, and a 1x1 classifier."""
    bottleneck = 2048 * 512 + 9 * 512 * 512 + 512 * 2048 + 2 * (512 + 512 + 2048)
    block = 3 * bottleneck + 2048 * 2048 + 2 * 2048
    expected = 42_500_160 + 3 * block + 2048 * 21 + 21
    assert count_parameters(lambda: DeepLabV3Cascade(ResNet(101, extra_blocks=3, output_stride=16), 21)) == expected


BUILDS = {
    "v1": v1,
    "v1 4x4 at 32": partial(v1, 32, "4x4"),  # an even kernel at an odd rate, which no symmetric padding fits
    "v1 7x7": partial(v1, 16, "7x7"),
    "v2 VGG16": partial(v2, 16, True),
    "v2 ResNet": v2,
    "v3": v3,
    "v3 cascade": cascade,
    "v3+": partial(v3_plus, 8),
    "v3+ separable": partial(v3_plus, 32, True),
    "v3+ Xception": v3_plus_xception,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDS)
def test_contract(name: str) -> None:
    assert_contract(BUILDS[name])


# --- output strides and rates -----------------------------------------------------------------------------------------


def test_rates_follow_the_output_stride() -> None:
    assert rates_at((6, 12, 18, 24), 8, 8) == (6, 12, 18, 24)
    assert rates_at((6, 12, 18, 24), 8, 16) == (3, 6, 9, 12)
    assert rates_at((6, 12, 18), 16, 8) == (12, 24, 36)
    assert rates_at((4, 2, 1), 8, 32) == (1, 1, 1)


@pytest.mark.parametrize(
    ("build", "layer", "rates"),
    [
        (v1, "fully_connected.fc6", {8: 12, 16: 6}),
        (partial(v1, first="4x4"), "fully_connected.fc6", {8: 4, 16: 2}),
        (partial(v2, of_vgg=True), "branches.3.fully_connected.fc6", {8: 24, 16: 12}),
        (v2, "branches.0", {8: 6, 16: 3}),
        (v3, "decoder.head.aspp.atrous.1.0", {16: 12, 8: 24}),
        (v3_plus, "decoder.head.aspp.atrous.2.0", {16: 18, 8: 36}),
    ],
)
def test_rate_and_size_of_the_feature_it_reads(build: Any, layer: str, rates: dict[int, int]) -> None:
    weights = made(build).state_dict()
    for output_stride, rate in rates.items():
        network = build(output_stride=output_stride).eval()
        network.load_state_dict(weights)
        conv = network.get_submodule(layer)
        assert conv.dilation == (rate, rate)
        seen = record(network, layer)
        network(noise(1, 3, 65, 97))
        before, after = seen[layer]
        assert before.shape[-2:] == after.shape[-2:] == (64 // output_stride + 1, 96 // output_stride + 1)


def test_v2_at_a_smaller_output_stride_fills_in_between() -> None:
    """Rarefaction, to the borders: every second of the denser scores is one of the coarser ones."""
    coarse, images = made(partial(v2, 16)), noise(1, 3, 129, 97)
    fine = v2(8).eval()
    fine.load_state_dict(coarse.state_dict())

    def scores(network: SegmentationNetwork) -> Tensor:
        features = network.backbone(images)[-1]
        return torch.stack([branch(features) for branch in network.branches]).sum(0)

    torch.testing.assert_close(scores(fine)[:, :, ::2, ::2], scores(coarse), rtol=1e-3, atol=1e-5)


# --- what is added and joined -----------------------------------------------------------------------------------------


def test_v1_by_hand() -> None:
    network, images = made(v1), noise(2, 3, 65, 40)
    connected = network.fully_connected
    features = network.backbone(images).pooled[-1]
    features = F.relu(F.conv2d(features, connected.fc6.weight, connected.fc6.bias, padding=12, dilation=12))
    scores = network.score(F.relu(connected.fc7(features)))
    torch.testing.assert_close(network(images), resize(scores, (65, 40)))


@pytest.mark.parametrize("of_vgg", [True, False])
def test_v2_is_the_sum_of_its_branches(of_vgg: bool) -> None:
    network, images = made(partial(v2, of_vgg=of_vgg)), noise(2, 3, 65, 40)
    found = network.backbone(images)
    features = (found.pooled if of_vgg else found)[-1]
    scores = []
    for branch, rate in zip(network.branches, (6, 12, 18, 24), strict=True):
        first = branch.fully_connected.fc6 if of_vgg else branch
        score = F.conv2d(features, first.weight, first.bias, padding=rate, dilation=rate)
        if of_vgg:
            score = branch.score(F.relu(branch.fully_connected.fc7(F.relu(score))))
        scores.append(score)
    torch.testing.assert_close(network(images), resize(sum(scores), (65, 40)))  # type: ignore[arg-type]


def test_v3_scores_the_projected_pyramid_of_the_last_feature() -> None:
    network, images = made(v3), noise(2, 3, 65, 40)
    features = network.backbone(images)[-1]
    aspp = network.decoder.head.aspp
    assert len(aspp.atrous) == 3
    pooled = aspp.pooled(features.mean((2, 3), keepdim=True)).expand(-1, -1, *features.shape[-2:])
    pyramid = torch.cat([aspp.pointwise(features), *(branch(features) for branch in aspp.atrous), pooled], 1)
    scores = network.decoder.classifier(network.decoder.head.project(pyramid))
    torch.testing.assert_close(network(images), resize(scores, (65, 40)))


def test_the_cascade_scores_its_last_block() -> None:
    network, images = made(cascade), noise(2, 3, 65, 40)
    features = network.backbone(images)
    assert len(features) == 7
    torch.testing.assert_close(network(images), resize(network.score(features[-1]), (65, 40)))


@pytest.mark.parametrize("build", [v3_plus, v3_plus_xception])
def test_v3_plus_refines_the_upsampled_pyramid_with_the_first_feature(build: Any) -> None:
    network, images = made(build), noise(2, 3, 65, 40)
    features = network.backbone(images)
    assert features[0].shape[-2:] == (17, 10), "stride 4"
    decoder = network.decoder
    fine = decoder.low_level(features[0])
    refined = decoder.refine(torch.cat([resize(decoder.head(features[-1]), (17, 10)), fine], 1))
    torch.testing.assert_close(network(images), resize(decoder.classifier(refined), (65, 40)))


def test_separable_convolutions_are_depthwise_and_1x1_each_with_norm_and_relu() -> None:
    network = v3_plus(separable=True)
    for block in (*network.decoder.head.aspp.atrous, *network.decoder.refine):
        kinds = [type(layer) for layer in block]
        assert kinds == 2 * [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
        depthwise, pointwise = block[0], block[3]
        assert depthwise.groups == depthwise.in_channels == depthwise.out_channels
        assert (depthwise.kernel_size, pointwise.kernel_size) == ((3, 3), (1, 1))


# --- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1 4x4 at 32", "v3+ separable"])
def test_one_graph_for_every_size(name: str) -> None:
    assert_traces(BUILDS[name])


@pytest.mark.slow
def test_onnx_by_the_same_way_as_any_network(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    architecture = FixedNetwork.parse({"name": "deeplabv2_vgg16", "width": WIDTH})
    network = made(lambda: build_network(architecture, CLASSES))
    export_network(network, tmp_path / "network.onnx", "onnx", metadata={})
    run = load_onnx(tmp_path / "network.onnx")
    for images, size in enumerate(SIZES, start=1):
        batch = noise(images, 3, *size)
        torch.testing.assert_close(run(batch), network(batch), rtol=1e-3, atol=1e-4)
