"""In which precision a device computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def without_autocast(features: Tensor) -> AbstractContextManager[Any]:
    """What is done in here stays in the precision that it has. Meta tensors know no autocast."""
    return nullcontext() if features.is_meta else torch.autocast(features.device.type, enabled=False)


def float64_device(device: torch.device) -> torch.device:
    """Where what a device has computed is summed in float64: there, or on the CPU where it has none (mps)."""
    return torch.device("cpu") if device.type == "mps" else device
