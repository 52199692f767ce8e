"""Sizes of memory as people write them, and what a machine has."""

from __future__ import annotations

import pytest
import torch
from helpers.errors import raises_code

from autoseg.errors import ConfigError, RunError
from autoseg.files import format_bytes
from autoseg.planning.device import device_memory, memory_errors, most_memory, parse_bytes

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
    with raises_code(ConfigError, "memory-not-a-size", repr(text), "16GB"):
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


def pretend(monkeypatch: pytest.MonkeyPatch, **memory: int | None) -> None:
    """A machine whose system says this, by the functions of `autoseg.host_memory`."""
    for name, size in memory.items():
        monkeypatch.setattr(f"autoseg.planning.device.{name}", lambda size=size: size)


@pytest.mark.parametrize(("free", "expected"), [(4000, 4000), (0, 0), (None, 9000)])
def test_a_cpu_has_what_is_free(free: int | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or, as on macOS, which does not say, all memory."""
    pretend(monkeypatch, free_memory=free, total_memory=9000, total_with_swap=12000)
    assert (device_memory(CPU), most_memory(CPU)) == (expected, 12000)


def test_a_system_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, free_memory=None, total_memory=None, total_with_swap=None)
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
    with raises_code(RunError, "out-of-memory", "cpu"), memory_errors(CPU, ""):
        raise RuntimeError("could not create a primitive")
    with pytest.raises(RuntimeError, match="shapes"), memory_errors(CPU, ""):
        raise RuntimeError("shapes differ")
