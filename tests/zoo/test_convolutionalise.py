"""A classifier as a convolution gives for every window what the classifier gives for it."""

from __future__ import annotations

import pytest
import torch
from error_codes import raises_code
from torch import nn

from autoseg.errors import ConfigError
from autoseg.zoo.convolutionalise import convolutionalise, convolutionalise_classifier
from zoo.contract import noise


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel_size", "rows", "columns"), [(7, 7, 7), ((2, 3), 2, 3), (1, 1, 1)])
def test_a_layer_equals_itself_on_every_window(
    kernel_size: int | tuple[int, int], rows: int, columns: int, bias: bool
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4 * rows * columns, 6, bias=bias).double()
    features = noise(2, 4, 10, 9).double()
    result = convolutionalise(linear, 4, kernel_size)(features)
    assert result.shape == (2, 6, 11 - rows, 10 - columns)
    for row in range(result.shape[2]):
        for column in range(result.shape[3]):
            window = features[:, :, row : row + rows, column : column + columns]
            expected = linear(window.flatten(1))
            torch.testing.assert_close(result[:, :, row, column], expected, rtol=0, atol=1e-13)


def test_a_classifier_equals_itself_on_every_window() -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=0), nn.ReLU(), nn.MaxPool2d(2))
    layers = (nn.Linear(4 * 9, 8), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))
    classifier = nn.Sequential(*layers)
    whole = nn.Sequential(features, nn.Flatten(), classifier).double().eval()  # for images of 8x8
    network = convolutionalise_classifier(features, classifier, 4, 3).eval()
    assert list(network.state_dict()) == [
        "features.0.weight", "features.0.bias",
        *(f"classifier.{layer}.{kind}" for layer in (0, 3, 5) for kind in ("weight", "bias")),
    ]  # fmt: skip
    images = noise(2, 3, 20, 14).double()
    result = network(images)
    assert result.shape == (2, 5, 7, 4)
    for row in range(7):
        for column in range(4):
            window = images[:, :, 2 * row : 2 * row + 8, 2 * column : 2 * column + 8]
            torch.testing.assert_close(result[:, :, row, column], whole(window), rtol=0, atol=1e-13)


def test_the_layer_is_copied() -> None:
    linear = nn.Linear(8, 2)
    conv = convolutionalise(linear, 2, 2)
    before = conv.weight.detach().clone()
    with torch.no_grad():
        linear.weight.zero_()
    assert torch.equal(conv.weight, before)
    assert conv.weight.requires_grad


def test_what_is_no_convolution_is_refused() -> None:
    with raises_code(ConfigError, "features-differ", "10 features", "2 channels", "2x2", "8"):
        convolutionalise(nn.Linear(10, 2), 2, 2)
    with raises_code(ConfigError, "layer-not-convolutional", "layer 1 of the classifier", "BatchNorm1d"):
        convolutionalise_classifier(nn.Identity(), nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3)), 2, 2)
