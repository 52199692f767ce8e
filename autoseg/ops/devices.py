"""What a computation does differently by the kind of device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_acted: ContextVar[str | None] = ContextVar("acted", default=None)


def device_type(tensor: Tensor) -> str:
    """`cpu`, `cuda` or `mps`: the tensor's device, or that of `acting_as`."""
    return _acted.get() or tensor.device.type


@contextmanager
def acting_as(kind: str) -> Iterator[None]:
    """A context in which `device_type` returns `kind` for every tensor.

    Memory is predicted on tensors without data, which take the GPU's path by this. They lie on the CPU: PyTorch makes
    no backward pass on tensors of a missing GPU (2.11 with CUDA raises an error, 2.13 without CUDA ends the process).
    """
    token = _acted.set(kind)
    try:
        yield
    finally:
        _acted.reset(token)


def without_autocast(features: Tensor) -> AbstractContextManager[Any]:
    """A context in which autocast is off. Meta tensors have no autocast."""
    return nullcontext() if features.is_meta else torch.autocast(features.device.type, enabled=False)


def float64_device(device: torch.device) -> torch.device:
    """The device for float64 sums of a device's results: itself, or the CPU if it has no float64 (mps)."""
    return torch.device("cpu") if device.type == "mps" else device


def preferred_format(device: torch.device) -> torch.memory_format:
    """channels_last, in which CPUs and CUDA GPUs convolve fastest; NCHW on mps, which copies other formats to it."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last
