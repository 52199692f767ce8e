"""Filter rarefaction equals shift-and-stitch bitwise: everywhere with valid windows, else away from the border."""

from __future__ import annotations

import pytest
import torch
from error_codes import raises_code
from torch import Tensor, nn

from autoseg.errors import ConfigError
from autoseg.zoo.output_stride import MaxPool, StageRate, rarefy, stage_rates
from zoo.contract import noise


def whole_numbers(*shape: int, seed: int) -> Tensor:
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


def with_whole_weights(network: nn.Sequential) -> nn.Sequential:
    for seed, parameter in enumerate(network.parameters()):
        parameter.data = whole_numbers(*parameter.shape, seed=seed)
    return network.eval()


def valid_network() -> nn.Sequential:
    """Strides 1, 2, 2, 1, 3: 12 in all, no padding."""
    return with_whole_weights(
        nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, stride=2, dilation=2), nn.Dropout(),
            nn.Conv2d(4, 4, (2, 3), groups=2), nn.ReLU(), nn.MaxPool2d(2, 3), nn.Conv2d(4, 2, 2, bias=False),
        )
    )  # fmt: skip


def padded_network() -> nn.Sequential:
    return with_whole_weights(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 3, 3, 2, 1),
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, 2, 3, padding=1),
        )
    )  # fmt: skip


@pytest.mark.parametrize("output_stride", [1, 2, 4])
def test_equals_shift_and_stitch_bitwise(output_stride: int) -> None:
    network = valid_network()
    dense = rarefy(network, output_stride)
    images = whole_numbers(2, 2, 61, 58, seed=9)
    result = dense(images)
    assert result.abs().max() < 2**24  # so that float32 holds every sum exactly, in any order
    assert result.unique().numel() > 100
    step = 12 // output_stride
    for row in range(step):
        for column in range(step):
            shifted = network(images[:, :, row * output_stride :, column * output_stride :])
            assert torch.equal(result[:, :, row::step, column::step], shifted)


def test_with_zero_padding_it_equals_shift_and_stitch_away_from_the_border() -> None:
    network = padded_network()
    images = whole_numbers(1, 2, 61, 58, seed=9)
    result = rarefy(network, 1)(images)
    assert result.shape == (1, 2, 61, 58)
    assert torch.equal(result[:, :, ::4, ::4], network(images))  # the unshifted image has the same zeros around it
    reach = 1 + 1 + 2 + 4 + 4  # of the five windows, in pixels of the image
    for row in range(4):
        for column in range(4):
            stitched = network(images[:, :, row:, column:])
            dense = result[:, :, row::4, column::4]
            rows = slice(-(-reach // 4), (61 - reach - row) // 4)
            columns = slice(-(-reach // 4), (58 - reach - column) // 4)
            assert stitched[:, :, rows, columns].numel() > 50
            assert torch.equal(dense[:, :, rows, columns], stitched[:, :, rows, columns])
            assert (row, column) == (0, 0) or not torch.equal(dense, stitched)


def test_weights_and_what_stays_the_same_are_shared() -> None:
    network = valid_network()
    dense = rarefy(network, 2)
    assert [one is another for one, another in zip(network, dense, strict=True)] == [True] * 3 + [
        False, True, False, True, False, False
    ]  # fmt: skip
    assert [id(value) for value in network.parameters()] == [id(value) for value in dense.parameters()]
    assert list(network.state_dict()) == list(dense.state_dict())
    assert not any(part.training for part in dense.modules())
    assert all(one is another for one, another in zip(network, rarefy(network, 12), strict=True))


@pytest.mark.parametrize(
    ("layers", "stride", "code", "named"),
    [
        (
            [nn.Conv2d(1, 1, 3, 2), nn.Conv2d(1, 1, 3, 2)],
            3,
            "output-stride-unavailable",
            ["output stride 3", "it can be: 2, 4"],
        ),
        ([nn.AvgPool2d(2)], 1, "layer-not-dilatable", ["layer 0", "AvgPool2d"]),
        ([nn.ReLU(), nn.ConvTranspose2d(1, 1, 2)], 1, "layer-not-dilatable", ["layer 1", "ConvTranspose2d"]),
        ([nn.Conv2d(1, 1, 3, (1, 2))], 1, "layer-not-dilatable", ["layer 0", "stride=(1, 2)", "two strides"]),
        ([nn.MaxPool2d(2, ceil_mode=True)], 1, "layer-not-dilatable", ["layer 0", "ceil_mode=True"]),
    ],
)
def test_what_cannot_be_rarefied_is_refused(layers: list[nn.Module], stride: int, code: str, named: list[str]) -> None:
    with raises_code(ConfigError, code, *named):
        rarefy(nn.Sequential(*layers), stride)


def test_stage_rates() -> None:
    assert stage_rates([4, 2, 2, 2], 8) == [
        StageRate(4, 1, 1, 4), StageRate(2, 1, 1, 8), StageRate(1, 1, 2, 8), StageRate(1, 2, 4, 8)
    ]  # fmt: skip
    assert [stage.rate for stage in stage_rates([4, 2, 2, 2], 32)] == [1, 1, 1, 1]
    with raises_code(ConfigError, "output-stride-unavailable", "output stride 2 ", "it can be: 4, 8, 16, 32"):
        stage_rates([4, 2, 2, 2], 2)


@pytest.mark.parametrize("kernel_size", [2, 3])
@pytest.mark.parametrize(("stride", "rate"), [(2, 1), (1, 1), (1, 2), (1, 4)])
def test_max_pool_reads_the_pixels_inside(kernel_size: int, stride: int, rate: int) -> None:
    features = noise(2, 3, 9, 6) - 5  # negative: zeros around them would win
    result = MaxPool(kernel_size, stride, rate)(features)
    first = -rate if kernel_size == 3 else 0
    assert result.shape == (2, 3, -(-9 // stride), -(-6 // stride))
    for row in range(result.shape[2]):
        for column in range(result.shape[3]):
            rows = [row * stride + first + rate * tap for tap in range(kernel_size)]
            columns = [column * stride + first + rate * tap for tap in range(kernel_size)]
            inside = [features[:, :, y, x] for y in rows for x in columns if 0 <= y < 9 and 0 <= x < 6]
            assert torch.equal(result[:, :, row, column], torch.stack(inside).amax(0))
