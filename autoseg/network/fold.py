"""Trained networks for inference: BatchNorm merged into convolutions, memory format, precision."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from autoseg.errors import ConfigError
from autoseg.ops.devices import preferred_format

Module = TypeVar("Module", bound=nn.Module)
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def fold_batch_norm(network: Module) -> Module:
    """A copy in evaluation mode that computes the same, with every BatchNorm merged into the convolution it reads.

    In evaluation mode BatchNorm scales and shifts each channel by constants, which fit into the convolution's weight
    and bias. A module's `conv_norms` names the pairs; everything else stays.
    """
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        for conv_name, norm_name in getattr(module, "conv_norms", ()):
            conv, norm = module.get_submodule(conv_name), module.get_submodule(norm_name)
            if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                transposed = isinstance(conv, nn.ConvTranspose2d)
                module.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm, transposed))
                module.set_submodule(norm_name, nn.Identity())
    return folded


def for_inference(network: Module, device: torch.device, precision: str = "float32") -> Module:
    """A folded copy on `device` in its memory format, in `precision`. Raises: ConfigError: neither float32 nor bf16."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be {' or '.join(PRECISIONS)}, not {precision}", code="unknown-precision")
    folded = fold_batch_norm(network).requires_grad_(False)
    folded.to(device=device, memory_format=preferred_format(device))  # type: ignore[call-overload]
    return folded.to(dtype=PRECISIONS[precision])  # after folding, whose products need float32
