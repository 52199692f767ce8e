"""How much memory there is, and sizes of memory as people write them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from autoseg.errors import ConfigError, RunError

PREFIXES = ("", "K", "M", "G", "T")
MEMORY = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*([KMGT]?)(I?)B?\s*", re.IGNORECASE)
MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What PyTorch says of it besides its own exception: its CPU allocator on Linux and on Windows, and libraries."""


def parse_bytes(text: str | int) -> int:
    """Bytes of "16GB" (10^9 each), "16GiB" (2^30 each), "800MB", or a number of bytes.

    Raises: ConfigError: no size, or none that a device could have.
    """
    found = MEMORY.fullmatch(str(text))
    if found is None or (found[3] and not found[2]):
        raise ConfigError(f"memory '{text}' is no size; write it as 16GB, 16GiB, 800MB or a number of bytes")
    size = float(found[1]) * (1024 if found[3] else 1000) ** PREFIXES.index(found[2].upper())
    if not 1 <= size < 2**60:
        raise ConfigError(f"memory '{text}' makes no sense; give what the device has, such as 16GB")
    return int(size)


def format_bytes(size: float) -> str:
    """Three digits and a unit of 10^3, 10^6, ... bytes: "7.21 GB"."""
    power = 0
    while size >= 999.5 and power < len(PREFIXES) - 1:
        size, power = size / 1000, power + 1
    digits = 0 if power == 0 or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{digits}f} {PREFIXES[power]}B"


def device_memory(device: torch.device) -> int:
    """All memory of a GPU; of a CPU what is free, or what its container may still take if that is less.

    Raises: ConfigError: the system does not say.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    found = [size for size in (_free_memory(), _free_in_container()) if size is not None]
    if not found:
        raise ConfigError("this system does not say how much memory it has; give it with --memory, such as 16GB")
    return min(found)


@contextmanager
def memory_errors(device: torch.device, advice: str) -> Iterator[None]:
    """Make one line of it where the memory does not suffice; `advice`: what to do. Raises: RunError: it happened."""
    try:
        yield
    except (MemoryError, RuntimeError) as reason:
        ours = isinstance(reason, MemoryError | torch.OutOfMemoryError)
        if not ours and not any(sign in str(reason) for sign in OUT_OF_MEMORY):
            raise
        raise RunError(f"{device} is out of memory; {advice}") from None


def _free_memory() -> int | None:
    """What Linux says is available; elsewhere all memory."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _free_in_container() -> int | None:
    """What the limit of a control group (version 2) leaves; None without a limit."""
    try:
        most, used = (
            (CONTAINER / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current")
        )
    except OSError:
        return None
    return max(0, int(most) - int(used)) if most.isdigit() else None
