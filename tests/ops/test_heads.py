"""Stem, ASPP and decoders against their definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.modules import noise, randomised
from helpers.oracle_operations import conv_norm_relu, convolve, interpolate, normalise
from torch import nn

from autoseg.ops.heads import (
    Aspp,
    AsppHead,
    AuxiliaryHead,
    DeepLabV3PlusDecoder,
    Doubling,
    FcnDecoder,
    ScoreDecoder,
    Stem,
    UNetDecoder,
)
from autoseg.registry import DecoderInputs
from autoseg.space.groups import DecoderSpec


def test_stem_gives_the_last_two_features_before_their_relu() -> None:
    """As Auto-DeepLab's code: H(-1) after the second of three convolutions (stride 2), H(0) after the third (4)."""
    stem = randomised(Stem((4, 6, 5), (2, 1, 2), nn.BatchNorm2d))
    images = noise(2, 3, 17, 22)
    first = normalise(convolve(images, stem.convs[0].weight, 2), stem.norms[0])
    second = normalise(convolve(first.clamp(min=0), stem.convs[1].weight), stem.norms[1])
    third = normalise(convolve(second.clamp(min=0), stem.convs[2].weight, 2), stem.norms[2])
    before, last = stem(images)
    assert stem.out_channels == (6, 5)
    assert (before.shape, last.shape) == ((2, 6, 9, 11), (2, 5, 5, 6))
    torch.testing.assert_close(before, second, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(last, third, rtol=1e-9, atol=1e-9)
    assert bool((before < 0).any())
    assert bool((last < 0).any())


def test_stem_of_one_convolution_gives_its_feature_twice() -> None:
    stem = Stem((4,), (2,), nn.BatchNorm2d)
    before, last = stem(torch.randn(2, 3, 16, 16))
    assert before is last
    assert stem.out_channels == (4, 4)


def aspp_formula(x: torch.Tensor, aspp: Aspp, rates: list[int]) -> torch.Tensor:
    pooled = conv_norm_relu(x.mean((2, 3), keepdim=True), aspp.pooled).expand(-1, -1, *x.shape[2:])
    atrous = [conv_norm_relu(x, conv, rate) for conv, rate in zip(aspp.atrous, rates, strict=True)]
    return torch.cat([conv_norm_relu(x, aspp.pointwise), *atrous, pooled], 1)


@pytest.mark.parametrize("rates", [[], [1], [2, 5, 12]])
def test_aspp_equals_its_definition(rates: list[int]) -> None:
    aspp = randomised(Aspp(3, 4, rates, nn.BatchNorm2d))
    features = noise(3, 3, 7, 6)
    assert aspp.out_channels == 4 * (2 + len(rates))
    torch.testing.assert_close(aspp(features), aspp_formula(features, aspp, rates), rtol=1e-9, atol=1e-9)


SETTINGS = DecoderSpec(filters=4, dropout=0)
INPUTS = DecoderInputs(6, [5, 3], 2, SETTINGS, [], nn.BatchNorm2d, ("bilinear", "transposed_conv"))


def aspp_decoder(channels: int, num_classes: int, filters: int, rates: list[int], names: Any = ()) -> ScoreDecoder:
    return ScoreDecoder(AsppHead(channels, filters, rates, nn.BatchNorm2d, 0.0), filters, num_classes, names)


def test_aspp_decoder_equals_its_definition() -> None:
    decoder = randomised(aspp_decoder(3, 5, 4, [1, 2]))
    features = noise(3, 3, 5, 4)
    encoded = conv_norm_relu(aspp_formula(features, decoder.head.aspp, [1, 2]), decoder.head.project)
    expected = convolve(encoded, decoder.classifier.weight) + decoder.classifier.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(decoder(features), expected, rtol=1e-9, atol=1e-9)


def test_deeplab_decoder_equals_its_definition() -> None:
    decoder = randomised(DeepLabV3PlusDecoder(3, 2, 5, 4, 3, [2], 0.0, nn.BatchNorm2d))
    features, low_level = noise(3, 3, 4, 5), noise(3, 2, 7, 10, seed=2)
    coarse = conv_norm_relu(aspp_formula(features, decoder.head.aspp, [2]), decoder.head.project)
    joined = torch.cat([interpolate(coarse, (7, 10)), conv_norm_relu(low_level, decoder.low_level)], 1)
    for conv in decoder.refine:
        joined = conv_norm_relu(joined, conv)
    expected = convolve(joined, decoder.classifier.weight) + decoder.classifier.bias.view(1, -1, 1, 1)
    result = decoder(features, [low_level])
    assert result.shape == (3, 5, 7, 10)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


def scored(features: torch.Tensor, classifier: nn.Conv2d) -> torch.Tensor:
    return convolve(features, classifier.weight) + classifier.bias.view(1, -1, 1, 1)


def test_unet_decoder_equals_its_definition() -> None:
    """A bilinear and a learned doubling; widths are those of the features that join, but no more than `filters`."""
    decoder = randomised(UNetDecoder(INPUTS))
    features, middle, fine = noise(3, 6, 3, 4), noise(3, 5, 5, 8, seed=2), noise(3, 3, 10, 15, seed=3)
    x = torch.cat([interpolate(features, (5, 8)), middle.clamp(min=0)], 1)
    x = conv_norm_relu(conv_norm_relu(x, decoder.refine[0][0]), decoder.refine[0][1])
    assert x.shape[1] == 4
    x = normalise(decoder.doublings[1].up(x, (10, 15)), decoder.doublings[1].norm)
    assert x.shape[1] == 3
    x = torch.cat([x, fine.clamp(min=0)], 1)
    x = conv_norm_relu(conv_norm_relu(x, decoder.refine[1][0]), decoder.refine[1][1])
    result = decoder(features, [middle, fine])
    torch.testing.assert_close(result, scored(x, decoder.classifier), rtol=1e-9, atol=1e-9)


def test_fcn_decoder_equals_its_definition() -> None:
    decoder = randomised(FcnDecoder(INPUTS))
    features, middle, fine = noise(3, 6, 3, 4), noise(3, 5, 5, 8, seed=2), noise(3, 3, 10, 15, seed=3)
    total = interpolate(scored(features, decoder.classifier), (5, 8)) + scored(middle.clamp(min=0), decoder.scores[0])
    total = decoder.doublings[1].up(total, (10, 15)) + scored(fine.clamp(min=0), decoder.scores[1])
    torch.testing.assert_close(decoder(features, [middle, fine]), total, rtol=1e-9, atol=1e-9)


def test_classifier_decoder_scores_each_pixel() -> None:
    decoder = randomised(ScoreDecoder(nn.Dropout(0.0), 4, 3))
    features = noise(2, 4, 5, 6)
    torch.testing.assert_close(decoder(features), scored(features, decoder.classifier), rtol=1e-9, atol=1e-9)


def test_decoders_double_scores_or_features_where_upsamplers_are_named() -> None:
    """ASPP and the classifier alone their score maps, DeepLabv3+ the features of ASPP, each with its guide."""
    finer = [noise(2, 5, 6, 7, seed=2), noise(2, 3, 11, 13, seed=3)]
    names = ["max_unpool", "pixel_dcl"]
    for decoder in (
        aspp_decoder(4, 3, 6, [1], names),
        ScoreDecoder(nn.Dropout(0.0), 4, 3, names),
        DeepLabV3PlusDecoder(4, 3, 3, 6, 2, [1], 0.0, nn.BatchNorm2d, names),
    ):
        randomised(decoder)
        guides: list[torch.Tensor] = []
        for doubling in decoder.doublings:
            doubling.register_forward_hook(lambda _, inputs, __, guides=guides: guides.append(inputs[2]))
        assert decoder(noise(2, 4, 3, 4), finer).shape == (2, 3, 11, 13)
        assert all(guide is feature for guide, feature in zip(guides, finer, strict=True))
        width = 6 if isinstance(decoder, DeepLabV3PlusDecoder) else 3
        assert [doubling.out_channels for doubling in decoder.doublings] == [width, width]


def test_a_bilinear_doubling_has_no_weights() -> None:
    doubling = Doubling("bilinear", 3, 8, nn.BatchNorm2d)
    assert list(doubling.parameters()) == []
    assert doubling.out_channels == 3
    features = noise(2, 3, 4, 5)
    torch.testing.assert_close(doubling(features, (7, 10)), interpolate(features, (7, 10)), rtol=1e-9, atol=1e-9)


def test_dropout_of_the_head_is_in_training_only() -> None:
    decoder = ScoreDecoder(AsppHead(3, 8, [1], nn.BatchNorm2d, 0.5), 8, 2)
    features = torch.randn(4, 3, 5, 5)
    assert not torch.equal(decoder(features), decoder(features))
    decoder.eval()
    assert torch.equal(decoder(features), decoder(features))


@pytest.mark.parametrize(("channels", "filters"), [(8, 16), (400, 100)])
def test_auxiliary_head_has_a_quarter_of_the_channels_but_at_least_16(channels: int, filters: int) -> None:
    head = AuxiliaryHead(channels, 3, nn.BatchNorm2d)
    assert [tuple(m.weight.shape) for m in head.modules() if isinstance(m, nn.Conv2d)] == [
        (filters, channels, 3, 3),
        (3, filters, 1, 1),
    ]
    assert head(torch.randn(2, channels, 4, 5)).shape == (2, 3, 4, 5)
