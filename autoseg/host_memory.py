"""The memory of the machine, on Linux, Windows and macOS, within a container's limits (control groups, version 2).

Every function returns bytes, or None where the system does not say. `meminfo` and `container` are the file and the
folder in which Linux says it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


OUT_OF_MEMORY = (
    "t allocate memory", "cannot allocate memory", "unable to allocate", "could not allocate", "failed to allocate",
    "not enough memory", "out of memory", "defaultcpuallocator", "bad_alloc", "cublas_status_alloc_failed",
    "could not create a primitive", "can't start new thread", "failed to map segment",
)  # fmt: skip
"""What messages say, in small letters: the allocators of PyTorch, NumPy, oneDNN, C++ and the system, and threads."""


def lacks_memory(reason: BaseException) -> bool:
    """Whether an error means that the machine has no more memory, or none for another thread."""
    kinds = MemoryError | RuntimeError | OSError | ImportError
    text = str(reason).lower()
    return isinstance(reason, MemoryError) or (
        isinstance(reason, kinds) and any(sign in text for sign in OUT_OF_MEMORY)
    )


class _WindowsMemory(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API. The sizes `with_page_file` include the memory itself."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("length", "load_percent")),
        *((name, ctypes.c_uint64) for name in ("total", "free", "total_with_page_file", "free_with_page_file")),
        *((name, ctypes.c_uint64) for name in ("total_virtual", "free_virtual", "free_extended")),
    )


def free_memory(meminfo: Path = MEMINFO, container: Path = CONTAINER) -> int | None:
    """Memory that is available now without swapping. macOS does not say."""
    limit, used = _container(container, "memory.max"), _container(container, "memory.current")
    left = None if limit is None or used is None else max(0, limit - used)
    return _least(_linux(meminfo, "MemAvailable") or _windows("free"), left)


def total_memory(meminfo: Path = MEMINFO, container: Path = CONTAINER) -> int | None:
    """Memory of the machine, or the limit of its container if that is less."""
    return _least(_linux(meminfo, "MemTotal") or _windows("total") or _posix(), _container(container, "memory.max"))


def total_with_swap(meminfo: Path = MEMINFO, container: Path = CONTAINER) -> int | None:
    """Memory and swap that a process could get if it ran alone. macOS does not say: its swap grows on demand."""
    memory, swap = _linux(meminfo, "MemTotal"), _linux(meminfo, "SwapTotal")
    if memory is None or swap is None:
        return _windows("total_with_page_file")
    limits = _container(container, "memory.max"), _container(container, "memory.swap.max")
    return sum(size if limit is None else min(size, limit) for size, limit in zip((memory, swap), limits, strict=True))


def _least(*sizes: int | None) -> int | None:
    return min((size for size in sizes if size is not None), default=None)


def _linux(meminfo: Path, name: str) -> int | None:
    """A line of /proc/meminfo."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
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


def _container(container: Path, name: str) -> int | None:
    """A figure of the container; None without one, or where it has no limit."""
    try:
        text = (container / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
