"""What is traced, against gradients, against values of the literature and against what small networks are made of."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.genotypes import make_genotype
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.analysis.flops import count_parameters
from autoseg.analysis.module_graph import Stage
from autoseg.analysis.receptive_field import reach, receptive_field
from autoseg.analysis.trace import trace_stages
from autoseg.network import build_searched
from autoseg.ops.upsample import MaxUnpool
from autoseg.registry import UPSAMPLERS
from autoseg.zoo.build import build_network, diagram
from autoseg.zoo.schema import FixedNetwork

SIZE = (40, 26)
"""Of the images whose gradients are taken."""


class Fn(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, features: Tensor) -> Tensor:
        return self.function(features)


class Join(nn.Module):
    """Two ways from one input, concatenated or added, each cut to the smaller size."""

    def __init__(self, one: nn.Module, other: nn.Module, concat: bool) -> None:
        super().__init__()
        self.one, self.other, self.mix = one, other, nn.Conv2d(4, 2, 1) if concat else None

    def forward(self, features: Tensor) -> Tensor:
        one, other = self.one(features), self.other(features)
        height, width = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
        one, other = one[:, :, :height, :width], other[:, :, :height, :width]
        mixed: Tensor = one + other if self.mix is None else self.mix(torch.cat([one, other], 1))
        return mixed


def pool_of_slices(features: Tensor) -> Tensor:
    """2x2 average pooling, with windows that reach over the border, out of strided slices."""
    padded = F.pad(features, (0, features.shape[3] % 2, 0, features.shape[2] % 2))
    rows = padded[:, :, ::2] + padded[:, :, 1::2]
    return rows[..., ::2] + rows[..., 1::2]


def thirds(features: Tensor) -> Tensor:
    return F.pad(features, (-1, 1, -1, 2))[:, :, ::3, 1:-1:3]


def unshuffled(features: Tensor) -> Tensor:
    even = features[:, :, : features.shape[2] // 2 * 2, : features.shape[3] // 2 * 2]
    return F.pixel_unshuffle(even, 2).sum(1, keepdim=True).expand(-1, 2, -1, -1)


LAYERS: list[Callable[[], nn.Module]] = [
    lambda: nn.Conv2d(2, 2, 3, padding=1),
    lambda: nn.Conv2d(2, 2, 5, stride=2, padding=1),
    lambda: nn.Conv2d(2, 2, (3, 2), dilation=(2, 1), padding=(3, 0)),
    lambda: nn.Conv2d(2, 2, 3, dilation=3, padding=3, groups=2),
    lambda: nn.Conv2d(2, 2, 1, stride=2),
    lambda: nn.AvgPool2d(3, 2, 1),
    lambda: nn.AvgPool2d(2, ceil_mode=True),
    lambda: nn.AdaptiveAvgPool2d((7, 5)),
    lambda: nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1),
    lambda: nn.ConvTranspose2d(2, 2, 2, stride=2),
    lambda: nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1, dilation=2),
    lambda: nn.Upsample(scale_factor=2, mode="nearest"),
    lambda: nn.Sequential(nn.Conv2d(2, 8, 1), nn.PixelShuffle(2)),
    lambda: Fn(pool_of_slices),
    lambda: Fn(thirds),
    lambda: Fn(unshuffled),
    lambda: nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(inplace=True)),
]


def random_network(seed: int) -> nn.Module:
    """Random layers and a join of two ways, all weights positive; drawn again where a feature gets too small."""
    rng = np.random.default_rng(seed)

    def some(count: int) -> nn.Module:
        return nn.Sequential(*(LAYERS[number]() for number in rng.integers(len(LAYERS), size=count)))

    while True:
        join = Join(some(1), some(1), bool(rng.integers(2)))
        network = nn.Sequential(nn.Conv2d(3, 2, 1), some(2), join, some(int(rng.integers(2)))).double().eval()
        for parameter in network.parameters():
            nn.init.uniform_(parameter, 0.5, 1.0)
        try:
            if network(torch.zeros(1, 3, *SIZE, dtype=torch.float64)).shape[2] <= 2 * SIZE[0]:
                return network
        except RuntimeError:
            continue


def by_gradient(network: nn.Module, axis: int) -> list[tuple[int, int] | None]:
    """First and last row or column that has a gradient, of each row or column of the logits; None where none has."""
    images = torch.rand(1, 3, *SIZE, dtype=torch.float64, requires_grad=True)
    logits = network(images)
    found: list[tuple[int, int] | None] = []
    for index in range(logits.shape[axis]):
        (gradient,) = torch.autograd.grad(logits.select(axis, index).sum(), images, retain_graph=True)
        rows = gradient.abs().sum([each for each in range(4) if each != axis]).nonzero().flatten()
        found.append((int(rows[0]), int(rows[-1])) if len(rows) else None)
    return found


def by_trace(network: nn.Module, axis: int) -> list[tuple[int, int] | None]:
    last, minus_first = reach(network, SIZE, axis).amax([each for each in range(1, 4) if each != axis])
    pairs = zip(last.tolist(), minus_first.tolist(), strict=True)
    return [(-int(first), int(end)) if math.isfinite(end) else None for end, first in pairs]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_exactly_what_has_a_gradient(seed: int) -> None:
    torch.manual_seed(seed)
    network = random_network(seed)
    for axis in (2, 3):
        expected, traced = by_gradient(network, axis), by_trace(network, axis)
        assert traced * (len(expected) // len(traced)) == expected  # one for all, where all see the same


EXACT = sorted(set(UPSAMPLERS) - {"bilinear", "dysample", "max_unpool", "pixel_dcl_average"})
"""Those that do not interpolate, have gradients for all they read, and begin without zeros."""


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_upsamplers_exactly(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), UPSAMPLERS[name].build(4, 4), nn.Conv2d(4, 2, 1))
    network = network.double().eval()
    for axis in (2, 3):
        assert by_trace(network, axis) == by_gradient(network, axis)


# --- numbers ----------------------------------------------------------------------------------------------------------


def vgg(*blocks: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for number, convolutions in enumerate(blocks):
        layers += [nn.Conv2d(3 if not number else 2, 2, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(convolutions - 1):
            layers += [nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2))
    return layers


def test_vgg16_and_fcn() -> None:
    layers = vgg(2, 2, 3, 3, 3)
    assert receptive_field(nn.Sequential(*layers[:-1])) == 196  # conv5_3
    assert receptive_field(nn.Sequential(*layers)) == 212  # pool5
    fc6, up = nn.Conv2d(2, 2, 7, padding=3), nn.Upsample(scale_factor=32, mode="bilinear")
    assert receptive_field(nn.Sequential(*layers, fc6, nn.Conv2d(2, 2, 1), up)) == 404


@pytest.mark.parametrize(("kernel", "rates"), [(3, (1, 2, 4, 8)), (5, (2, 2)), (2, (1, 3, 9)), (3, (700, 900))])
def test_dilated_convolutions(kernel: int, rates: tuple[int, ...]) -> None:
    convs = [nn.Conv2d(3, 3, kernel, dilation=rate, padding=rate * (kernel // 2)) for rate in rates]
    assert receptive_field(nn.Sequential(*convs)) == 1 + (kernel - 1) * sum(rates)


def test_strides_multiply_and_the_widest_way_counts() -> None:
    down = [nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(3)]  # 3, 7, 15
    assert receptive_field(nn.Sequential(*down, nn.Conv2d(3, 3, 3, padding=2, dilation=2))) == 15 + 2 * 2 * 8
    assert receptive_field(nn.MaxPool2d(3, 1, padding=1, dilation=4)) == 9  # as rarefaction dilates pools
    tall = nn.Conv2d(3, 3, (1, 9), padding=(0, 4))
    assert receptive_field(tall) == 9
    wide, narrow = nn.Conv2d(3, 2, 9, padding=4), nn.Conv2d(3, 2, 3, padding=1)
    assert receptive_field(Join(narrow, wide, concat=True)) == 9


@pytest.mark.slow
def test_interpolation_moves_what_is_seen_and_widens_nothing() -> None:
    down, conv = nn.Conv2d(3, 3, 4, stride=4), nn.Conv2d(3, 3, 3, padding=1)
    for mode, corners in (("bilinear", True), ("bilinear", False), ("bicubic", False)):
        up = nn.Upsample(scale_factor=4, mode=mode, align_corners=corners)
        assert receptive_field(nn.Sequential(down, up)) == 4
        assert receptive_field(nn.Sequential(down, up, conv)) == 4 + 2  # a pixel's neighbours are a pixel away again
    assert receptive_field(nn.Sequential(down, UPSAMPLERS["dysample"].build(3, 4))) == 4
    halved = Fn(lambda images: F.interpolate(images, scale_factor=0.5, mode="bilinear"))
    assert receptive_field(nn.Sequential(halved, conv)) == 1 + 2 * 2


def test_unpooling_sees_what_its_guide_sees() -> None:
    class Unpooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.up = nn.Conv2d(3, 4, 5, padding=2), MaxUnpool(4, 4)

        def forward(self, images: Tensor) -> Tensor:
            features = self.before(images)
            up: Tensor = self.up(images.new_zeros(1, 4, features.shape[2] // 2, features.shape[3] // 2), None, features)
            return up

    assert receptive_field(Unpooled()) == 5 + 1  # a 2x2 window of features


@pytest.mark.parametrize(
    "function",
    [
        lambda images: images + images.mean((2, 3), keepdim=True),
        lambda images: F.adaptive_avg_pool2d(images, 1),
        lambda images: F.interpolate(F.avg_pool2d(images, images.shape[2:]), images.shape[2:], mode="bilinear"),
        lambda images: images.amax((2, 3), keepdim=True).expand_as(images) * images,
        lambda images: images.flatten(2).softmax(2).view(images.shape),
        lambda images: images.cumsum(2).cumsum(3),  # no rule: everything
    ],
)
def test_the_whole_image(function: Callable[[Tensor], Tensor]) -> None:
    assert receptive_field(nn.Sequential(Fn(function), nn.Conv2d(3, 2, 1))) == math.inf


def test_of_nothing_and_of_other_channels() -> None:
    assert receptive_field(Fn(torch.zeros_like)) == 0
    assert receptive_field(nn.Conv2d(7, 2, 3)) == 3  # the images have the channels that the network names


@pytest.mark.slow
def test_a_genotypes_network_exactly() -> None:
    cell = (("prev_prev skip_connect", "prev sep_conv_3x3"), ("b1 avg_pool_3x3", "prev atrous_conv_3x3"))
    genotype = make_genotype((1, 1), cell, stem=((4, 4), (1, 1)), decoder="classifier")
    network = build_searched(genotype, 3).double().eval()
    for module in network.modules():  # so that no ReLU hides a way
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, 0.1, 1.0)
    assert by_trace(network, 2) == by_gradient(network, 2)
    assert receptive_field(build_searched(make_genotype(), 3)) == math.inf  # its ASPP pools the image


def test_the_network_stays_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert receptive_field(network) == 3
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_is_written_into_a_part_is_refused() -> None:
    def write(images: Tensor) -> Tensor:
        whole = torch.zeros_like(images)
        whole[:, :, ::2] = images[:, :, ::2]
        return whole

    with pytest.raises(NotImplementedError, match="part of a tensor"):
        receptive_field(Fn(write))


# --- stages -----------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Two levels and back, with a skip, an unpooling, two parallel branches, and a convolution in no stage."""

    def __init__(self, skip: str = "concat") -> None:
        super().__init__()
        self.skip = skip
        self.down = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)])
        self.norm = nn.BatchNorm2d(4)
        self.branches = nn.ModuleList([nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 3, padding=1)])
        self.unpool = MaxUnpool(4, 4)
        self.join = nn.Sequential(nn.Conv2d(8 if skip == "concat" else 4, 5, 1), nn.ReLU(inplace=True))
        self.classifier = nn.Conv2d(5, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down[0](images)
        coarse = F.relu(self.down[1](F.relu(self.norm(fine))))
        low = self.branches[0](coarse) + self.branches[1](coarse)
        if self.skip == "unpool":
            up = self.unpool(low, None, fine)
        else:
            up = F.interpolate(low, scale_factor=2.0, mode="nearest")
            up = torch.cat([up, fine], 1) if self.skip == "concat" else up + fine
        logits: Tensor = self.classifier(self.join(up))
        return logits


STAGES = ("down.0", "down.1", "branches.0", "branches.1", "join")


def test_stages_of_a_small_network() -> None:
    network = Small()
    found = trace_stages(network, STAGES, (64, 64))
    assert found.stages == (
        Stage("down.0", 4, 1, 3 * 4 * 9 + 4, {"image": None}),
        Stage("down.1", 6, 2, 8 + 4 * 6 * 9 + 6, {"down.0": None}),  # with the normalisation on the way
        Stage("branches.0", 4, 2, 6 * 4 + 4, {"down.1": None}),
        Stage("branches.1", 4, 2, 6 * 4 * 9 + 4, {"down.1": None}),
        Stage("join", 5, 1, 8 * 5 + 5, {"branches.0": "add", "branches.1": "add", "down.0": "concat"}),
    )
    assert found.output == {"join": None}
    assert (found.in_channels, found.classes, found.other_parameters) == (3, 2, 5 * 2 + 2 + 4 * 4)
    assert found.parameters == count_parameters(network)


@pytest.mark.parametrize("skip", ["add", "unpool"])
def test_how_a_skip_joins(skip: str) -> None:
    found = trace_stages(Small(skip), [*STAGES[:2], "join"], (64, 64))
    assert found.stages[-1].reads["down.0"] == skip


def test_names_given_to_stages() -> None:
    found = trace_stages(Small(), {"down.0": "fine", "down.1": "coarse", "join": "joined"})
    assert [stage.name for stage in found.stages] == ["fine", "coarse", "joined"]
    assert found.stages[2].reads == {"coarse": "concat", "fine": "concat"}


def test_stages_within_stages_and_enlargements() -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2)), nn.Conv2d(4, 2, 1))
    found = trace_stages(network, ["0", "0.0"])
    assert [(stage.name, stage.stride, stage.parameters) for stage in found.stages] == [("0.0", 1, 16), ("0", 0.5, 0)]
    assert found.stages[1].reads == {"0.0": None}
    assert found.output == {"0": None}


def test_stages_that_cannot_be_traced() -> None:
    with pytest.raises(ValueError, match=r"stage 'unpool' is not called"):
        trace_stages(Small(), [*STAGES, "unpool"])
    conv = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="stage '0' is called twice"):
        trace_stages(nn.Sequential(conv, conv), ["0"])
    listed = nn.Sequential(Fn(lambda images: [images]), Fn(lambda features: features[0]))  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="does not return one tensor"):
        trace_stages(listed, ["0"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("fcn8s_vgg16", 404),
        ("deeplabv1_vgg16", 5 + 2 + 8 + 4 + 24 + 8 + 48 + 16 + 96 + 16 + 192),  # 3x3 pools, the last of stride 1
        ("deeplabv3_resnet50", math.inf),
    ],
)
def test_networks_of_the_literature(name: str, field: float) -> None:
    spec = FixedNetwork.parse({"name": name, "width": 0.05})
    with torch.device("meta"):
        network = build_network(spec, 21)
    assert receptive_field(network) == field
    assert diagram(spec, 21).parameters == count_parameters(network)
