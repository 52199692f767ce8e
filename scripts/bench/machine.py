"""The machine, and what it reaches at best."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.measure import timed


def describe(device: torch.device) -> dict[str, Any]:
    """Name of the device, versions, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def limits(device: torch.device, precision: str) -> dict[str, float]:
    """FLOP/s of a large matrix product and bytes/s, read and written, of a large copy: the best of several.

    On a GPU PyTorch lets convolutions of float32 use TF32, so the limit is that of products in TF32 then.
    """
    on_gpu = device.type == "cuda"
    side, elements = (8192, 2**28) if on_gpu else (1536, 2**25)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source, target = (torch.empty(elements, device=device).fill_(1) for _ in range(2))
    of_products = torch.backends.cuda.matmul.fp32_precision
    try:
        if on_gpu and torch.backends.cudnn.conv.fp32_precision == "tf32":
            torch.backends.cuda.matmul.fp32_precision = "tf32"
        flops_per_s = 2 * side**3 / _best(lambda: torch.mm(a, b), device)
    finally:
        torch.backends.cuda.matmul.fp32_precision = of_products
    return {"flops_per_s": flops_per_s, "bytes_per_s": 8 * elements / _best(lambda: target.copy_(source), device)}


def _best(work: Callable[[], Any], device: torch.device) -> float:
    work()
    return min(timed(work, device)[0] for _ in range(7))
