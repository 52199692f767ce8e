"""The memory of a machine, from files and calls that are made up for each system."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from autoseg.files import of_machine
from autoseg.host_memory import free_memory, lacks_memory, total_memory, total_with_swap

FIELDS = {"total": 8000, "free": 3000, "total_with_page_file": 12000}


def of(folder: Path) -> tuple[int | None, int | None, int | None]:
    """Free memory, all of it, and all with swap, of a machine whose files of Linux, if there are any, lie here."""
    where = (folder / "meminfo", folder)
    return free_memory(*where), total_memory(*where), total_with_swap(*where)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)


def test_linux(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable: 4000 kB\nSwapTotal: 2000 kB\n")
    assert of(tmp_path) == (4000 * 1024, 9000 * 1024, 11000 * 1024)
    write(tmp_path, memory_max="max\n", memory_current="5\n", memory_swap_max="max\n")
    assert of(tmp_path) == (4000 * 1024, 9000 * 1024, 11000 * 1024)
    write(tmp_path, memory_max="3000000\n", memory_current="1000000\n", memory_swap_max="0\n")
    assert of(tmp_path) == (2_000_000, 3_000_000, 3_000_000)
    write(tmp_path, memory_current="4000000\n")
    assert of(tmp_path)[0] == 0


def test_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        @staticmethod
        def GlobalMemoryStatusEx(reference: Any) -> int:
            status = reference._obj
            assert status.length == ctypes.sizeof(status) == 64  # what the Windows API's MEMORYSTATUSEX has
            for name, value in FIELDS.items():
                setattr(status, name, value)
            return works

    works = 1
    monkeypatch.setattr(ctypes, "windll", type("Windows", (), {"kernel32": Kernel}), raising=False)
    monkeypatch.delattr(os, "sysconf")
    assert of(tmp_path) == (3000, 8000, 12000)
    works = 0
    assert of(tmp_path) == (None, None, None)


def test_macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 16384}.__getitem__)
    assert of(tmp_path) == (None, 16_384_000, None)


def test_this_machine() -> None:
    free, total, most = free_memory(), total_memory(), total_with_swap()
    assert total is not None
    assert 10**8 < total <= (most or total)
    assert free is None or 0 <= free <= total


@pytest.mark.parametrize(
    "reason",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object: Failed to allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB, max allowed: 9.07 GB)."),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
    ids=str,
)
def test_messages_of_too_little_memory(reason: Exception) -> None:
    assert lacks_memory(reason)
    refused = of_machine(reason)
    assert refused is not None
    assert refused.code == "out-of-memory"


@pytest.mark.parametrize(
    "reason",
    [RuntimeError("shapes differ"), ValueError("out of memory"), KeyError("bad_alloc"), OSError(2, "no")],
    ids=str,
)
def test_messages_of_something_else(reason: Exception) -> None:
    assert not lacks_memory(reason)
    assert of_machine(reason) is None
