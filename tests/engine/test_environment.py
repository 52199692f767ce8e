"""How the device is set up."""

from __future__ import annotations

import ctypes

import pytest

from autoseg.engine import environment


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
