"""The device of a run, and a record of the software and machine that made it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from autoseg._version import __version__
from autoseg.engine.config import checked_device
from autoseg.errors import ConfigError
from autoseg.process import prepare_process

PACKAGES = ("torch", "numpy", "networkx", "pydantic", "pillow")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


def pick_device(name: str) -> torch.device:
    """Return the device of this name and prepare the process for it; a GPU becomes the current one.

    `auto` is the first GPU, or the CPU if there is none, but never mps, which is experimental. `cuda` is the first GPU.
    For the CPU, `keep_freed_memory` is called.

    Raises: ConfigError: an unknown name, or a device that this machine lacks.
    """
    prepare_process()
    try:
        checked_device(name)
    except ValueError as reason:
        raise ConfigError(f"device: {reason}", code="unknown-device") from None
    kind, _, number = name.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise _missing("device mps is not there: it is the GPU of a Mac with Apple silicon")
    if kind == "cuda":
        index = int(number or 0)
        if not torch.cuda.is_available():
            built = torch.version.cuda or torch.version.hip
            why = "" if built else " (this PyTorch is built without CUDA)"
            raise _missing(f"device {name} is not there on this machine", why)
        if index >= (count := torch.cuda.device_count()):
            names = ", ".join(f"cuda:{at}: {torch.cuda.get_device_name(at)}" for at in range(count))
            raise _missing(f"device {name} is not there: this machine has {count} GPU{'s' * (count > 1)} ({names})")
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    if kind == "cpu":
        keep_freed_memory()
    return torch.device(kind)


def _missing(message: str, why: str = "") -> ConfigError:
    """An error with the advice to take one of this machine's devices."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names = [*(f"cuda:{number}" for number in range(torch.cuda.device_count())), *names]
    elif torch.backends.mps.is_available():
        names.append("mps")
    return ConfigError(f"{message}; use --device {', '.join(names)}, or auto{why}", code="device-missing")


def describe_device(device: torch.device) -> str:
    """The name of a GPU, `cpu`, or `Apple GPU (mps)`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple GPU (mps)" if device.type == "mps" else device.type


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensors instead of returning it to the system.

    By default glibc maps each large tensor anew, and the system fills its pages with zeros. With another C library this
    does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def describe_environment(device: torch.device, seed: int) -> dict[str, Any]:
    """Versions, device, seed, git commit of autoseg and command line, as plain data."""
    return {
        "autoseg": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "git_commit": _git_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _git_commit() -> str | None:
    """The commit of autoseg's checkout; None if it is installed from a wheel."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
