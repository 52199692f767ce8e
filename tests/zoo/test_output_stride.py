"""Filter rarefaction equals shift-and-stitch away from the border; strides, dilations and dilated pools."""

from __future__ import annotations

import pytest
import torch
from helpers.errors import raises_code
from helpers.zoo_contract import made, noise

from autoseg.errors import ConfigError
from autoseg.zoo.layers import MaxPool, StageRate, stage_rates
from autoseg.zoo.vgg import VGG16


@pytest.mark.slow
def test_a_smaller_output_stride_equals_shift_and_stitch_away_from_the_border() -> None:
    """VGG16 at output stride 8, against the same weights at 32 on an image that is shifted in steps of 8 pixels."""
    dense = made(lambda: VGG16(width=0.05, output_stride=8)).double()
    network = made(lambda: VGG16(width=0.05)).double()
    images = noise(1, 3, 320, 352).double()
    result, reach = dense(images).pooled[-1], -(-110 // 32)  # the receptive field, 212 pixels, to either side
    for row in range(4):
        for column in range(4):
            stitched = network(images[:, :, 8 * row :, 8 * column :]).pooled[-1]
            found = result[:, :, row::4, column::4]
            inside = slice(reach, -reach - 1), slice(reach, -reach - 1)
            expected = stitched[:, :, *inside]
            assert expected.numel() > 50
            assert expected.unique().numel() > 20
            torch.testing.assert_close(found[:, :, *inside], expected, rtol=0, atol=1e-12)
            if row or column:
                assert not torch.equal(found, stitched)  # zeros around the image make a difference


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
