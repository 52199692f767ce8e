"""Mixed precision: forward passes in bf16 or fp16, and the loss scaling of fp16."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of automatic mixed precision in bf16 or fp16; it does nothing in float32."""
    # no cache: a step casts each weight only once, and a cached cast could be read on another stream
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """A scaler of the loss, so that small gradients do not vanish in fp16 (Micikevicius et al. 2018).

    For other precisions it is disabled: it returns the loss unchanged and always lets the optimizer step.
    """
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def loss_scale(scaler: torch.amp.GradScaler, loss: Tensor) -> Mapping[str, Tensor]:
    """The scaler's current factor as a figure to log, on the device; empty if the scaler is disabled."""
    # GradScaler.get_scale would wait for the device
    return {"loss_scale": scaler.scale(torch.ones_like(loss))} if scaler.is_enabled() else {}
