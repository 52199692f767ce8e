"""VGG16, ResNet and Xception-65: parameters and names as published, any size, and the same weights at every stride."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from helpers.errors import raises_code
from helpers.zoo_contract import made, noise
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import ConfigError
from autoseg.network.fold import fold_batch_norm
from autoseg.ops.resize import level_size
from autoseg.zoo.resnet import Bottleneck, ResNet
from autoseg.zoo.vgg import VGG16
from autoseg.zoo.xception import Xception65, XceptionBlock

Build = Callable[..., nn.Module]
NARROW: dict[str, Build] = {
    "vgg16": lambda **options: VGG16(width=0.05, **options),
    "vgg16_bn": lambda **options: VGG16(width=0.05, batch_norm=True, **options),
    "vgg16_pool3": lambda **options: VGG16(width=0.05, pool=3, **options),
    "resnet50": lambda **options: ResNet(50, width=0.05, **options),
    "resnet50_cascade": lambda **options: ResNet(50, width=0.05, multi_grid=(1, 2, 1), extra_blocks=3, **options),
    "xception65": lambda **options: Xception65(width=0.02, **options),
}
SIZES = [(32, 32), (33, 47), (70, 41)]


def features_of(backbone: nn.Module, images: Tensor) -> list[Tensor]:
    result = backbone(images)
    return [*result.unpooled, *result.pooled] if isinstance(backbone, VGG16) else result


def layout_of(backbone: nn.Module) -> list[tuple[int, int]]:
    """(channels, stride) of each feature."""
    channels, strides = backbone.channels, backbone.strides
    if isinstance(backbone, VGG16):
        channels, strides = [*channels, *channels], [*strides, *backbone.pooled_strides]
    return list(zip(channels, strides, strict=True))


# --- as published ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (VGG16, 14_714_688),
        (lambda: VGG16(batch_norm=True), 14_714_688 + 2 * 4_224),
        (lambda: ResNet(50), 23_508_032),
        (lambda: ResNet(101), 42_500_160),
        (Xception65, 37_867_312),
        (lambda: VGG16(in_channels=1), 14_714_688 - 2 * 9 * 64),
    ],
)
def test_parameters(build: Build, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build().parameters()) == parameters


def norm_names(prefix: str) -> Iterator[str]:
    return (f"{prefix}.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))


def vgg_names(convs: list[int], norm: bool) -> Iterator[str]:
    for place in convs:
        yield from (f"features.{place}.weight", f"features.{place}.bias")
        yield from norm_names(f"features.{place + 1}") if norm else ()


def resnet_names(numbers: list[int]) -> Iterator[str]:
    yield from ("conv1.weight", *norm_names("bn1"))
    for stage, blocks in enumerate(numbers, start=1):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            for conv in (1, 2, 3):
                yield from (f"{prefix}.conv{conv}.weight", *norm_names(f"{prefix}.bn{conv}"))
            if block == 0:
                yield from (f"{prefix}.downsample.0.weight", *norm_names(f"{prefix}.downsample.1"))


def xception_names() -> Iterator[str]:
    for number in range(2):
        yield from (f"stem.{number}.conv.weight", *norm_names(f"stem.{number}.bn"))
    for block in range(21):
        if block in (0, 1, 2, 19):
            yield from (f"blocks.{block}.shortcut.conv.weight", *norm_names(f"blocks.{block}.shortcut.bn"))
        for conv in (1, 2, 3):
            for part in ("dw", "pw"):
                prefix = f"blocks.{block}.stack.conv{conv}"
                yield from (f"{prefix}.conv_{part}.weight", *norm_names(f"{prefix}.bn_{part}"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "names"),
    [
        (VGG16, vgg_names([0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28], norm=False)),
        (lambda: VGG16(batch_norm=True), vgg_names([0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40], norm=True)),
        (lambda: ResNet(50), resnet_names([3, 4, 6, 3])),
        (lambda: ResNet(101), resnet_names([3, 4, 23, 3])),
        (lambda: ResNet(50, extra_blocks=2), resnet_names([3, 4, 6, 3, 3, 3])),
        (Xception65, xception_names()),
    ],
)
def test_names_are_torchvisions_and_timms(build: Build, names: Iterator[str]) -> None:
    with torch.device("meta"):
        assert set(build().state_dict()) == set(names)


def test_a_few_shapes_of_torchvisions_and_timms() -> None:
    with torch.device("meta"):
        resnet, vgg, xception = ResNet(50).state_dict(), VGG16().state_dict(), Xception65().state_dict()
    assert resnet["conv1.weight"].shape == (64, 3, 7, 7)
    assert resnet["layer3.0.conv2.weight"].shape == (256, 256, 3, 3)
    assert resnet["layer3.0.downsample.0.weight"].shape == (1024, 512, 1, 1)
    assert resnet["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert vgg["features.17.weight"].shape == (512, 256, 3, 3)
    assert xception["blocks.2.stack.conv1.conv_pw.weight"].shape == (728, 256, 1, 1)
    assert xception["blocks.19.stack.conv2.conv_dw.weight"].shape == (728, 1, 3, 3)
    assert xception["blocks.20.stack.conv3.conv_pw.weight"].shape == (2048, 1536, 1, 1)


# --- what they compute -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("output_stride", [8, 32])
def test_any_size_and_channels_last(name: str, output_stride: int) -> None:
    backbone = made(lambda: NARROW[name](in_channels=2, output_stride=output_stride))
    wide = made(lambda: NARROW[name](in_channels=2, output_stride=output_stride)).to(memory_format=torch.channels_last)
    last_size = SIZES[-1]
    for size in SIZES:
        images = noise(2, 2, *size)
        features = features_of(backbone, images)
        assert [(feature.shape[1], tuple(feature.shape[2:])) for feature in features] == [
            (channels, level_size(size, stride)) for channels, stride in layout_of(backbone)
        ]
        if size == last_size:
            again = features_of(wide, images.contiguous(memory_format=torch.channels_last))
            for one, another in zip(features, again, strict=True):
                torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-4)
                assert another.is_contiguous(memory_format=torch.channels_last) or min(another.shape[1:]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("size", SIZES)
def test_the_same_weights_at_every_output_stride(name: str, size: tuple[int, int]) -> None:
    """A smaller output stride gives the features of 32, and those between. Zeros around an unshifted image lie at the
    same places for both, so this holds up to the border.
    """
    published = made(lambda: NARROW[name](output_stride=32)).double()
    expected = features_of(published, noise(1, 3, *size).double())
    for output_stride in (16, 8, 4):
        dense = NARROW[name](output_stride=output_stride).double().eval()
        dense.load_state_dict(published.state_dict())
        found = features_of(dense, noise(1, 3, *size).double())
        places = list(zip(found, expected, layout_of(dense), layout_of(published), strict=True))
        if name == "vgg16_pool3" and output_stride < 16:
            places = places[: 5 if output_stride == 8 else 4]  # DeepLab's later windows are not dilated
        for one, another, (_, finer), (_, coarser) in places:
            step = coarser // finer
            torch.testing.assert_close(one[:, :, ::step, ::step], another, rtol=1e-10, atol=1e-10)
            assert another.std() > 0
        assert layout_of(dense)[-1][1] == output_stride


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_batch_norm_folds_and_every_weight_learns(name: str) -> None:
    backbone = made(lambda: NARROW[name](output_stride=16)).double()
    images = noise(2, 3, 40, 33).double()
    features = features_of(backbone, images)
    folded = fold_batch_norm(backbone)
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
    for one, another in zip(features_of(folded, images), features, strict=True):
        torch.testing.assert_close(one, another, rtol=1e-10, atol=1e-10)
    sum((feature * noise(*feature.shape).double()).sum() for feature in features).backward()
    gradients = {key: parameter.grad.clone() for key, parameter in backbone.named_parameters()}
    assert [key for key, gradient in gradients.items() if not gradient.any() or not gradient.isfinite().all()] == []
    backbone.zero_grad()
    backbone.to(memory_format=torch.channels_last)
    again = features_of(backbone, images.contiguous(memory_format=torch.channels_last))
    sum((feature * noise(*feature.shape).double()).sum() for feature in again).backward()
    for key, parameter in backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key], rtol=1e-8, atol=1e-10, msg=key)


def batch_norm(features: Tensor, norm: nn.BatchNorm2d, eps: float = 1e-5) -> Tensor:
    return F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=eps)


def test_a_bottleneck_is_torchvisions() -> None:
    block = made(lambda: Bottleneck(20, 5, 24, 2, 1, True)).double()
    features = noise(2, 20, 9, 8).double()
    result = batch_norm(F.conv2d(features, block.conv1.weight), block.bn1).relu()
    result = batch_norm(F.conv2d(result, block.conv2.weight, stride=2, padding=1), block.bn2).relu()
    result = batch_norm(F.conv2d(result, block.conv3.weight), block.bn3)
    conv, norm = block.downsample
    shortcut = batch_norm(F.conv2d(features, conv.weight, stride=2), norm)
    torch.testing.assert_close(block(features), (result + shortcut).relu())


@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("shortcut", ["conv", "sum", "none"])
def test_an_xception_block_is_the_published_one(rate: int, shortcut: str) -> None:
    widths, stride = ((6, 6, 6), 1) if shortcut == "sum" else ((5, 4, 7), 2 if shortcut == "conv" else 1)
    block = made(lambda: XceptionBlock(6, widths, stride, rate, shortcut)).double()
    features = result = noise(2, 6, 9, 8).double()
    eps = 1e-3
    for place in (1, 2, 3):
        conv = block.stack[f"conv{place}"]
        if shortcut != "none":
            result = result.relu()
        step = stride if place == 3 else 1
        result = F.conv2d(result, conv.conv_dw.weight, None, step, rate, rate, groups=result.shape[1])
        result = batch_norm(result, conv.bn_dw, eps)
        if shortcut == "none":
            result = result.relu()
        result = batch_norm(F.conv2d(result, conv.conv_pw.weight), conv.bn_pw, eps)
        if shortcut == "none":
            result = result.relu()
        if place == 2:
            torch.testing.assert_close(block.outputs(features)[0], result)
    if shortcut == "conv":
        result = result + batch_norm(
            F.conv2d(features, block.shortcut.conv.weight, stride=stride), block.shortcut.bn, eps
        )
    torch.testing.assert_close(block(features), result + features if shortcut == "sum" else result)


def test_the_last_features_come_after_a_relu_and_xceptions_low_level_one_before() -> None:
    low_level, end = made(NARROW["xception65"])(noise(2, 3, 64, 64))
    assert low_level.min() < 0 <= end.min()
    assert all(feature.min() >= 0 for feature in made(NARROW["resnet50"])(noise(2, 3, 64, 64)))
    assert all(feature.min() >= 0 for feature in made(NARROW["vgg16"])(noise(2, 3, 64, 64)).unpooled)


# --- rates and widths ------------------------------------------------------------------------------------------------


def rates_of(layer: nn.Module) -> list[int]:
    return [block.conv2.dilation[0] for block in layer]


@pytest.mark.slow
def test_multi_grid_and_cascade_rates() -> None:
    with torch.device("meta"):
        cascade = ResNet(50, output_stride=16, multi_grid=(1, 2, 4), extra_blocks=3)
        dense = ResNet(50, output_stride=8)
        xception = Xception65(output_stride=8)
    assert rates_of(cascade.layer3) == [1] * 6
    assert [rates_of(cascade.get_submodule(f"layer{number}")) for number in (4, 5, 6, 7)] == [
        [1, 4, 8], [2, 8, 16], [4, 16, 32], [8, 32, 64]
    ]  # fmt: skip
    assert cascade.strides == [4, 8, 16, 16, 16, 16, 16]
    assert cascade.channels == [256, 512, 1024, 2048, 2048, 2048, 2048]
    assert [rates_of(dense.layer3), rates_of(dense.layer4)] == [[1, 2, 2, 2, 2, 2], [2, 4, 4]]
    rates = [[conv.conv_dw.dilation[0] for conv in block.stack.values()] for block in xception.blocks]
    assert rates == [[1, 1, 1]] * 3 + [[2, 2, 2]] * 17 + [[4, 4, 4]]
    assert (xception.channels, xception.strides) == ([256, 2048], [4, 8])


def test_deeplabs_pools_are_3x3_and_keep_the_size() -> None:
    with torch.device("meta"):
        vgg = VGG16(output_stride=8, pool=3)
    pools = [layer for layer in vgg.features if hasattr(layer, "kernel_size") and not isinstance(layer, nn.Conv2d)]
    assert [(pool.kernel_size, pool.stride, pool.rate) for pool in pools] == [(3, 2, 1)] * 3 + [(3, 1, 1)] * 2
    assert [conv.dilation[0] for conv in vgg.features if isinstance(conv, nn.Conv2d)] == [1] * 10 + [2] * 3
    assert vgg.pooled_strides == [2, 4, 8, 8, 8]


def test_width_scales_every_layer() -> None:
    with torch.device("meta"):
        vgg, resnet, xception = VGG16(width=0.5), ResNet(101, width=0.25), Xception65(width=2)
    assert vgg.channels == [32, 64, 128, 256, 256]
    assert resnet.channels == [64, 128, 256, 512]
    assert resnet.layer2[0].conv2.weight.shape == (32, 32, 3, 3)
    assert xception.channels == [512, 4096]
    with torch.device("meta"):
        assert VGG16(width=1e-3).channels == [1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("build", "known"), [(VGG16, "2, 4, 8, 16, 32"), (ResNet, "4, 8, 16, 32"), (Xception65, "2, 4, 8, 16, 32")]
)
def test_an_output_stride_that_cannot_be_had(build: Build, known: str) -> None:
    with raises_code(ConfigError, "output-stride-unavailable", "output stride 12 ", f": {known}"):
        build(output_stride=12)
