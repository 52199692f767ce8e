"""How images lie in memory on a device."""

from __future__ import annotations

import torch


def preferred_format(device: torch.device) -> torch.memory_format:
    """channels_last, in which CPUs and CUDA GPUs convolve fastest; plain NCHW on mps, which copies others to it."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last
