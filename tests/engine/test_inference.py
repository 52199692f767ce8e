"""Scores that come in bands of rows are those of the whole. Letters: N images, K classes, H, W height and width."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers.tiny_runs import GENOTYPE
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.config.base import LEAST_INPUT_SIDE
from autoseg.config.inference import InferenceConfig
from autoseg.engine.inference import resized_bands, score_bands
from autoseg.genotype.schema import Genotype
from autoseg.network import build_searched
from autoseg.zoo.build import build_network
from autoseg.zoo.schema import FixedNetwork


def images_of(*size: int, number: int = 2) -> Tensor:
    return torch.randn(number, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> nn.Module:
    """Its last features are at stride 4."""
    torch.manual_seed(0)
    return build_searched(Genotype.parse(GENOTYPE), 7).eval().requires_grad_(False)


@pytest.fixture(params=[1, 2**12, 2**16])
def band_bytes(request: pytest.FixtureRequest) -> int:
    """A row, a few and many."""
    return int(request.param)


def joined(pieces: Iterator[Tensor], band_bytes: int) -> Tensor:
    """The whole; each band is one row, or no larger than was asked for."""
    found = list(pieces)
    assert all(band.shape[2] == 1 or band.nbytes <= band_bytes for band in found)
    return torch.cat(found, 2)


@pytest.mark.slow
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(37, 50), (61, 83), (3, 7), (1, 1), (296, 40), (37, 20), (20, 50)])
def test_bands_are_resized_as_the_whole_is(size: tuple[int, int], align_corners: bool, band_bytes: int) -> None:
    scores = images_of(37, 50)
    expected = F.interpolate(scores, size, mode="bilinear", align_corners=align_corners)
    for pieces in ([scores], scores.split(1, 2), scores.split([5, 1, 20, 11], 2)):
        assert torch.allclose(
            joined(resized_bands(pieces, 37, size, align_corners, band_bytes), band_bytes), expected, atol=1e-5
        )
    double = joined(resized_bands([scores.double()], 37, size, align_corners, band_bytes), band_bytes)
    exact = F.interpolate(scores.double(), size, mode="bilinear", align_corners=align_corners)
    assert torch.allclose(double, exact, atol=1e-12)


@pytest.mark.parametrize("size", [(64, 48), (33, 71), (32, 32)])
def test_a_network_answers_in_bands_as_it_does_at_once(
    network: nn.Module, size: tuple[int, int], band_bytes: int
) -> None:
    images = images_of(*size)
    seen: list[torch.Size] = []
    network.register_forward_hook(lambda module, inputs, answer: seen.append(answer.shape))
    found = joined(score_bands(network, images, band_bytes=band_bytes), band_bytes)
    assert torch.allclose(found, network(images), atol=1e-5)
    assert seen == [(2, 7, -(-size[0] // 4), -(-size[1] // 4)), (2, 7, *size)]  # only asked at once is it enlarged


@pytest.mark.slow
def test_several_views_in_bands(network: nn.Module, band_bytes: int) -> None:
    images = images_of(40, 56)
    half = F.interpolate(images, (32, 42), mode="bilinear", align_corners=False, antialias=True)
    answers = [network(images), network(images.flip(3)).flip(3)]
    for logits in (network(half), network(half.flip(3)).flip(3)):
        answers.append(F.interpolate(logits, (40, 56), mode="bilinear", align_corners=False))
    mean = torch.stack([logits.softmax(1) for logits in answers]).mean(0)
    found = joined(score_bands(network, images, InferenceConfig(scales=(1.0, 0.75), flip=True), band_bytes), band_bytes)
    assert torch.allclose(found.exp(), mean, atol=1e-6)
    how = InferenceConfig(scales=(1.0, 0.75), flip=True, fuse="max")
    assert torch.allclose(
        joined(score_bands(network, images, how, band_bytes), band_bytes), torch.stack(answers).amax(0), atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 8), (9, 40), (40, 31), (31, 33), (32, 32)])
def test_small_images_are_framed_with_their_mean_colour(network: nn.Module, size: tuple[int, int]) -> None:
    images = images_of(*size)
    framed = torch.zeros(2, 3, *(max(LEAST_INPUT_SIDE, length) for length in size))
    framed[:, :, : size[0], : size[1]] = images
    expected = network(framed)[:, :, : size[0], : size[1]]
    assert torch.allclose(torch.cat(list(score_bands(network, images)), 2), expected, atol=1e-5)
    for how in ({"window": (32, 32)}, {"flip": True}, {"scales": (0.5, 1.5)}):
        found = torch.cat(list(score_bands(network, images, InferenceConfig(**how))), 2)  # type: ignore[arg-type]
        assert found.shape == expected.shape
        assert found.isfinite().all()


@pytest.mark.parametrize("options", [{"name": "unet", "width": 0.05}, {"name": "fcn8s", "width": 0.02}])
def test_networks_of_the_literature_answer_in_bands(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = build_network(FixedNetwork.parse(options), 5).eval().requires_grad_(False)
    images = images_of(40, 37, number=1)
    assert torch.allclose(joined(score_bands(network, images, band_bytes=2**12), 2**12), network(images), atol=1e-5)


def test_a_single_output_answers_for_two_classes() -> None:
    torch.manual_seed(0)
    network = build_searched(Genotype.parse(GENOTYPE), 2, single_output=True).eval().requires_grad_(False)
    images = images_of(33, 40)
    found = torch.cat(list(score_bands(network, images)), 2)
    assert torch.allclose(found, network(images), atol=1e-5)
    assert not found[:, 0].any()
    assert found[:, 1].any()
