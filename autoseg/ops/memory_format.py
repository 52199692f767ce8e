"""Memory format of images."""

from __future__ import annotations

import torch


def preferred_format(device: torch.device) -> torch.memory_format:
    """channels_last, in which CPUs and CUDA GPUs convolve fastest; NCHW on mps, which copies other formats to it."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last
