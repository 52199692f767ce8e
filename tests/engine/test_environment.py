"""How the device is set up."""

from __future__ import annotations

import ctypes

import pytest
import torch
from helpers.errors import raises_code

from autoseg.engine import environment
from autoseg.engine.environment import describe_device, pick_device
from autoseg.errors import ConfigError


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with two GPUs; the numbers of those that became the current one."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: ("Big", "Small")[number])
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


# --- by name ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "number"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_a_gpu_becomes_the_current_one(name: str, number: int, current: list[int]) -> None:
    assert pick_device(name) == torch.device("cuda", number)
    assert current == [number]


def test_auto_is_the_cpu_where_there_is_no_gpu_even_on_a_mac(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    assert pick_device("mps") == torch.device("mps")


@pytest.mark.parametrize(
    "name",
    ["", "tpu", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:01", "cuda:one", "cuda:1000", "cuda:1 ", "mps:0"],
)
def test_what_is_no_name(name: str, current: list[int]) -> None:
    with raises_code(ConfigError, "unknown-device", "device: ", "auto, cpu, cuda, cuda:N ", "mps", repr(name)):
        pick_device(name)
    assert current == []


def test_a_gpu_that_is_not_there(current: list[int]) -> None:
    named = "device cuda:7", "2 GPUs (cuda:0: Big, cuda:1: Small)", "--device cuda:0, cuda:1, cpu, or auto"
    with raises_code(ConfigError, "device-missing", *named):
        pick_device("cuda:7")
    assert current == []


@pytest.mark.parametrize("name", ["cuda", "cuda:7"])
@pytest.mark.parametrize("built", [None, "13.0"])
def test_no_gpu_at_all(name: str, built: str | None, no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.version, "hip", None)
    with raises_code(ConfigError, "device-missing", f"device {name} ", "--device cpu, or auto") as caught:
        pick_device(name)
    assert ("built without CUDA" in str(caught.value)) is (built is None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with raises_code(ConfigError, "device-missing", "--device cpu, mps, or auto"):
        pick_device(name)


def test_mps_where_there_is_none(no_gpu: None) -> None:
    with raises_code(ConfigError, "device-missing", "device mps", "Apple silicon", "--device cpu, or auto"):
        pick_device("mps")


def test_what_a_device_is_called(current: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    names = [describe_device(torch.device(name)) for name in ("cpu", "mps", "cuda:1")]
    assert names == ["cpu", "Apple GPU (mps)", "GPU 1"]


@pytest.mark.gpu
def test_the_first_gpu_of_this_machine() -> None:
    assert pick_device("cuda") == pick_device("auto") == torch.device("cuda", 0)
    assert torch.cuda.current_device() == 0
    with raises_code(ConfigError, "device-missing", "cuda:99", f"(cuda:0: {torch.cuda.get_device_name(0)}"):
        pick_device("cuda:99")


# --- memory of a CPU --------------------------------------------------------------------------------------------------


def test_on_a_cpu_freed_memory_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            asked.append((parameter, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    environment.pick_device("cpu")
    assert dict(asked) == {environment.M_MMAP_THRESHOLD: 1 << 30, environment.M_TRIM_THRESHOLD: (1 << 31) - 1}


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert environment.pick_device("cpu").type == "cpu"
