"""The memory of the machine, on Linux, Windows and macOS. A container's limits count (control groups, version 2).

Every function returns bytes, or None where the system does not say.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


class _WindowsMemory(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API. A page file's sizes hold those of the memory too."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load_percent", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("free", ctypes.c_uint64),
        ("total_with_page_file", ctypes.c_uint64),
        ("free_with_page_file", ctypes.c_uint64),
        ("total_virtual", ctypes.c_uint64),
        ("free_virtual", ctypes.c_uint64),
        ("free_extended", ctypes.c_uint64),
    )


def free_memory() -> int | None:
    """What can be had now without swapping. macOS does not say."""
    limit, used = _container("memory.max"), _container("memory.current")
    left = None if limit is None or used is None else max(0, limit - used)
    return _least(_linux("MemAvailable") or _windows("free"), left)


def total_memory() -> int | None:
    """What the machine has, or its container may take."""
    return _least(_linux("MemTotal") or _windows("total") or _posix(), _container("memory.max"))


def total_with_swap() -> int | None:
    """What a process could get if it ran alone. macOS, whose swap grows as it is needed, does not say."""
    memory, swap = _linux("MemTotal"), _linux("SwapTotal")
    if memory is None or swap is None:
        return _windows("total_with_page_file")
    limits = _container("memory.max"), _container("memory.swap.max")
    return sum(size if limit is None else min(size, limit) for size, limit in zip((memory, swap), limits, strict=True))


def _least(*sizes: int | None) -> int | None:
    return min((size for size in sizes if size is not None), default=None)


def _linux(name: str) -> int | None:
    """A line of /proc/meminfo."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return None


def _windows(name: str) -> int | None:
    """A field of `_WindowsMemory`."""
    windows = getattr(ctypes, "windll", None)
    status = _WindowsMemory(length=ctypes.sizeof(_WindowsMemory))
    if windows is None or not windows.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(getattr(status, name))


def _posix() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _container(name: str) -> int | None:
    """A figure of the container; None without one, or where it has no limit."""
    try:
        text = (CONTAINER / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
