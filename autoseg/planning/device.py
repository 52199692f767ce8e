"""The memory of devices, and sizes of memory as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from autoseg.errors import ConfigError, RunError
from autoseg.files import short
from autoseg.host_memory import free_memory, lacks_memory, total_memory, total_with_swap

PREFIXES = ("", "K", "M", "G", "T")
MEMORY = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([KMGT]?)(I?)B?\s*", re.IGNORECASE)
MPS_MOST = 1.7
"""PyTorch's default limit for MPS, as a share of what the system recommends (PYTORCH_MPS_HIGH_WATERMARK_RATIO)."""


def parse_bytes(text: str | int) -> int:
    """Bytes of "16GB" (10^9 each), "16GiB" (2^30 each) or a number. Raises: ConfigError: no size in 1..2^60."""
    found = MEMORY.fullmatch(str(text))
    if found is None or (found[3] and not found[2]):
        raise ConfigError(
            f"memory {short(text)} is no size; write it as 16GB, 16GiB, 800MB or a number of bytes",
            code="memory-not-a-size",
        )
    size = float(found[1]) * (1024 if found[3] else 1000) ** PREFIXES.index(found[2].upper())
    if not 1 <= size < 2**60:
        raise ConfigError(
            f"memory {short(text)} makes no sense; give what the device has, such as 16GB", code="memory-out-of-range"
        )
    return int(size)


def device_memory(device: torch.device) -> int:
    """Bytes of a device: all memory of a GPU, what the system recommends for MPS, or what is free for the CPU.

    A container's limit counts. Raises: ConfigError: the system does not say.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    found = free_memory()
    found = total_memory() if found is None else found
    if found is None:
        raise ConfigError(
            "this system does not say how much memory it has; give it with --memory, such as 16GB",
            code="memory-unknown",
        )
    return found


def most_memory(device: torch.device) -> int | None:
    """The most bytes that a run could get if it were alone, on a CPU with swap. None: the system does not say."""
    if device.type == "cpu":
        return total_with_swap()
    return round(device_memory(device) * (MPS_MOST if device.type == "mps" else 1))


@contextmanager
def memory_errors(device: torch.device, advice: str) -> Iterator[None]:
    """Turn an out-of-memory error into one line that ends with `advice`. Raises: RunError: out of memory."""
    try:
        yield
    except Exception as reason:
        if not isinstance(reason, torch.OutOfMemoryError) and not lacks_memory(reason):
            raise
        raise RunError(f"{device} is out of memory; {advice}", code="out-of-memory") from None
