"""FCN-32s, -16s, -8s: published parameters, sums of scores by hand, output strides, export."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers.zoo_contract import CLASSES, assert_contract, assert_traces, count_parameters, made, noise
from torch.nn import functional as F

from autoseg.ops.resize import resize
from autoseg.registry import UPSAMPLERS
from autoseg.zoo.fcn import FCN
from autoseg.zoo.vgg import VGG16

WIDTH = 0.05
STRIDES = (32, 16, 8)


def narrow(stride: int = 8, output_stride: int = 32, batch_norm: bool = False, **options: object) -> FCN:
    backbone = VGG16(3, WIDTH, batch_norm, output_stride)
    return FCN(backbone, CLASSES, stride, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stride", "parameters"), [(32, 134_346_581), (16, 134_357_354), (8, 134_362_751)], ids=["32s", "16s", "8s"]
)
def test_parameters_as_published(stride: int, parameters: int) -> None:
    assert count_parameters(lambda: FCN(VGG16(), 21, stride)) == parameters  # type: ignore[arg-type]


@pytest.mark.parametrize("stride", STRIDES)
def test_contract(stride: int) -> None:
    assert_contract(partial(narrow, stride))


@pytest.mark.parametrize("options", [{"upsampler": "max_unpool"}, {"output_stride": 8, "batch_norm": True}])
def test_contract_of_options(options: dict[str, object]) -> None:
    assert_contract(partial(narrow, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("upsampler", UPSAMPLERS)
def test_every_upsampler(upsampler: str) -> None:
    for output_stride in (32, 16):  # where pool4 has the end's size, its scores are added without upsampling
        network = made(partial(narrow, output_stride=output_stride, upsampler=upsampler))
        assert network(noise(1, 3, 33, 47)).shape == (1, CLASSES, 33, 47)


def test_each_network_adds_a_pooling_to_the_one_before() -> None:
    finest = made(narrow)
    assert isinstance(finest, FCN)
    images = noise(2, 3, 65, 40)
    pooled = finest.backbone(images).pooled
    connected = finest.fully_connected
    features = F.relu(F.conv2d(pooled[4], connected.fc6.weight, connected.fc6.bias, padding=3))
    scores = finest.score(F.relu(connected.fc7(features)))
    assert [tuple(feature.shape[-2:]) for feature in pooled[2:]] == [(9, 5), (5, 3), (3, 2)]
    for stride, joined in zip(STRIDES, ("", "score_pool4", "score_pool3"), strict=True):
        if joined:
            feature = pooled[int(joined[-1]) - 1]
            scores = resize(scores, (feature.shape[-2], feature.shape[-1])) + finest.get_submodule(joined)(feature)
        network = narrow(stride).eval()
        network.load_state_dict({key: finest.state_dict()[key] for key in network.state_dict()})
        torch.testing.assert_close(network(images), resize(scores, (65, 40)))


def test_an_upsampler_doubles_from_scores_to_scores_to_images() -> None:
    network = made(partial(narrow, upsampler="transposed_conv_bilinear"))
    counts = [sum(p.numel() for p in part.parameters()) // (16 * CLASSES**2) for part in network.upsamplers]
    assert counts == [1, 1, 3], "by 2, by 2, by 8"


def test_a_smaller_output_stride_of_the_same_weights_fills_in_between() -> None:
    """Rarefaction: of the denser scores every second or fourth is one of the published network's, borders included."""
    published = made(partial(narrow, 32))
    images = noise(1, 3, 129, 97)

    def scores(network: FCN) -> torch.Tensor:
        return network.score(network.fully_connected(network.backbone(images).pooled[-1]))

    expected = scores(published)
    for output_stride in (16, 8):
        network = narrow(32, output_stride).eval()
        network.load_state_dict(published.state_dict())
        dense, step = scores(network), 32 // output_stride
        assert dense.shape[-2:] == ((128 // output_stride) + 1, (96 // output_stride) + 1)
        torch.testing.assert_close(dense[:, :, ::step, ::step], expected, rtol=1e-4, atol=1e-6)


def test_dropout_and_beginnings() -> None:
    torch.manual_seed(0)
    network = FCN(VGG16(width=0.25), 21, 8)
    assert network.fully_connected.dropout6.p == network.fully_connected.dropout7.p == 0.5
    for name in ("score", "score_pool4", "score_pool3"):
        layer = network.get_submodule(name)
        assert abs(layer.weight.std() / 0.01 - 1) < 0.1  # type: ignore[operator]
        assert not layer.bias.any()  # type: ignore[operator]
    fc7 = network.fully_connected.fc7
    assert abs(fc7.weight.std() / (2 / fc7.out_channels) ** 0.5 - 1) < 0.02


@pytest.mark.slow
def test_one_graph_for_every_size() -> None:
    assert_traces(narrow)
