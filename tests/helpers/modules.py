"""Modules and features in float64 with values of both signs."""

from __future__ import annotations

import torch
from torch import nn


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 with parameters, those of BatchNorm included, drawn from N(0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
