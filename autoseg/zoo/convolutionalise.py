"""A classifier made fully convolutional (Long et al. 2015, FCN, section 3.1).

A fully connected layer reads the whole of its features, which is a convolution whose kernel covers them. On a larger
image the same convolution gives what the classifier gives for every window, with all that the windows share computed
once.

Letters: N images, C channels, O outputs, H height, W width.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from autoseg.errors import ConfigError

KernelSize = int | tuple[int, int]


def convolutionalise(linear: nn.Linear, channels: int, kernel_size: KernelSize) -> nn.Conv2d:
    """A fully connected layer on flattened (C, kh, kw) features as a convolution, with a copy of the weights.

    Without padding: (N, C, H, W) -> (N, O, H - kh + 1, W - kw + 1), the layer applied to every window.
    Raises: ConfigError: a layer for another number of features.
    """
    size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    if linear.in_features != channels * size[0] * size[1]:
        raise ConfigError(
            f"a fully connected layer of {linear.in_features} features is no convolution of {channels} channels and"
            f" {size[0]}x{size[1]} pixels, which would be {channels * size[0] * size[1]}",
            code="features-differ",
        )
    conv = nn.Conv2d(channels, linear.out_features, size, bias=linear.bias is not None, device="meta")
    conv = conv.to_empty(device=linear.weight.device).to(linear.weight.dtype)
    with torch.no_grad():
        conv.weight.copy_(as_kernel(linear.weight, size))
        if conv.bias is not None:
            conv.bias.copy_(linear.bias)
    return conv.train(linear.training)


def as_kernel(weight: Tensor, size: tuple[int, int]) -> Tensor:
    """The weight (O, C * kh * kw) of a fully connected layer as a convolution's, (O, C, kh, kw)."""
    return weight.reshape(len(weight), -1, *size)


def convolutionalise_classifier(
    features: nn.Module, classifier: nn.Sequential, channels: int, kernel_size: KernelSize
) -> nn.Sequential:
    """A classifier that maps images of one size to class scores, as a network for images of that size and above.

    `features`: images -> (N, C, H, W), `channels` and `kernel_size` what they are for the classifier's own images.
    `classifier`: what reads them flattened; its first fully connected layer becomes a convolution of `kernel_size`, the
    others 1x1, and ReLU and dropout stay. The parts are named "features" and "classifier".

    Raises: ConfigError: another layer in the classifier, or one for another number of features.
    """
    layers: list[nn.Module] = []
    for number, layer in enumerate(classifier):
        if isinstance(layer, nn.Linear):
            layers.append(convolutionalise(layer, channels, kernel_size))
            channels, kernel_size = layer.out_features, 1
        elif isinstance(layer, nn.ReLU | nn.Dropout):
            layers.append(layer)
        else:
            raise ConfigError(
                f"layer {number} of the classifier, {type(layer).__name__}, has no convolutional form here; it may"
                " have Linear, ReLU and Dropout",
                code="layer-not-convolutional",
            )
    return nn.Sequential(OrderedDict(features=features, classifier=nn.Sequential(*layers)))
