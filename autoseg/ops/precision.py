"""Precision of computations."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def without_autocast(features: Tensor) -> AbstractContextManager[Any]:
    """A context in which autocast is off. Meta tensors have no autocast."""
    return nullcontext() if features.is_meta else torch.autocast(features.device.type, enabled=False)


def float64_device(device: torch.device) -> torch.device:
    """The device for float64 sums of a device's results: itself, or the CPU if it has no float64 (mps)."""
    return torch.device("cpu") if device.type == "mps" else device
