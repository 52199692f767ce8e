"""Where and with what a run was made, and the device that it uses."""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from autoseg import __version__
from autoseg.errors import ConfigError

PACKAGES = ("torch", "numpy", "networkx", "pydantic", "pillow", "torchmetrics")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt, in bytes."""


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; for a CPU, memory is set up as `keep_freed_memory` says.

    Raises: ConfigError: `cuda` on a machine without, or an unknown name.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: should be 'auto', 'cpu' or 'cuda', not '{name}'")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda is not there on this machine; use --device cpu, or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        keep_freed_memory()
    return torch.device(name)


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free for the next ones, instead of giving it back to the system each time.

    By default glibc maps every large tensor anew, and the system has to fill each of its pages with zeros. Does nothing
    with another C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def describe_environment(device: torch.device, seed: int) -> dict[str, Any]:
    """Versions, device, seed, git commit of autoseg, command line."""
    return {
        "autoseg": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "seed": seed,
        "git_commit": _git_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _git_commit() -> str | None:
    """The commit of the checkout that autoseg runs from; None when it is installed from a wheel."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
