"""Checkerboard artefacts of upsampling by two: how strongly the four phases of the 2x2 grid differ.

A pattern that repeats every two pixels is energy at three frequencies, "the grid": half a cycle a pixel along the rows,
along the columns, and along both. Upsampling also mirrors what the input contains around these three, as replicas,
unless it interpolates. Letters: N images, C channels or classes, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

GRID = ((0.0, 0.5), (0.5, 0.0), (0.5, 0.5))
"""The three frequencies, (rows, columns), in cycles a pixel."""

Upsample = Callable[[Tensor, None, Tensor], Tensor]
"""Called with features, no size and a guide, as the modules of `ops.upsample`."""


def grid_energy_share(output: Tensor) -> float:
    """Share of the energy of (N, C, H, W) at the three grid frequencies: 0 none, 0.75 four unrelated phases.

    The mean counts as energy, so for what repeats every two pixels the rest is at frequency 0. An odd last row or
    column is left out. Zero where there is no energy at all.
    """
    height, width = (length // 2 * 2 for length in output.shape[2:])
    even = output[..., :height, :width].detach().double()
    total = even.square().sum().item()
    # sums over each phase, (N, C, 4), row by row, and their differences along columns, rows and both
    phases = torch.stack([even[..., row::2, col::2].sum((2, 3)) for row in (0, 1) for col in (0, 1)], 2)
    signs = phases.new_tensor([[1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    amplitudes = phases @ signs.T
    return amplitudes.square().sum().item() / (height * width) / total if total else 0.0


def constant_grid_share(upsample: nn.Module, in_channels: int, size: int = 16, images: int = 8, seed: int = 0) -> float:
    """`grid_energy_share` of what an upsampler makes of inputs that are constant over the image, borders left out.

    The constants are random for each image and channel; the guide, for unpooling, is noise.
    """
    generator = torch.Generator().manual_seed(seed)
    constants = torch.randn(images, in_channels, 1, 1, generator=generator).expand(-1, -1, size, size)
    return grid_energy_share(_inside(_run(upsample, constants, generator), size // 2))


def replica_db(upsample: nn.Module, in_channels: int, size: int = 48, images: int = 4, seed: int = 0) -> float:
    """Energy of the replicas around the grid frequencies over that of the signal, in dB, for band-limited noise.

    The noise has no frequency over a quarter of a cycle a pixel (an eighth in the result), so the replicas lie apart
    from it. 4.8 dB: as strong as the signal at each of the three, zeros between pixels. Nearest neighbour is at about
    -9, bilinear interpolation at about -28.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images, in_channels, size, size, generator=generator, dtype=torch.float64)
    within = _distance((0.0, 0.0), size, size) <= 0.25
    smooth = torch.fft.ifft2(torch.fft.fft2(noise) * within).real.to(torch.float32)
    power = _power(_inside(_run(upsample, smooth, generator), size // 4))
    signal = _band_energy(power, (0.0, 0.0), 0.15)
    return _decibels(sum(_band_energy(power, place, 0.15) for place in GRID), signal)


def logits_checkerboard(logits: Tensor) -> float:
    """Share of the energy of (N, C, H, W) that stands out around the grid frequencies: 0 none, 1 nothing else.

    What lies within 1/16 of a cycle of each of the three, less what would lie there at the density of power beside it,
    from 1/16 to 3/16 towards lower frequencies; each map's mean does not count. Spectra of scenes and of their edges
    fall towards the grid, so real structure counts for nothing, and white noise for nothing on average. Trained
    logits are mostly low frequencies: expect thousandths. At least 32 pixels a side.
    """
    power = _power(logits)
    rows, columns = _frequencies(power.shape[0]), _frequencies(power.shape[1])
    excess = 0.0
    for row, column in GRID:
        near_rows, near_columns = (rows - row).abs() <= 1 / 16, (columns - column).abs() <= 1 / 16
        # where the frequency is zero along an axis the surroundings keep to it, or edges along the axis would mislead
        around_rows = _beside(rows) if row else near_rows
        around_columns = _beside(columns) if column else near_columns
        near, around = power[near_rows][:, near_columns], power[around_rows][:, around_columns]
        excess += max(0.0, (near.sum() - around.mean() * near.numel()).item())
    total = power.sum().item()
    return excess / total if total else 0.0


def _beside(frequencies: Tensor) -> Tensor:
    distance = 0.5 - frequencies
    return (distance > 1 / 16) & (distance <= 3 / 16)


def _run(upsample: nn.Module, features: Tensor, generator: torch.Generator) -> Tensor:
    """What it makes, on its device and in its precision, with noise as guide."""
    like = next(upsample.parameters(), features)
    height, width = features.shape[2:]
    guide = torch.randn(features.shape[0], features.shape[1], 2 * height, 2 * width, generator=generator)
    with torch.no_grad():
        output: Tensor = upsample(features.to(like), None, guide.to(like))
    return output.cpu()


def _inside(output: Tensor, margin: int) -> Tensor:
    """Without `margin` (made even) pixels at each border, where zeros around the input are seen."""
    margin -= margin % 2
    return output[..., margin:-margin, margin:-margin]


def _frequencies(length: int) -> Tensor:
    """From 0 to 0.5, regardless of sign."""
    frequencies: Tensor = torch.fft.fftfreq(length, dtype=torch.float64).abs()
    return frequencies


def _distance(place: tuple[float, float], height: int, width: int) -> Tensor:
    """(H, W): the greater of the distances along rows and columns, in cycles a pixel."""
    rows, columns = (_frequencies(height) - place[0]).abs(), (_frequencies(width) - place[1]).abs()
    return torch.maximum(rows.unsqueeze(1), columns)


def _power(output: Tensor) -> Tensor:
    """(N, C, H, W) -> (H, W): the mean spectrum under a Hann window, the mean of each map taken out."""
    output = output.detach().double().cpu()
    height, width = output.shape[2:]
    window = torch.outer(*(torch.hann_window(length, dtype=torch.float64) for length in (height, width)))
    centred = output - output.mean((2, 3), keepdim=True)
    power: Tensor = torch.fft.fft2(centred * window).abs().square().mean((0, 1))
    return power


def _band_energy(power: Tensor, place: tuple[float, float], half_width: float) -> float:
    return power[_distance(place, power.shape[0], power.shape[1]) <= half_width].sum().item()


def _decibels(energy: float, reference: float) -> float:
    """-inf for none."""
    return 10 * math.log10(energy / reference) if energy > 0 and reference > 0 else -math.inf
