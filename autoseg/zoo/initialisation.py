"""How the weights of a network begin."""

from __future__ import annotations

from torch import nn


def he_initialise(module: nn.Module) -> None:
    """He initialisation (2015), by fan-out, of every convolution in `module`; biases begin at zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
