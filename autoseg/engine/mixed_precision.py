"""Mixed precision: forward passes in bf16 or fp16, and the scaled loss that fp16 needs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Automatic mixed precision in bf16 or fp16, or nothing.

    A step reads each weight once: a cache of their casts would save nothing, and would cross streams.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss so that small gradients do not vanish in fp16 (Micikevicius et al. 2018).

    For other precisions it is disabled: it hands on the loss and lets the optimizer step.
    """
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def loss_scale(scaler: torch.amp.GradScaler, loss: Tensor) -> Mapping[str, Tensor]:
    """The scaler's present factor as a figure to log, on the device; nothing if the scaler is disabled."""
    # GradScaler.get_scale would wait for the device
    return {"loss_scale": scaler.scale(torch.ones_like(loss))} if scaler.is_enabled() else {}
