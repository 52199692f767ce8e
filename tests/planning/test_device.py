"""Sizes of memory as people write them, and what a machine has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.errors import raises_code

from autoseg import host_memory
from autoseg.errors import ConfigError, RunError
from autoseg.planning.device import device_memory, format_bytes, memory_errors, most_memory, parse_bytes

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16GB", 16 * 10**9),
        ("16GiB", 16 * 2**30),
        ("800MB", 8 * 10**8),
        (" 1.5 gb ", 15 * 10**8),
        ("2k", 2000),
        ("3KiB", 3072),
        ("1T", 10**12),
        ("12345", 12345),
        (12345, 12345),
        ("512B", 512),
    ],
)
def test_sizes(text: str | int, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "lots", "GB", "-5GB", "16 apples", "1e9", "5iB", "nan", "1.2.3GB", True])
def test_no_sizes(text: str) -> None:
    with raises_code(ConfigError, "memory-not-a-size", f"'{text}'", "16GB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["0", "0GB", "0.1", "9999999999TB"])
def test_sizes_that_make_no_sense(text: str) -> None:
    with raises_code(ConfigError, "memory-out-of-range", f"'{text}'"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 KB"), (7_214_000_000, "7.21 GB"), (99_960_000, "100 MB"),
     (12_345_678, "12.3 MB"), (999_600, "1.00 MB"), (5 * 10**15, "5000 TB")],
)  # fmt: skip
def test_formatting(size: int, expected: str) -> None:
    assert format_bytes(size) == expected


def test_a_cpu_has_what_is_free_and_its_container_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       9000 kB\nMemAvailable:   4000 kB\n")
    monkeypatch.setattr(host_memory, "MEMINFO", meminfo)
    monkeypatch.setattr(host_memory, "CONTAINER", tmp_path)
    assert device_memory(CPU) == 4000 * 1024
    for most, expected in (("max", 4000 * 1024), ("3000000", 1_000_000), ("9000000", 4000 * 1024), ("1000000", 0)):
        (tmp_path / "memory.max").write_text(most + "\n")
        (tmp_path / "memory.current").write_text("2000000\n")
        assert device_memory(CPU) == expected
    meminfo.unlink()  # as on macOS: all memory
    (tmp_path / "memory.max").write_text("max\n")
    assert device_memory(CPU) > 10**8


def test_a_system_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(host_memory, "CONTAINER", tmp_path)
    monkeypatch.delattr("os.sysconf")
    with raises_code(ConfigError, "memory-unknown", "--memory"):
        device_memory(CPU)
    assert most_memory(CPU) is None


def test_mps_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 10 * 10**9)
    mps = torch.device("mps")
    assert (device_memory(mps), most_memory(mps)) == (10 * 10**9, 17 * 10**9)


@pytest.mark.gpu
def test_a_gpu_has_all_of_it() -> None:
    gpu = torch.device("cuda")
    assert device_memory(gpu) == most_memory(gpu) == torch.cuda.mem_get_info()[1]


def test_too_little_memory_is_one_line() -> None:
    with raises_code(RunError, "out-of-memory", "cpu", "take less"), memory_errors(CPU, "take less"):
        torch.empty(2**50)
    with raises_code(RunError, "out-of-memory", "cpu"), memory_errors(CPU, ""):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with raises_code(RunError, "out-of-memory", "cpu"), memory_errors(CPU, ""):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB, max allowed: 9.07 GB).")
    with pytest.raises(RuntimeError, match="shapes"), memory_errors(CPU, ""):
        raise RuntimeError("shapes differ")
