"""The cost of competing upsamplers, a part of the objective of a search."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.analysis.flops import count_multiply_adds
from autoseg.ops.upsample import build_upsampler
from autoseg.space.schema import SearchSpace
from autoseg.space.snapshot import gamma_legal

SIDE = 8
"""Side of the square feature map for which multiply-adds are counted."""


def relative_costs(space: SearchSpace, num_classes: int) -> Tensor:
    """[site, upsampler]: multiply-adds per pixel before doubling, relative to the site's most expensive candidate.

    Upsamplers have the filters of the finer level on up moves, and the classes' score maps in the decoder. 0 for
    upsamplers that do not compete at a site, and at sites where none costs anything. float64, on the CPU.
    """
    widths = {space.gamma_row(arrow): space.filters(arrow.target.level) for arrow in space.trellis.arrows}
    widths |= {space.decoder_row(level): num_classes for level in space.decoder_stages}
    rows = []
    for row, site in enumerate(space.gamma_sites):
        counted = {name: multiply_adds_per_pixel(name, widths[row]) for name in site.candidates}
        greatest = max(counted.values())
        rows.append([counted.get(name, 0) / greatest if greatest else 0.0 for name in space.upsamplers])
    return torch.tensor(rows, dtype=torch.float64).view(gamma_legal(space).shape)


def multiply_adds_per_pixel(name: str, channels: int) -> float:
    """Multiply-adds of an upsampler that keeps the channels, per pixel of its input."""
    with torch.device("meta"):
        upsampler = build_upsampler(name, channels, channels).eval()
        features, guide = (torch.empty(1, channels, side, side) for side in (SIDE, 2 * SIDE))
    return count_multiply_adds(upsampler, features, (2 * SIDE, 2 * SIDE), guide) / SIDE**2
