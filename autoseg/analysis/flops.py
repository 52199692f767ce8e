"""Parameters and multiply-adds of a network, counted without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoseg.ops.resize import Size


@dataclass(frozen=True)
class Cost:
    """`multiply_adds` is per image at `size` (H, W): products of convolutions and matrices, padding included."""

    parameters: int
    multiply_adds: int
    size: Size


def count_cost(build: Callable[[], nn.Module], size: Size) -> Cost:
    """The cost of what `build` makes for one image, on meta tensors. An auxiliary head counts, buffers do not."""
    with torch.device("meta"):
        network = build().eval()
        images = torch.empty(1, getattr(network, "in_channels", 3), *size)
    return Cost(count_parameters(network), count_multiply_adds(network, images), size)


def count_multiply_adds(module: nn.Module, *inputs: Any) -> int:
    """Products of convolutions and matrices in one forward pass; module and inputs may be meta tensors."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    products: int = counter.get_total_flops() // 2
    return products


def count_parameters(network: nn.Module) -> int:
    """Number of trainable and frozen parameters, each counted once."""
    return sum(parameter.numel() for parameter in network.parameters())
