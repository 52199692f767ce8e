"""Down moves of few channels, whose strided convolution PyTorch 2.13 cannot be trusted with on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from autoseg.space.trellis import Move
from autoseg.supernet.fast.cell import FEWEST_STRIDED, Feature, Preprocess


@pytest.mark.parametrize("in_channels", [FEWEST_STRIDED - 4, FEWEST_STRIDED])
@pytest.mark.parametrize("size", [8, 9])
def test_equals_strided_convolutions(in_channels: int, size: int) -> None:
    torch.manual_seed(0)
    arrival = Preprocess(in_channels, 6, Move.DOWN).double()
    features = torch.randn(2, in_channels, size, size, dtype=torch.float64)
    first, second = arrival(Feature(features, F.relu(features)), ((size + 1) // 2,) * 2)
    assert arrival.conv_offset is not None
    shifted = F.pad(F.relu(features), (-1, size % 2, -1, size % 2))
    torch.testing.assert_close(first, F.conv2d(F.relu(features), arrival.conv.weight, stride=2))
    torch.testing.assert_close(second, F.conv2d(shifted, arrival.conv_offset.weight, stride=2))


def test_few_channels_never_meet_a_strided_convolution() -> None:
    strides = {width: Preprocess(width, 6, Move.DOWN).conv.stride for width in (3, 12, 15, 16, 40)}
    assert strides == {3: (1, 1), 12: (1, 1), 15: (1, 1), 16: (2, 2), 40: (2, 2)}
