"""The card and the software, as the results name them."""

from __future__ import annotations

import platform
import subprocess
from typing import Any

import torch

CARD = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")
"""What nvidia-smi is asked for."""


def describe() -> dict[str, Any]:
    """Card, driver, versions. `cuda` is whether torch finds a card; it makes no context unless there is one."""
    found: dict[str, Any] = {
        "cuda": torch.cuda.is_available(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": _triton(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "card": _card(),
        }
    return found


def _triton() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    version: str = triton.__version__
    return version


def _card() -> dict[str, str]:
    """What nvidia-smi says, with units; empty where there is none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(CARD)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(CARD, (value.strip() for value in done.stdout.splitlines()[0].split(",")), strict=False))
