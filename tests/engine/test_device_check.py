"""Operations of a device against the CPU's: planted faults are found, and named."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.errors import raises_code
from helpers.pretend_mps import pretended_mps
from torch import Tensor
from torch.nn import functional as F

from autoseg.engine.environment import PROBES, Probe, check_gradients, prepare
from autoseg.errors import ConfigError

CPU, FEATURES = torch.device("cpu"), (2, 4, 5, 6)


@pytest.fixture(autouse=True)
def not_yet_prepared() -> Iterator[None]:
    prepare.cache_clear()
    yield
    prepare.cache_clear()


class Double(torch.autograd.Function):
    """Two times its input; the gradient is too large by `wrong`."""

    wrong = 0.0

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return 2 * features

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return (2 + Double.wrong) * grad


def on_second_call(right: Any, wrong: Any) -> Any:
    """`right` for the CPU, which comes first, then `wrong`."""
    calls = iter((right, wrong))
    return lambda *inputs: next(calls)(*inputs)


def double(wrong: float) -> Any:
    def compute(features: Tensor) -> Tensor:
        Double.wrong = wrong
        result: Tensor = Double.apply(features)
        return result

    return compute


def test_a_cpu_computes_as_a_cpu() -> None:
    began = time.perf_counter()
    check_gradients(CPU)
    assert time.perf_counter() - began < 5
    names = " ".join(probe.name for probe in PROBES)
    for word in ("BatchNorm", "average pooling", "max pooling", "groups", "depthwise", "stride 2"):
        assert word in names


def test_pretended_mps_is_tried_once_and_said_to_be_experimental(caplog: pytest.LogCaptureFixture) -> None:
    with pretended_mps() as mps:
        prepare(mps)
        prepare(mps)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "device mps is experimental: its operations were compared with the CPU's, runs on it were not"
    ]


def test_other_devices_are_ready(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("autoseg.engine.environment.check_gradients", lambda device: pytest.fail("tried"))
    for device in ("cpu", "cuda:1"):
        prepare(torch.device(device))
    assert caplog.records == []


def test_a_wrong_result_is_named() -> None:
    probe = Probe("doubling", on_second_call(double(0), lambda features: 2.01 * features), (FEATURES,))
    with raises_code(
        ConfigError, "device-computes-wrongly", "device cpu", " doubling ", "0.005", "--device cpu"
    ) as caught:
        check_gradients(CPU, [probe])
    assert "gradient" not in str(caught.value)


def test_a_wrong_gradient_is_named_though_the_result_is_right() -> None:
    probe = Probe("doubling", on_second_call(double(0), double(0.1)), (FEATURES,))
    named = "device cpu", "the gradient of doubling", "0.05 "
    with raises_code(ConfigError, "device-computes-wrongly", *named):
        check_gradients(CPU, [probe])
    check_gradients(CPU, [Probe("doubling", on_second_call(double(0), double(0.001)), (FEATURES,))])  # rounding


def test_a_gradient_that_is_no_number_is_wrong() -> None:
    probe = Probe("doubling", on_second_call(double(0), double(float("nan"))), (FEATURES,))
    with raises_code(ConfigError, "device-computes-wrongly", "the gradient of doubling", "nan"):
        check_gradients(CPU, [probe])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("BatchNorm", lambda features, weight, bias: weight[:, None, None] * features + bias[:, None, None]),
        ("average pooling 3x3, stride 1", lambda features: F.avg_pool2d(features, 3, 1, 1)),  # counts the padding
        ("max pooling 3x3, stride 2", lambda features: F.max_pool2d(-features, 3, 2, 1)),
    ],
)
def test_the_operations_of_searches_would_be_found_wrong(name: str, wrong: Any) -> None:
    (probe,) = (probe for probe in PROBES if probe.name == name)
    with raises_code(ConfigError, "device-computes-wrongly", f" {name} "):
        check_gradients(CPU, [probe._replace(compute=on_second_call(probe.compute, wrong))])


def test_what_a_device_cannot_compute_is_named() -> None:
    def missing(features: Tensor) -> Tensor:
        raise NotImplementedError("The operator 'aten::x' is not\ncurrently implemented for the MPS device.")

    said = "The operator 'aten::x' is not currently implemented"
    with raises_code(ConfigError, "device-cannot-compute", "device cpu", "doubling", said, "--device cpu"):
        check_gradients(CPU, [Probe("doubling", on_second_call(double(0), missing), (FEATURES,))])
    with raises_code(ConfigError, "device-cannot-compute", "device meta", "BatchNorm"):
        check_gradients(torch.device("meta"))


@pytest.mark.gpu
def test_a_gpu_computes_as_a_cpu() -> None:
    check_gradients(torch.device("cuda"))
