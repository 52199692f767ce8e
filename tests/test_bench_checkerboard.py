"""The checkerboard measures, on patterns made by hand and on upsamplers as they begin."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

from bench.checkerboard import constant_grid_share, grid_energy_share, logits_checkerboard, replica_db

from autoseg.ops.upsample import upsample_by
from autoseg.registry import UPSAMPLERS

CHANNELS = 48

INITIAL = {
    "nearest": 0,
    "bilinear": 0,
    "transposed_conv": 0.75,
    "transposed_conv_bilinear": 0,
    "pixel_shuffle": 0.75,
    "pixel_shuffle_icnr": 0,
    "pixel_dcl": 0.75,
    "pixel_dcl_equations": 0.75,
    "pixel_dcl_average": 0,
    "ipixel_dcl": 0.75,
    "ipixel_dcl_equations": 0.75,
    "carafe": 0,
    "dysample": 0,
}


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Applied(nn.Module):
    """A function as an upsampler."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, features: Tensor, size: None, guide: Tensor) -> Tensor:
        return self.function(features)  # type: ignore[operator, no-any-return]


def zeros_between(features: Tensor) -> Tensor:
    return F.conv_transpose2d(features, torch.ones(features.shape[1], 1, 1, 1), stride=2, output_padding=1,
                              groups=features.shape[1])  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ([[1, 1], [1, 1]], 0),
        ([[1, -1], [-1, 1]], 1),
        ([[1, 0], [1, 0]], 0.5),
        ([[1, 0], [0, 0]], 0.75),
        ([[0, 0], [0, 0]], 0),
        ([[3, 1], [1, 1]], 1 - 36 / (4 * 12)),
    ],
)
def test_share_of_repeated_cells(cell: list[list[float]], expected: float) -> None:
    pattern = torch.tensor(cell, dtype=torch.float32).repeat(4, 5)
    assert grid_energy_share(pattern.expand(2, 3, -1, -1)) == pytest.approx(expected)
    odd = F.pad(pattern, (0, 1, 0, 1), value=100.0)
    assert grid_energy_share(odd.expand(2, 3, -1, -1)) == pytest.approx(expected)


def test_share_is_that_of_the_spectrum() -> None:
    output = noise(2, 3, 6, 8)
    spectrum = torch.fft.fft2(output.double()).abs().square()
    at_grid = spectrum[..., 3, 0] + spectrum[..., 0, 4] + spectrum[..., 3, 4]
    assert grid_energy_share(output) == pytest.approx((at_grid.sum() / spectrum.sum()).item())


def test_four_unrelated_phases_have_three_quarters() -> None:
    assert grid_energy_share(noise(8, 64, 2, 2).repeat(1, 1, 6, 6)) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("name", INITIAL)
def test_upsamplers_as_they_begin(name: str) -> None:
    torch.manual_seed(0)
    share = constant_grid_share(UPSAMPLERS[name].build(CHANNELS, CHANNELS), CHANNELS)
    if INITIAL[name]:
        assert share == pytest.approx(INITIAL[name], abs=0.04)
    else:
        assert share < 1e-9


def test_every_upsampler_has_an_expectation() -> None:
    assert set(INITIAL) == set(UPSAMPLERS) - {"max_unpool"}
    torch.manual_seed(0)
    share = constant_grid_share(UPSAMPLERS["max_unpool"].build(CHANNELS, CHANNELS), CHANNELS)
    assert share < 0.05  # three pixels of four are zero, but at random, so that little is at the grid


def test_replicas_of_known_interpolations() -> None:
    between = replica_db(Applied(zeros_between), 3)
    assert between == pytest.approx(10 * math.log10(3), abs=0.2)
    nearest = replica_db(Applied(lambda x: F.interpolate(x, scale_factor=2.0)), 3)
    bilinear = replica_db(
        Applied(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)), 3
    )
    assert nearest == pytest.approx(10 * math.log10(_replicas(1)), abs=0.7)
    assert bilinear == pytest.approx(10 * math.log10(_replicas(3)), abs=1.2)


def _replicas(power: int) -> float:
    """Energy of replicas over that of white noise up to 1/8, for a kernel (1 + z)^power along both axes."""
    frequencies = (torch.arange(1000) + 0.5) / 8000
    kept = (torch.pi * frequencies).cos().pow(2 * power).mean().item()
    mirrored = (torch.pi * frequencies).sin().pow(2 * power).mean().item()
    return (2 * kept * mirrored + mirrored**2) / kept**2


def test_replicas_of_upsamplers_as_they_begin() -> None:
    torch.manual_seed(0)
    db = {name: replica_db(each.build(8, 8), 8) for name, each in UPSAMPLERS.items()}
    smooth = ("bilinear", "transposed_conv_bilinear", "dysample")
    rough = ("transposed_conv", "pixel_shuffle", "pixel_dcl", "ipixel_dcl")
    assert max(db[name] for name in smooth) < -25 < db["nearest"] < min(db[name] for name in rough)


def test_logits_of_a_checkerboard_stand_out() -> None:
    white = noise(2, 4, 64, 96)
    assert logits_checkerboard(white) < 0.005
    flags = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(32, 48)
    stripes = torch.tensor([[1.0, -1.0], [1.0, -1.0]]).repeat(32, 48)
    for pattern in (flags, stripes, stripes.roll(1, 1), stripes * flags):
        assert logits_checkerboard(white + pattern) == pytest.approx(0.5, abs=0.02)
    assert logits_checkerboard(flags.expand(1, 1, -1, -1)) == pytest.approx(1, abs=1e-6)
    edges = torch.zeros(1, 1, 64, 96)
    edges[..., 13:41, 22:73] = 1
    assert logits_checkerboard(edges) < 1e-4
    smooth = F.interpolate(noise(2, 4, 8, 12), size=(64, 96), mode="bilinear")
    assert logits_checkerboard(smooth) < 1e-6
    assert logits_checkerboard(smooth * (1 + 0.2 * flags)) == pytest.approx(0.04, abs=0.01)
    assert logits_checkerboard(torch.zeros(1, 1, 32, 32)) == 0


def test_logits_of_upsamplers_are_ordered() -> None:
    """Smooth features, doubled."""
    torch.manual_seed(0)
    features = F.interpolate(noise(2, 8, 5, 6), size=(40, 48), mode="bilinear")
    shares = {}
    for name in ("bilinear", "pixel_dcl_average", "transposed_conv"):
        with torch.no_grad():
            shares[name] = logits_checkerboard(upsample_by(name, 2, 8, 8)(features))
    assert shares["bilinear"] < 1e-4
    assert shares["pixel_dcl_average"] < 0.02
    assert shares["transposed_conv"] > 0.3
